"""One model on one device under the settings decided so far: what it takes at any size."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from autotrain.plan import (
    cadence,
    correction,
    cuda,
    divided,
    fitting,
    host,
    keeping,
    lengths,
    memory,
)
from autotrain.plan.ledger import Ledger
from autotrain.plan.timing import Timing
from autotrain.schema import Bucket, Device, HardwareProfile, ModelProfile, ModelSection, Prediction


@dataclass
class Sizing:
    """Predictions at any micro_batch, and at the settings in force."""

    ledger: Ledger
    hardware: HardwareProfile
    device: Device
    model: ModelProfile
    train_count: int
    valid_count: int
    groups: tuple[tuple[int, bool], ...] = ()
    seen: dict[float, ModelProfile] = field(default_factory=dict, repr=False)
    said: dict[tuple[object, ...], Prediction] = field(default_factory=dict, repr=False)
    took: dict[tuple[object, ...], float] = field(default_factory=dict, repr=False)

    def get(self, key: str) -> float:
        """A number decided earlier."""
        return float(self.ledger.value(key))

    def count(self, key: str) -> int:
        """A whole number decided earlier."""
        return int(self.ledger.value(key))

    # --- memory ----------------------------------------------------------------------------

    def setup(self, micro_batch: int, accum_steps: int, length: float = 0.0) -> memory.Setup:
        """A step at that size, under the settings in force; `length` 0: of the longest samples."""
        chosen = self.ledger.values["optimizer"]
        return memory.Setup(
            micro_batch,
            accum_steps,
            dtype=self.ledger.value("precision.dtype"),
            optimizer=chosen["name"],
            implementation=chosen["implementation"],
            momentum=chosen["momentum"],
            length=length,
            decays=bool(chosen["weight_decay"]),
            form=ModelSection.model_validate(self.ledger.values.get("model", {})),
            ema=self.averages(),
            groups=self.groups,
            several=self.processes() > 1 and not self.shard(),
            world=self.processes(),
            shard=self.shard(),
            background=self.copies(),
            kernels=int(self.ledger.values["device"].get("kernels") or 0),
            keep_freed=self.ledger.values["device"].get("keep_freed"),
        )

    def shard(self) -> str:
        """After which micro-batches a divided model's gradients are added up; else empty."""
        chosen = self.ledger.values["parallel"]
        divided = chosen["strategy"] == "shard" and self.processes() > 1
        return str(chosen["reduce"]) if divided else ""

    def processes(self) -> int:
        """How many train together, as far as it is fixed."""
        return int(self.ledger.fixed("batch.world_size") or 1)

    def budget(self) -> float:
        """Bytes that each process may use: those on a CPU share its memory."""
        return self.get("memory.budget_bytes") / self._sharing()

    def threads(self) -> int:
        """Threads that each process computes on."""
        return max(self.count("device.threads") // self._sharing(), 1)

    def has(self) -> float:
        """Bytes that the device has for each process, other programs' too."""
        return self.device.total_bytes / self._sharing()

    def _sharing(self) -> int:
        return self.processes() if self.device.kind == "cpu" else 1

    def averages(self) -> bool:
        """Whether the run keeps averaged weights."""
        return self.ledger.value("train.ema_decay") is not None

    def copies(self) -> bool:
        """Whether steps are taken beside a copy of what is saved, where that is known by now."""
        chosen = self.ledger.values.get("checkpoint", {}).get("background")
        if chosen is None:
            chosen = self.ledger.fixed("checkpoint.background")
        return bool(chosen) and self.device.kind == "cpu"

    def average_bytes(self) -> int:
        """Bytes of the averaged weights."""
        return memory.average_bytes(self.model) if self.averages() else 0

    def buckets(self) -> tuple[Bucket, ...]:
        """(up to this length, micro_batch), rising; none where there are none, or none yet."""
        known = self.model.lengths is not None and not self.model.mixes
        return (self.ledger.values.get("batch", {}).get("buckets") or ()) if known else ()

    def planned(self) -> memory.Setup:
        """The step in force; with buckets, of the one that takes most memory."""
        micro, accum = self.count("batch.micro_batch"), self.count("batch.accum_steps")
        setups = [self.setup(size, max(accum, 2), end) for end, size in self.buckets()]
        return fitting.worst(self, setups) if setups else self.setup(micro, accum)

    def at_length(self, length: float) -> ModelProfile:
        """The model as if every sample were so long."""
        if length not in self.seen:
            self.seen[length] = lengths.at_length(self.model, length)
        return self.seen[length]

    def tensors(self, setup: memory.Setup) -> Prediction:
        """Tensor peak of a step, in bytes."""
        return self._corrected("tensor_peak_bytes", setup, self._tensors)

    def _tensors(self, setup: memory.Setup) -> Prediction:
        model = self.at_length(setup.length)
        if setup.shard:
            return divided.interval(divided.tensor_peak_bytes(model, setup))
        peak = memory.tensor_peak_bytes(model, setup)
        return memory.tensor_interval(peak, compiled=setup.form.compile)

    def reserved(self, setup: memory.Setup) -> Prediction:
        """What a CUDA caching allocator would reserve, in bytes."""
        return self._corrected("reserved_peak_bytes", setup, self._reserved)

    def _reserved(self, setup: memory.Setup) -> Prediction:
        if (setup,) not in self.said:
            model = self.at_length(setup.length)
            self.said[setup,] = cuda.reserved(model, setup, self.tensors(setup), self.device)
        return self.said[setup,]

    def device_peak(self, setup: memory.Setup, workers: int | None = None) -> Prediction:
        """What the system will see, in bytes. MPS is taken for a GPU with CUDA's figures.

        `workers` that load data: by default those that the user or a recipe gives.
        """
        workers = self.given_workers() if workers is None else workers
        if not self.model.trials:
            return self._device_peak(setup, workers)
        own = self._corrected("device_peak_bytes", setup, self._device_peak)
        more = self._device_peak(setup, workers)
        return correction.moved(own, self._device_peak(setup), more)

    def _device_peak(self, setup: memory.Setup, workers: int | None = None) -> Prediction:
        """With so many workers and what they keep; None: of the steps alone."""
        if self.device.kind != "cpu":
            return cuda.device_peak(self.reserved(setup), self.device)
        if (setup, workers) not in self.said:
            model = self.at_length(setup.length)
            more = 0 if workers is None else self.beside_bytes(workers)
            self.said[setup, workers] = host.resident(
                model, setup, self.tensors(setup), self.saved_bytes(), more
            )
        return self.said[setup, workers]

    def beside_bytes(self, workers: int) -> int:
        """RAM of so many loader workers, of what the dataset keeps, and of the stages before."""
        kept = keeping.counted_bytes(self.model, workers, self.get("memory.budget_bytes"))
        return workers * self.worker_bytes() + kept + host.left_bytes(self.model)

    def _corrected(
        self, key: str, setup: memory.Setup, predict: Callable[[memory.Setup], Prediction]
    ) -> Prediction:
        """What `predict` says, in the light of the trials."""
        if setup.shard or not self.model.trials:  # a trial has the whole model
            return predict(setup)
        alone = setup._replace(several=False, background=False)
        found = self.points(key, alone, predict)
        own = correction.corrected(predict(alone), setup.micro_batch, found)
        return own if alone == setup else correction.moved(own, predict(alone), predict(setup))

    def points(
        self, key: str, setup: memory.Setup, predict: Callable[[memory.Setup], Prediction]
    ) -> list[correction.Point]:
        """What trials with these settings measured, beside what `predict` says."""
        trials = correction.relevant(self.model.trials, self.device, setup)
        return correction.points(trials, setup, key, predict, differ=self.model.differ)

    def tried(self, key: str) -> str:
        """Of a figure of the plan that a trial corrected: how; else nothing."""
        predict = {
            "tensor_peak_bytes": self._tensors,
            "reserved_peak_bytes": self._reserved,
            "device_peak_bytes": self._device_peak,
        }
        if key in ("step_seconds", "run_seconds"):
            return self.time.pace().said
        if key not in predict or not self.model.trials:
            return ""
        setup = self.planned()._replace(several=False)
        found = [] if setup.shard else self.points(key, setup, predict[key])
        return correction.said(predict[key](setup), setup.micro_batch, found)

    def parts(self, setup: memory.Setup) -> dict[str, float]:
        """What takes the tensor peak of a step, in bytes; the parts' sum is the whole."""
        model, state = self.model, self.state_bytes()
        if setup.shard:
            return self._divided_parts(setup)
        known = {
            "weights": float(model.parameter_bytes + model.buffer_bytes),
            "gradients": float(model.trainable_bytes),
            "optimizer": float(state),
        }
        if self.averages():
            known["averaged weights"] = float(self.average_bytes())
        if setup.several:
            known["gradients of all processes"] = float(model.trainable_bytes)
        rest = self.tensors(setup).expected - sum(known.values())
        return {**known, "activations and the batch": max(rest, 0.0)}

    def _divided_parts(self, setup: memory.Setup) -> dict[str, float]:
        known = divided.held(self.model, setup)
        if not self.averages():
            del known["averaged weights"]
        known["gradients"] = divided.gradients(self.model, setup)
        known["blocks put together"] = divided.gathered(self.model, setup)
        rest = self.tensors(setup).expected - sum(known.values())
        return {**known, "activations and the batch": max(rest, 0.0)}

    def sample_bytes(self) -> int:
        """Bytes of all samples, as tensors."""
        return self.model.sample_bytes * (self.train_count + self.valid_count)

    def kept_bytes(self) -> int:
        """Bytes of the samples that stay on the device (`keeping.on_device`)."""
        return keeping.on_device(self)

    def saved_bytes(self) -> int:
        """Tensors of a checkpoint: weights, buffers, the optimizer's states, an averaged model."""
        whole = self.model.parameter_bytes + self.model.buffer_bytes
        return whole * (1 + self.averages()) + self.state_bytes()

    def given_workers(self) -> int:
        """Loader workers that take of a CPU's budget whatever the batch: given, not decided."""
        return int(self.ledger.fixed("loader.workers") or 0) if self.device.kind == "cpu" else 0

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
        return cadence.stored_bytes(self.saved_bytes())

    # --- counts ---------------------------------------------------------------------------

    def pieces(self) -> tuple[lengths.Piece, ...]:
        """What buckets cut an epoch into; nothing where there are none."""
        known, parts = self.model.lengths, self.buckets()
        return lengths.pieces(known, parts, self.train_count) if known and parts else ()

    def steps_per_epoch(self) -> int:
        """Optimizer steps in one pass over the training samples; the last may be smaller.

        With buckets: by the target of items, none smaller than others, none without samples.
        """
        made, known = sum(piece.batches for piece in self.pieces()), self.model.lengths
        if made and known is not None:
            steps = round(self.train_count * known.mean / self.get("batch.target_items"))
            return min(max(steps, 1), made)
        return math.ceil(self.train_count / self.count("batch.global_batch"))

    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.count("train.epochs") * self.steps_per_epoch()

    @property
    def time(self) -> Timing:
        """What it takes in seconds."""
        return Timing(self)
