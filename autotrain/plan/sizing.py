"""One model on one device under the settings decided so far: what it takes at any size."""

from __future__ import annotations

import math
from dataclasses import dataclass

from autotrain.plan import cadence, compute, cuda, host, memory
from autotrain.plan.ledger import Ledger
from autotrain.schema import Device, HardwareProfile, ModelProfile, Prediction

# No one trains with more in one micro-batch; it bounds the search.
MOST_SAMPLES = 1 << 20


@dataclass
class Sizing:
    """Predictions at any micro_batch, and at the settings in force."""

    ledger: Ledger
    hardware: HardwareProfile
    device: Device
    model: ModelProfile
    train_count: int
    valid_count: int

    def get(self, key: str) -> float:
        """A number decided earlier."""
        return float(self.ledger.value(key))

    def count(self, key: str) -> int:
        """A whole number decided earlier."""
        return int(self.ledger.value(key))

    # --- memory ----------------------------------------------------------------------------

    def setup(self, micro_batch: int, accum_steps: int) -> memory.Setup:
        """A step at that size, under the settings in force."""
        chosen = self.ledger.values["optimizer"]
        return memory.Setup(
            micro_batch,
            accum_steps,
            dtype=self.ledger.value("precision.dtype"),
            optimizer=chosen["name"],
            implementation=chosen["implementation"],
            momentum=chosen["momentum"],
        )

    def tensors(self, setup: memory.Setup) -> Prediction:
        """Tensor peak of a step, in bytes."""
        return memory.tensor_interval(memory.tensor_peak_bytes(self.model, setup))

    def reserved(self, setup: memory.Setup) -> Prediction:
        """What a CUDA caching allocator would reserve, in bytes."""
        return cuda.reserved(self.model, setup, self.tensors(setup))

    def device_peak(self, setup: memory.Setup, workers: int = 0) -> Prediction:
        """What the system will see, in bytes. MPS is taken for a GPU with CUDA's figures."""
        if self.device.kind != "cpu":
            return cuda.device_peak(self.reserved(setup))
        worker_bytes = workers * self.worker_bytes()
        return host.resident(
            self.model, setup, self.tensors(setup), self.saved_bytes(), worker_bytes
        )

    def saved_bytes(self) -> int:
        """Tensors of a checkpoint: weights, buffers and the optimizer's states."""
        return self.model.parameter_bytes + self.model.buffer_bytes + self.state_bytes()

    def fit(self, accum_steps: int) -> int:
        """The largest micro_batch whose high prediction is within the budget; 0 if none is."""
        return memory.largest_fit(
            lambda size: self.device_peak(self.setup(size, accum_steps)).high,
            self.get("memory.budget_bytes"),
            MOST_SAMPLES,
        )

    def worker_bytes(self) -> int:
        """RAM of one loader worker."""
        forks = self.hardware.system in ("linux", "wsl")
        return host.FORK_WORKER_BYTES if forks else host.SPAWN_WORKER_BYTES

    def state_bytes(self) -> int:
        """Bytes of the optimizer's states."""
        chosen = self.ledger.values["optimizer"]
        return memory.optimizer_state_bytes(
            chosen["name"], self.model.trainable_bytes, self.model.tensors, chosen["momentum"]
        )

    def checkpoint_bytes(self) -> Prediction:
        """Bytes of one checkpoint on disk."""
        return cadence.checkpoint_interval(self.saved_bytes())

    # --- time ------------------------------------------------------------------------------

    def steps_per_epoch(self) -> int:
        """Optimizer steps in one pass over the training samples; the last may be smaller."""
        return math.ceil(self.train_count / self.count("batch.global_batch"))

    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.count("train.epochs") * self.steps_per_epoch()

    def micro_seconds(self) -> float:
        """Expected seconds of one micro-batch's forward and backward."""
        micro, dtype = self.count("batch.micro_batch"), self.ledger.value("precision.dtype")
        return compute.micro_batch_seconds(self.model, self.device, micro, dtype)

    def loading_seconds(self) -> float:
        """Expected seconds to load one micro-batch, in one process."""
        micro = self.count("batch.micro_batch")
        return compute.loading_seconds(self.model.sample_seconds, micro)

    def workers(self) -> int:
        """Loader workers; none while that is undecided."""
        return int(self.ledger.values.get("loader", {}).get("workers", 0))

    def step_seconds(self) -> Prediction:
        """One optimizer step: its micro-batches, their loading, and the update."""
        micro = compute.fed_seconds(self.micro_seconds(), self.loading_seconds(), self.workers())
        update = compute.optimizer_seconds(self.model, self.device, self.state_bytes())
        expected = self.count("batch.accum_steps") * micro + update + compute.LOOP_SECONDS
        return compute.interval(expected, self.device)

    def evaluation_seconds(self) -> Prediction:
        """One pass over the validation samples."""
        passes = math.ceil(self.valid_count / self.count("batch.micro_batch"))
        share = self.valid_count / (passes * self.count("batch.micro_batch")) if passes else 0.0
        forward = compute.FORWARD_SHARE * self.micro_seconds()
        each = compute.fed_seconds(forward, self.loading_seconds(), self.workers())
        return compute.interval(passes * (share * each + compute.LOOP_SECONDS), self.device)

    def save_seconds(self) -> float:
        """Writing one checkpoint."""
        size = self.checkpoint_bytes().expected
        return cadence.save_seconds(size, self.hardware.disk.write_bandwidth)

    def occasions(self, section: str) -> int:
        """How often a whole run evaluates (`evaluate`) or saves regularly (`checkpoint`)."""
        chosen = self.ledger.values[section]
        return cadence.occasions(
            self.count("train.epochs"),
            self.steps_per_epoch(),
            chosen["every_epochs"],
            chosen["every_steps"],
        )

    def run_seconds(self) -> Prediction:
        """The whole run if nothing stops it early: start, steps, evaluations, saves."""
        steps, step = self.total_steps(), self.step_seconds()
        evaluations, evaluation = self.occasions("evaluate"), self.evaluation_seconds()
        saves, save = self.occasions("checkpoint"), self.save_seconds()
        start = compute.interval(compute.START_SECONDS, self.device)
        # The best so far is saved too: at one evaluation at least, at each at most.
        best = Prediction(low=1, expected=(1 + evaluations) / 2, high=evaluations)

        def total(end: str, save: float) -> float:
            s, e, b, t = (getattr(p, end) for p in (step, evaluation, best, start))
            return float(t + steps * s + evaluations * e + (saves + b) * save)

        return Prediction(
            low=total("low", save / 3),
            expected=total("expected", save),
            high=total("high", 3 * save),
        )
