"""What a run came to, folded from its events; a run that was killed and resumed is one run."""

from __future__ import annotations

import io
import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TextIO

from autotrain.errors import AutotrainError
from autotrain.events import Evaluated, Event, Healed, Saved, Started, Step, Stopped, Warned
from autotrain.files import open_regular
from autotrain.report.points import FIGURES, Block, Points, bounded, finite, read, row_of
from autotrain.report.progress import epoch_of, monitored, window_of
from autotrain.schema import CUDA_LIKE, Plan

# No event's line is longer; what is, was not written by a run.
LINE_LENGTH = 1 << 20
PEAK, TIME = FIGURES.index("peak_bytes"), FIGURES.index("time")


@dataclass(frozen=True, slots=True)
class Best:
    """The best value of the monitored figure, and the step it was reached at."""

    metric: str
    value: float
    step: int


@dataclass(frozen=True)
class RunResult:
    """Log points and evaluations in the order of their steps, and what was measured.

    `started` is the last session, `begun` the first; `resumed` are the steps that further ones
    began at. `seconds` adds up all sessions. `stopped` is None for a run that was killed or still
    goes on. The tensor and reserved peaks are known on a GPU only, from its allocator; there, the
    device's is known where the driver told.
    """

    started: Started | None = None
    points: Points = field(default_factory=Points)
    evaluations: list[Evaluated] = field(default_factory=list)
    saves: list[Saved] = field(default_factory=list)
    healed: list[Healed] = field(default_factory=list)
    warned: list[Warned] = field(default_factory=list)
    begun: Started | None = None
    stopped: Stopped | None = None
    sessions: int = 0
    resumed: list[int] = field(default_factory=list)
    seconds: float = 0.0
    device_peak_bytes: int | None = None
    tensor_peak_bytes: int | None = None
    reserved_peak_bytes: int | None = None

    @cached_property
    def steps(self) -> int:
        """Optimizer steps that the final weights have seen."""
        ends = [*self.points.column("step")[-1:], *(e.step for e in self.evaluations[-1:])]
        return self.stopped.step if self.stopped else int(max(ends, default=0))

    @cached_property
    def full_steps(self) -> int:
        """Steps of all the planned epochs."""
        return self.started.epochs * self.started.steps_per_epoch if self.started else 0

    def epoch(self, step: int) -> int:
        """The epoch, from 1, of the `step`-th step."""
        return epoch_of(step, self.started.steps_per_epoch if self.started else 1)

    @cached_property
    def best(self) -> Best | None:
        """By the evaluations; without any, what the run itself said at its end."""
        monitor = self.started.monitor if self.started else "loss"
        marked = [e for e in self.evaluations if e.best]
        if marked:
            return Best(monitor, monitored(marked[-1], monitor), marked[-1].step)
        if self.stopped and self.stopped.best is not None:
            return Best(monitor, self.stopped.best, self.stopped.best_step or self.stopped.step)
        return None

    @cached_property
    def first_loss(self) -> float:
        """Mean training loss of the first epoch, by weight; NaN if there is none."""
        return self._epoch_loss(self.points.column("step")[:1])

    @cached_property
    def last_loss(self) -> float:
        """Mean training loss of the last epoch, by weight; NaN if there is none."""
        return self._epoch_loss(self.points.column("step")[-1:])

    def _epoch_loss(self, at: Sequence[float]) -> float:
        if not at:
            return math.nan
        per_epoch = self.started.steps_per_epoch if self.started else 1
        last = self.epoch(int(at[0])) * per_epoch
        columns = (self.points.between(x, last - per_epoch + 1, last) for x in ("loss", "weight"))
        pairs = zip(*columns, strict=True)
        held = [(loss * weight, weight) for loss, weight in pairs if math.isfinite(loss)]
        weight = sum(w for _, w in held)
        return sum(total for total, _ in held) / weight if weight > 0 else math.nan

    @cached_property
    def loss_change(self) -> float | None:
        """From the first to the last epoch, as a share of the first: -0.8 is 80 % down.

        None within one epoch, and where a mean is not finite.
        """
        steps = self.points.column("step")
        if not steps or self.epoch(int(steps[0])) == self.epoch(int(steps[-1])):
            return None
        if not math.isfinite(self.first_loss) or not math.isfinite(self.last_loss):
            return None
        return (
            (self.last_loss - self.first_loss) / abs(self.first_loss) if self.first_loss else None
        )

    @cached_property
    def step_seconds(self) -> float | None:
        """Median over the log points."""
        seconds = self.points.column("step_seconds")
        return statistics.median(seconds) if seconds else None

    @cached_property
    def samples_per_second(self) -> float | None:
        """All samples over the time of all steps; evaluations and saves are not counted."""
        seconds = self.points.total("step_seconds")
        return sum(self.points.column("samples")) / seconds if seconds > 0 else None

    @cached_property
    def wait_share(self) -> float | None:
        """The part of the steps' time that was spent waiting for data."""
        seconds, waited = map(self.points.total, ("step_seconds", "wait_seconds"))
        return min(waited / seconds, 1.0) if seconds > 0 else None

    @cached_property
    def sensed(self) -> dict[str, Any]:
        """Means over the steps, the highest temperature, and in which share of them the GPU was
        slowed down for which reason; None where nobody told.
        """
        heats = finite(self.points.column("gpu_celsius"))
        return {
            "gpu_utilisation": self.points.mean("gpu_utilisation"),
            "gpu_celsius_highest": max(heats, default=None),
            "gpu_watts": self.points.mean("gpu_watts"),
            "gpu_slowed": self.points.slowed_shares() if heats else None,
            "others_cpu": self.points.mean("others_cpu"),
        }

    @cached_property
    def checkpoint_bytes(self) -> int | None:
        """Size of the newest checkpoint."""
        return self.saves[-1].bytes if self.saves else None

    @cached_property
    def not_finite(self) -> int:
        """Log points whose loss is NaN or infinite."""
        losses = self.points.column("loss")
        return len(losses) - len(finite(losses))


def collect(source: Iterable[Event] | Path, plan: Plan) -> RunResult:
    """The result of a run of `plan` from its events, or from its `events.jsonl`.

    Where a resumed run took steps again, only the later ones count. Raises AutotrainError
    when the file cannot be read; lines that are torn are left out.
    """
    fold = _Fold(plan.run.log_every_steps)
    for event in _read(source) if isinstance(source, Path) else source:
        fold.see(event)
    found = fold.result()
    if plan.device.kind not in CUDA_LIKE:
        return found
    # There, the bytes of Step events are the caching allocator's, not the whole process's.
    ended = found.stopped
    return replace(
        found,
        device_peak_bytes=ended.device_peak_bytes if ended else None,
        reserved_peak_bytes=found.device_peak_bytes,
        tensor_peak_bytes=ended.tensor_peak_bytes if ended else None,
    )


def _read(path: Path) -> Iterator[Event | Block]:
    try:
        with open_regular(path) as raw, io.TextIOWrapper(raw, "utf-8", "replace") as file:
            yield from read(_lines(file))
    except OSError as error:
        raise AutotrainError(f"{path}: {error.strerror}", "name a run's own folder") from None


def _lines(file: TextIO) -> Iterator[str]:
    """Many at once; one that is longer than any of ours comes in parts."""
    rest = ""
    while piece := file.read(LINE_LENGTH):
        *lines, rest = (rest + piece).split("\n")
        yield from lines
        if len(rest) >= LINE_LENGTH:
            yield rest
            rest = ""
    yield rest


class _Fold:
    """Events in the order they were written -> steps in the order they were taken."""

    def __init__(self, log_every_steps: int) -> None:
        self.log_every_steps = log_every_steps
        self.found = RunResult()
        self.started: Started | None = None
        self.begun: Started | None = None
        self.stopped: Stopped | None = None
        self.sessions = 0
        self.seconds = 0.0
        self.peak = -math.inf
        self.now = 0.0

    def see(self, event: Event | Block) -> None:
        match event:
            case Step():
                self._point(event)
            case Started():
                self._session(event)
            case Evaluated():
                self._forget(self.found.evaluations, event.step - 1)
                metrics = {name: bounded(value) for name, value in event.metrics.items()}
                told = replace(event, loss=bounded(event.loss), metrics=metrics)
                self.found.evaluations.append(told)
            case Saved() if event.label != "mirrored":
                self.found.saves.append(event)
            case Healed():
                self.found.healed.append(event)
            case Warned():
                self.found.warned.append(event)
            case Stopped():
                self.stopped = event
                if event.peak_bytes is not None:
                    self.peak = max(self.peak, event.peak_bytes)
            case _ if not isinstance(event, Event):
                self._points(event)
                return
        self.now = max(self.now, event.time)

    def _session(self, event: Started) -> None:
        self._end_session()
        self.started, self.stopped, self.now = event, None, event.time
        self.begun = self.begun or event
        if self.sessions:
            self.found.resumed.append(event.step)
        self.sessions += 1
        self.found.points.forget(event.step)
        self._forget(self.found.evaluations, event.step)

    def _point(self, event: Step) -> None:
        window = window_of(event.step, self.log_every_steps)
        self.found.points.add(row_of(event), window)
        if event.gpu_slowed:
            self.found.points.slowed[event.step] = event.gpu_slowed
        self.peak = max(self.peak, event.peak_bytes)

    def _points(self, block: Block) -> None:
        """Many log points at once."""
        self.found.points.extend(block, self.log_every_steps)
        self.peak = max(self.peak, float(block[:, PEAK].max()))
        self.now = max(self.now, float(block[:, TIME].max()))

    @staticmethod
    def _forget(events: list[Evaluated], step: int) -> None:
        """Drop what lies after `step`: it was lost with a kill, and is done again."""
        while events and events[-1].step > step:
            events.pop()

    def _end_session(self) -> None:
        if self.started is not None:
            self.seconds += max(self.now - self.started.time, 0.0)

    def result(self) -> RunResult:
        self._end_session()
        return replace(
            self.found,
            started=self.started,
            begun=self.begun,
            stopped=self.stopped,
            sessions=self.sessions,
            seconds=self.seconds,
            device_peak_bytes=int(self.peak) if math.isfinite(self.peak) else None,
        )
