"""The batch that fits, the loader that feeds it, and what the run will take."""

from __future__ import annotations

import math
from dataclasses import dataclass

from autotrain.errors import DoesNotFitError, UsageError
from autotrain.plan import batch, cadence, compute, memory
from autotrain.plan.ledger import Ledger
from autotrain.schema import (
    Beside,
    Device,
    HardwareProfile,
    ModelProfile,
    Prediction,
    Reason,
)
from autotrain.units import bytes_text, count_text, seconds_text

# No one trains with more in one micro-batch; it bounds the search.
MOST_SAMPLES = 1 << 20


@dataclass
class Sizing:
    """One model on one device: predictions at any micro_batch, and the batch settings."""

    ledger: Ledger
    hardware: HardwareProfile
    device: Device
    model: ModelProfile
    train_count: int
    valid_count: int

    def get(self, key: str) -> float:
        """A number decided earlier."""
        section, name = key.split(".", 1)
        return float(self.ledger.values[section][name])

    # --- memory ----------------------------------------------------------------------------

    def tensors(self, micro_batch: int, accum_steps: int) -> Prediction:
        """Tensor peak of a step, in bytes."""
        chosen = self.ledger.values["optimizer"]
        peak = memory.tensor_peak_bytes(
            self.model,
            micro_batch=micro_batch,
            accum_steps=accum_steps,
            dtype=self.ledger.values["precision"]["dtype"],
            optimizer=chosen["name"],
            implementation=chosen["implementation"],
            momentum=chosen["momentum"],
        )
        return memory.tensor_interval(peak)

    def device_peak(self, micro_batch: int, accum_steps: int, workers: int = 0) -> Prediction:
        """What the system will see, in bytes."""
        tensors = self.tensors(micro_batch, accum_steps)
        reserved = memory.reserved_interval(tensors)
        worker_bytes = workers * self.worker_bytes()
        return memory.device_interval(self.device, tensors, reserved, worker_bytes)

    def worker_bytes(self) -> int:
        """RAM of one loader worker."""
        forks = self.hardware.system in ("linux", "wsl")
        return memory.FORK_WORKER_BYTES if forks else memory.SPAWN_WORKER_BYTES

    # --- batch -----------------------------------------------------------------------------

    def batch(self) -> None:
        """Decide micro_batch, accum_steps and global_batch. Raises DoesNotFitError."""
        ledger, count = self.ledger, self.train_count
        world = ledger.settle(
            "batch.world_size", 1, formula="one process trains", source="autotrain's rule",
            kind="fixed",
        )  # fmt: skip
        default = batch.default_global_batch(count)
        given = ledger.fixed("batch.global_batch")
        target = min(default, count) if given is None else given
        fit = self._fit(accum_steps=1)
        if fit < math.ceil(target / world):
            fit = self._fit(accum_steps=2)
        if fit == 0:
            raise self._does_not_fit()
        micro, accum = self._cut(target, fit, world)
        self._settle_batch(default, target, fit, (micro, accum, world))

    def _fit(self, accum_steps: int) -> int:
        budget = self.get("memory.budget_bytes")
        return memory.largest_fit(
            lambda size: self.device_peak(size, accum_steps).high, budget, MOST_SAMPLES
        )

    def _cut(self, target: int, fit: int, world: int) -> tuple[int, int]:
        """(micro_batch, accum_steps) under what the user and the recipe fixed."""
        ledger = self.ledger
        micro, accum = ledger.fixed("batch.micro_batch"), ledger.fixed("batch.accum_steps")
        if ledger.by_user("batch.micro_batch") and ledger.by_user("batch.accum_steps"):
            return micro, accum
        if ledger.by_user("batch.micro_batch"):
            return micro, math.ceil(target / (micro * world))
        if ledger.by_user("batch.accum_steps"):
            return math.ceil(target / (accum * world)), accum
        fit = min(fit, micro or fit)
        if self.model.mixes:
            return min(fit, math.ceil(target / world)), 1
        if ledger.by_user("batch.global_batch"):
            share = math.ceil(target / world)
            size = batch.exact_cut(share, fit)
            return size, share // size
        return batch.cut(target, fit, world)

    def _settle_batch(self, default: int, target: int, fit: int, cut: tuple[int, int, int]) -> None:
        micro, accum, world = cut
        ledger, total = self.ledger, micro * accum * world
        if ledger.by_user("batch.global_batch") and ledger.fixed("batch.global_batch") != total:
            raise UsageError(
                f"batch.global_batch: {ledger.fixed('batch.global_batch')} is not micro_batch "
                f"{micro} x accum_steps {accum} x world_size {world} = {total}",
                hint="leave one of them out; the others follow",
            )
        self._settle_micro(micro, accum, target, fit)
        floor = batch.floor_accumulation_rule(target, micro)
        ledger.drop("batch.accum_steps")
        ledger.settle(
            "batch.accum_steps",
            accum,
            formula=f"target {target} / (micro_batch {micro} x world_size {world}), rounded up",
            source="autotrain's rule; every sample weighs the same however the batch is cut",
            limited_by="batch.micro_batch" if accum > 1 else "",
            beside=(
                Beside(
                    name="floor_accumulation_rule",
                    value=floor,
                    formula=f"max({target} // {micro}, 1)",
                    why_not="rounding down falls short of the target where it does not divide",
                ),
            ),
        )
        why = f"micro_batch {micro} x accum_steps {accum} x world_size {world}"
        if ledger.fixed("batch.global_batch") is None:
            why += f"; target {default}: power of two nearest to sqrt({self.train_count} samples)"
        elif ledger.fixed("batch.global_batch") != total:
            ledger.drop("batch.global_batch")
            why += f"; the recipe's batch, cut to what fits and to {self.train_count} samples"
        ledger.settle(
            "batch.global_batch",
            total,
            formula=why,
            source="McCandlish 2018, arXiv:1812.06162",
            limited_by="the dataset" if target == self.train_count else "",
        )

    def _settle_micro(self, micro: int, accum: int, target: int, fit: int) -> None:
        ledger, user = self.ledger, self.ledger.by_user("batch.micro_batch")
        budget = self.get("memory.budget_bytes")
        peak = self.device_peak(micro, accum)
        if user and peak.low > self.device.total_bytes:
            raise DoesNotFitError(
                f"batch.micro_batch {micro} needs at least {bytes_text(peak.low)}; "
                f"{self.device.name} has {bytes_text(self.device.total_bytes)}",
                f"--set batch.micro_batch={max(fit, 1)}",
            )
        ledger.drop("batch.micro_batch")
        fits = f"{count_text(fit)}" if fit < MOST_SAMPLES else "any number of"
        ledger.settle(
            "batch.micro_batch",
            micro,
            formula=(
                f"a step of {micro} takes up to {bytes_text(peak.high)} of the budget of "
                f"{bytes_text(budget)}; {fits} samples would fit; the target is {target}"
            ),
            source="traced step; budget rule: the high end of the prediction fits the budget",
            kind="measured",
            limited_by="memory.budget_bytes" if fit < target else "batch.global_batch",
            would_change="more free memory, a smaller model or input, --set precision.dtype=bf16"
            if fit < target
            else "--set batch.global_batch=...",
            beside=(self._input_rule(),),
        )

    def _input_rule(self) -> Beside:
        total, sample = self.device.total_bytes, self.model.sample_bytes
        reserve = total - self.get("memory.budget_bytes")
        weights = self.model.parameter_bytes
        return Beside(
            name="input_bytes_rule",
            value=memory.input_bytes_rule(total, weights, reserve, sample),
            formula=f"({bytes_text(total)} - model {bytes_text(weights)} - reserve "
            f"{bytes_text(reserve)}) / {bytes_text(sample)} of input a sample",
            why_not="it counts the input and forgets activations, gradients and optimizer states",
        )

    def _does_not_fit(self) -> DoesNotFitError:
        needed, budget = self.device_peak(1, 1), self.get("memory.budget_bytes")
        state = memory.optimizer_state_bytes("adamw", self.model.trainable_bytes, 1, None)
        needs = [f"a device with {bytes_text(1.1 * needed.high)} free"]
        if self.get("memory.share") < 0.95:
            needs.append("--set memory.share=0.95")
        if self.ledger.values["optimizer"]["name"] != "sgd":
            needs.append(f"--set optimizer.name=sgd (saves up to {bytes_text(state)})")
        if self.ledger.values["precision"]["dtype"] in ("fp32", "tf32"):
            needs.append("--set precision.dtype=bf16")
        return DoesNotFitError(
            f"one sample needs {bytes_text(needed.expected)} (up to {bytes_text(needed.high)}); "
            f"the budget on {self.device.name} is {bytes_text(budget)}",
            "what would make it fit: " + ", ".join(needs) + ", or a smaller model or input",
        )

    # --- time ------------------------------------------------------------------------------

    def steps_per_epoch(self) -> int:
        """Optimizer steps in one pass over the training samples; the last may be smaller."""
        return math.ceil(self.train_count / self.get("batch.global_batch"))

    def micro_seconds(self) -> float:
        """Expected seconds of one micro-batch's forward and backward."""
        micro = int(self.get("batch.micro_batch"))
        dtype = self.ledger.values["precision"]["dtype"]
        return compute.micro_batch_seconds(self.model, self.device, micro, dtype)

    def state_bytes(self) -> int:
        """Bytes of the optimizer's states."""
        chosen = self.ledger.values["optimizer"]
        return memory.optimizer_state_bytes(
            chosen["name"], self.model.trainable_bytes, self.model.tensors, chosen["momentum"]
        )

    def step_seconds(self) -> Prediction:
        """One optimizer step, loading included where no worker does it."""
        accum = int(self.get("batch.accum_steps"))
        loading = 0.0
        if not self.ledger.values.get("loader", {}).get("workers", 0):
            loading = self.model.sample_seconds * self.get("batch.micro_batch")
        update = compute.optimizer_seconds(self.model, self.device, self.state_bytes())
        return compute.step_interval(accum * (self.micro_seconds() + loading) + update, self.device)

    def checkpoint_bytes(self) -> Prediction:
        """Bytes of one checkpoint on disk."""
        model = self.model
        return cadence.checkpoint_interval(
            model.parameter_bytes, model.buffer_bytes, self.state_bytes()
        )

    # --- loader and predictions ------------------------------------------------------------

    def loader(self) -> None:
        """Decide how many processes load data, and how they start."""
        ledger, cores = self.ledger, self.hardware.cpu.cores
        micro, accum = int(self.get("batch.micro_batch")), int(self.get("batch.accum_steps"))
        on_cpu = self.device.kind == "cpu"
        room = (
            self.get("memory.budget_bytes") - self.device_peak(micro, accum).high
            if on_cpu
            else 0.5 * self.hardware.ram_available_bytes
        )
        seconds, loading = self.micro_seconds(), self.model.sample_seconds * micro
        # On a CPU a worker takes its core from the model.
        share = 0.2 if on_cpu else 0.05
        rule = compute.loader_workers(
            loading, seconds, share, cores, max(int(room // self.worker_bytes()), 0)
        )
        workers = ledger.settle(
            "loader.workers",
            rule,
            formula=f"{micro} samples load in {seconds_text(loading)}, the model takes "
            f"{seconds_text(seconds)}: workers where loading is over {share:.0%} of it, "
            "and over the 1 ms that handing a batch over costs",
            source="samples timed while planning; one of the cores is left to training",
            kind="measured",
            limited_by=f"{cores} cores, {bytes_text(max(room, 0))} of RAM to spare",
        )
        ledger.settle(
            "loader.prefetch",
            2,
            formula="micro-batches each worker holds ready",
            source="torch.utils.data.DataLoader's default",
            kind="fixed",
        )
        ledger.settle(
            "loader.pin_memory",
            self.device.kind in ("cuda", "rocm"),
            formula="page-locked batches copy to a GPU without a stop; useless on a CPU",
            source="CUDA programming guide",
        )
        ledger.settle(
            "loader.start_method",
            "fork" if self.hardware.system in ("linux", "wsl") else "spawn",
            formula=f"{workers} workers; fork shares memory where the system has it",
            source="multiprocessing",
            limited_by="the operating system",
        )

    def predictions(self) -> None:
        """Record what the run will take, each with how it was computed."""
        micro, accum = int(self.get("batch.micro_batch")), int(self.get("batch.accum_steps"))
        tensors = self.tensors(micro, accum)
        reserved = memory.reserved_interval(tensors)
        peak = self.device_peak(micro, accum, int(self.get("loader.workers")))
        step, run = self.step_seconds(), self.run_seconds()
        parts = (
            f"weights {bytes_text(self.model.parameter_bytes)}, gradients "
            f"{bytes_text(self.model.trainable_bytes)}, optimizer {bytes_text(self.state_bytes())},"
            f" the rest activations and the batch"
        )
        self._predict("tensor_peak_bytes", tensors, parts, "traced step, plan/memory.py")
        nobody = "" if self.device.kind in ("cuda", "rocm") else " (no such allocator here)"
        self._predict(
            "reserved_peak_bytes", reserved,
            f"1.06 x tensors + 22 MiB: segments and workspaces{nobody}",
            "CUDA caching allocator's rounding",
        )  # fmt: skip
        base = (
            f"{bytes_text(memory.CPU_BASE_BYTES)} of imports + tensors + loader workers"
            if self.device.kind == "cpu"
            else f"reserved + {bytes_text(memory.CUDA_CONTEXT.expected)} of CUDA context"
        )
        self._predict("device_peak_bytes", peak, base, "plan/memory.py")
        self._predict(
            "step_seconds", step,
            f"{accum} x {seconds_text(self.micro_seconds())} a micro-batch, its loading, and the "
            f"optimizer; rates {self.device.rates.source}",
            "roofline of the traced step, plan/compute.py",
        )  # fmt: skip
        self._predict(
            "run_seconds", run,
            f"{int(self.get('train.epochs'))} epochs x ({self.steps_per_epoch()} steps and an "
            f"evaluation of {self.valid_count} samples)",
            "plan/sizing.py; early stopping may end it sooner",
        )  # fmt: skip
        self._predict(
            "checkpoint_bytes", self.checkpoint_bytes(),
            "weights + buffers + optimizer states", "plan/cadence.py",
        )  # fmt: skip

    def run_seconds(self) -> Prediction:
        """The whole run if nothing stops it early: steps and evaluations."""
        step, micro = self.step_seconds(), self.get("batch.micro_batch")
        forward = self.micro_seconds() / 3 + self.model.sample_seconds * micro
        evaluation = math.ceil(self.valid_count / micro) * forward
        epochs = self.get("train.epochs")
        share = epochs * (self.steps_per_epoch() + evaluation / max(step.expected, 1e-9))
        return Prediction(
            low=share * step.low, expected=share * step.expected, high=share * step.high
        )

    def _predict(self, name: str, value: Prediction, formula: str, source: str) -> None:
        reason = Reason(
            value=value.model_dump(), kind="rule", formula=formula, source=source,
            would_change="a correction from a real trial (`plan --trial`) is yet to come",
        )  # fmt: skip
        self.ledger.record(f"predicted.{name}", value, reason)
