"""One model on one device under the settings in force: what it takes in seconds."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from autotrain.plan import (
    cadence,
    compute,
    correction,
    kernels,
    lengths,
    memory,
    orders,
    overlap,
    ram,
    runs,
)
from autotrain.plan.batch import filled
from autotrain.schema import Device, Prediction

if TYPE_CHECKING:
    from autotrain.plan.sizing import Sizing


class Timing(NamedTuple):
    """Predictions at the settings in force."""

    sizing: Sizing

    def micro_seconds(self) -> float:
        """Expected seconds of one micro-batch's forward and backward; the mean over an epoch's."""
        sizing = self.sizing
        sizes = sizing.count("batch.micro_batch"), sizing.count("batch.global_batch")
        alike = orders.trained(sizing.model.lengths, sizing.train_count, *sizes)
        return self._mean_seconds(compute.micro_batch_seconds, alike)

    def forward_seconds(self) -> float:
        """Expected seconds of one micro-batch without gradients; the mean over an evaluation's."""
        sizing = self.sizing
        model, micro = sizing.model, sizing.count("batch.micro_batch")
        drawn = orders.evaluated(
            model.lengths, sizing.valid_count, micro, in_order=model.valid_sorted
        )
        return self._mean_seconds(compute.forward_seconds, drawn)

    def _mean_seconds(
        self, each_seconds: compute.Seconds, alike: tuple[lengths.Piece, ...]
    ) -> float:
        sizing = self.sizing
        micro, accum = sizing.count("batch.micro_batch"), sizing.count("batch.accum_steps")
        whole, of_runs = lengths.Piece(1, micro, 0.0), self.pace().of_runs
        # What whole runs took was of usual micro-batches already, and kernels made anew are in it.
        made = sizing.pieces() or ((whole,) if of_runs else alike)
        making = 0.0 if of_runs else self._making()
        return self.pace().micro * self._mean(made, accum, each_seconds) + making

    def _mean(
        self, made: tuple[lengths.Piece, ...], accum: int, each_seconds: compute.Seconds
    ) -> float:
        """Expected seconds of one of these micro-batches by what is computed in it."""
        setups = [self.sizing.setup(piece.micro_batch, accum, piece.length) for piece in made]
        each = (self._seconds(setup, each_seconds) for setup in setups)
        total = sum(piece.batches * seconds for piece, seconds in zip(made, each, strict=True))
        return total / sum(piece.batches for piece in made)

    def _making(self) -> float:
        """Seconds for kernels that are made anew, of a micro-batch; steps of one size make none."""
        sizing = self.sizing
        if sizing.device.kind != "cpu":
            return 0.0
        kept, dtype = kernels.in_force(sizing.ledger), sizing.ledger.value("precision.dtype")
        return kernels.making_seconds(sizing.model, dtype, kept, len(sizing.buckets()))

    def micro_batches(self) -> float:
        """Micro-batches of a step, as far as samples go: on average, where buckets decide."""
        sizing = self.sizing
        made = sum(piece.batches for piece in sizing.pieces())
        if made:
            return made / sizing.steps_per_epoch()
        cut = sizing.count("batch.accum_steps"), sizing.count("batch.global_batch")
        return filled(*cut, sizing.train_count)

    def micro_samples(self) -> float:
        """Samples of one micro-batch: on average, where buckets decide."""
        made = sum(piece.batches for piece in self.sizing.pieces())
        return self.sizing.train_count / made if made else self.sizing.count("batch.micro_batch")

    def loading_seconds(self) -> float:
        """Expected seconds to load one micro-batch, in one process."""
        seen, samples = self.pace().sample_seconds, self.micro_samples()
        known = overlap.loading_seconds(self.sizing.model.sample_seconds, samples)
        return known if seen is None else samples * seen

    def loading(self) -> overlap.Loading:
        """Expected seconds to load one micro-batch, and of them those in which no core computes.

        Runs in which it took far longer than while planning waited for a disk or a network.
        """
        model, seconds = self.sizing.model, self.loading_seconds()
        each = model.sample_seconds - model.waiting_seconds
        most = overlap.BUSY_MACHINE if self.pace().sample_seconds else 1.0
        computing = most * overlap.loading_seconds(each, self.micro_samples())
        return overlap.Loading(seconds, max(seconds - computing, 0.0))

    def workers(self) -> int:
        """Loader workers; none while that is undecided."""
        return int(self.sizing.ledger.values.get("loader", {}).get("workers", 0))

    def keeps(self) -> str | None:
        """Where samples stay once they were read: `device`, or `ram` if they are known to be the
        same at each reading; None while that is undecided."""
        where: str | None = self.sizing.ledger.values.get("loader", {}).get("keep")
        return where if where == "device" or self.sizing.model.steady else None

    def fed_seconds(self, model_seconds: float) -> float:
        """One micro-batch with its loading, if there is any after the first epoch."""
        if self.keeps() == "device":
            return model_seconds
        if self.pace().of_runs:  # they had it in them that workers share the cores
            loading, cores = self.loading_again(), self.cores()
            return overlap.fed_seconds(model_seconds, loading, self.workers(), cores=cores)
        return self._fed(model_seconds, self.loading_again())(self.workers())

    def loading_again(self) -> overlap.Loading:
        """As `loading`, after the first epoch: copies alone, where samples stay in memory."""
        if self.keeps() is None:
            return self.loading()
        return overlap.Loading(overlap.loading_seconds(overlap.COPY_SECONDS, self.micro_samples()))

    def with_workers(self, model_seconds: float) -> Callable[[int], float]:
        """One micro-batch and its loading by how many processes load; on a CPU they share cores."""
        return self._fed(model_seconds, self.loading())

    def _fed(self, model_seconds: float, loading: overlap.Loading) -> Callable[[int], float]:
        cores, threads = self.cores(), self.beside()
        return partial(overlap.fed_seconds, model_seconds, loading, cores=cores, threads=threads)

    def most_workers(self) -> int:
        """Loader workers that the cores serve."""
        return overlap.most_workers(self.loading(), self.cores(), self.beside())

    def beside(self) -> int:
        """Threads of the model that compute on the loader's cores."""
        return self._at_once() if self.sizing.device.kind == "cpu" else 0

    def cores(self) -> int:
        """Those that each of the run's processes on this machine may use."""
        return max(self.sizing.hardware.cpu.cores // ram.local(self.sizing), 1)

    def _at_once(self) -> int:
        """Threads that compute at the same time: of more than cores some wait."""
        return min(self.sizing.threads(), self.cores())

    def step_seconds(self) -> Prediction:
        """One optimizer step: its micro-batches, their loading, and the update."""
        return self._step_seconds(1.0)

    def mean_step_seconds(self) -> Prediction:
        """As `step_seconds`, of an epoch's on average: its last may hold fewer samples."""
        sizing = self.sizing
        whole = sizing.train_count / sizing.count("batch.global_batch")
        part = 1.0 if sizing.pieces() or whole < 1 else whole / sizing.steps_per_epoch()
        return self._step_seconds(part)

    def _step_seconds(self, part: float) -> Prediction:
        """Of a step that holds such a part of its samples."""
        micro = self.fed_seconds(self.micro_seconds())
        computed = part * self.micro_batches() * micro
        return self._interval(computed + self.update_seconds() + compute.LOOP_SECONDS)

    def update_seconds(self) -> float:
        """Expected seconds of clipping, the optimizer, and following its steps in averages."""
        return self.pace().update * self._update_seconds()

    def _update_seconds(self) -> float:
        kept = self.sizing.state_bytes() + self.sizing.average_bytes()
        return compute.optimizer_seconds(self.sizing.model, self._device(), kept)

    def pace(self) -> correction.Pace:
        """How true the predicted seconds proved in a trial, or in runs, on as many threads."""
        setup = self.sizing.setup(
            self.sizing.count("batch.micro_batch"), self.sizing.count("batch.accum_steps")
        )
        device, threads = self.sizing.device, self.sizing.threads()
        trials = correction.relevant(self.sizing.model.trials, device, setup)
        if device.kind == "cpu":
            trials = [trial for trial in trials if trial.threads == threads]
        update = self._update_seconds()
        return runs.pace(trials, setup, self._micro_seconds, update, self._making())

    def _micro_seconds(self, setup: memory.Setup) -> float:
        return self._seconds(setup, compute.micro_batch_seconds)

    def _seconds(self, setup: memory.Setup, seconds: compute.Seconds) -> float:
        """At any length: memory lies on straight lines, which are never below the truth, and time
        on curves, which are near it.

        Once for each of what it depends on: feeding a model is decided by trying ways to.
        """
        sizing, micro, dtype = self.sizing, setup.micro_batch, setup.dtype
        key = seconds, setup.length, micro, dtype, sizing.threads(), ram.local(sizing)
        if key not in sizing.took:
            known = lengths.traced_lengths(sizing.model, dtype)
            if len(known) < 2 or not 0 < setup.length < known[-1] or setup.length in known:
                sizing.took[key] = self._at_traced(setup, seconds)
            else:
                seen = {each: self._seconds(setup._replace(length=each), seconds) for each in known}
                done = {n: compute.amount(sizing.at_length(n), micro, dtype) for n in known}
                sizing.took[key] = lengths.along(seen, done, setup.length)
        return sizing.took[key]

    def _at_traced(self, setup: memory.Setup, seconds: compute.Seconds) -> float:
        model, threads = self.sizing.at_length(setup.length), self.sizing.threads()
        if not compute.replays(model, setup.dtype, threads):
            threads = self._at_once()
        return seconds(model, self._device(), setup.micro_batch, setup.dtype, threads)

    def _device(self) -> Device:
        """As it is to the threads that each process has."""
        cores, world = self.sizing.hardware.cpu.cores, ram.local(self.sizing)
        return compute.on_threads(self.sizing.device, self._at_once(), cores, world)

    def evaluation_seconds(self) -> Prediction:
        """One pass over the validation samples."""
        sizing, seen = self.sizing, self.pace().evaluation_seconds
        if seen is not None:
            return compute.interval(sizing.valid_count * seen, sizing.device, self.pace().spread)
        size = self.micro_samples()
        passes = math.ceil(sizing.valid_count / size)
        share = sizing.valid_count / (passes * size) if passes else 0.0
        each = self.fed_seconds(self.forward_seconds())
        seconds = passes * (share * each + compute.LOOP_SECONDS)
        return self._interval(seconds)

    def _interval(self, seconds: float) -> Prediction:
        spread = self.pace().spread
        if spread is None and self.replayed():
            spread = compute.REPLAYED_SPREAD
        if spread is None and self.derived():
            spread = compute.SPREAD["assumed"]
        return compute.interval(seconds, self.sizing.device, spread)

    def replayed(self) -> bool:
        """Whether a step of the model, as it is to be run, was played again on the device."""
        sizing = self.sizing
        dtype = sizing.ledger.value("precision.dtype")
        return bool(compute.replays(sizing.model, dtype, sizing.threads()))

    def derived(self) -> bool:
        """Whether they rest on a rate that the machine's file does not give."""
        sizing = self.sizing
        return compute.derived(sizing.model, sizing.device, sizing.ledger.value("precision.dtype"))

    def save_seconds(self) -> float:
        """Writing one checkpoint."""
        seen, sizing = self.pace().save_seconds, self.sizing
        size, rate = sizing.checkpoint_bytes().expected, sizing.hardware.disk.write_bandwidth
        return cadence.save_seconds(size, rate) if seen is None else seen

    def occasions(self, section: str) -> int:
        """How often a whole run evaluates (`evaluate`) or saves regularly (`checkpoint`)."""
        chosen = self.sizing.ledger.values[section]
        return cadence.occasions(
            self.sizing.count("train.epochs"),
            self.sizing.steps_per_epoch(),
            chosen["every_epochs"],
            chosen["every_steps"],
        )

    def start_seconds(self) -> Prediction:
        """Until the first step, and what the first steps take longer."""
        start = runs.start_seconds(self.pace(), self.sizing.device)
        return start.plus(self.reading_seconds()) if self.keeps() else start

    def reading_seconds(self) -> float:
        """Each sample once, where it is kept from then on."""
        count = self.sizing.train_count + self.sizing.valid_count
        each = self.loading_seconds() / self.micro_samples()
        return count * each / max(min(self.workers(), self.cores()), 1)

    def run_seconds(self) -> Prediction:
        """The whole run if nothing stops it early: start, steps, evaluations, saves."""
        return cadence.run_seconds(
            self.start_seconds(),
            self.sizing.total_steps(),
            self.mean_step_seconds(),
            self.occasions("evaluate"),
            self.evaluation_seconds(),
            self.occasions("checkpoint"),
            self.save_seconds(),
        )
