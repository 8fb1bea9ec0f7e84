"""Where a run stands, folded from its events: what both live views show."""

from __future__ import annotations

from autotrain.events import Evaluated, Event, Started, Step, Stopped
from autotrain.report.text import interval, number, percent, quantity, watched_memory
from autotrain.schema import Plan
from autotrain.units import bytes_text, count_text, seconds_text

# Less of the cores than this, in other programs, is what any desktop takes.
TOLD_SHARE = 0.1


def epoch_of(step: int, steps_per_epoch: int) -> int:
    """The epoch, counted from 1, that the `step`-th optimizer step belongs to."""
    return max(step - 1, 0) // max(steps_per_epoch, 1) + 1


def window_of(step: int, log_every_steps: int) -> int:
    """Steps that the log point at `step` is the mean of: those since the last planned one.

    That holds after a resume too, where the loop goes on counting from there.
    """
    return (step - 1) % log_every_steps + 1


class Progress:
    """`see` every event in order; the other methods say where the run is.

    `plan`: None where it is not known; then nothing is said of what was predicted. `max_steps`:
    where the run is to end, if before its last epoch.
    """

    def __init__(self, plan: Plan | None, max_steps: int | None = None) -> None:
        self.plan = plan
        self.max_steps = max_steps
        self.started: Started | None = None
        self.point: Step | None = None
        self.took: float | None = None
        self.step = 0
        self.now = 0.0
        self.rate = 0.0
        self.wait_share = 0.0

    def see(self, event: Event) -> None:
        """Take one event in."""
        if isinstance(event, Started):
            self.started = event
        elif isinstance(event, Step):
            self._measure(event)
            self.point = event
        self.took = event.seconds if isinstance(event, Stopped) else None
        self.step, self.now = event.step, event.time

    def _measure(self, point: Step) -> None:
        seconds = point.step_seconds * self._window(point)
        self.rate = point.samples / seconds if seconds > 0 else 0.0
        wait = point.wait_seconds / point.step_seconds if point.step_seconds > 0 else 0.0
        self.wait_share = min(wait, 1.0)

    def _window(self, point: Step) -> int:
        """The steps that a log point is the mean of."""
        if self.plan is not None:
            return window_of(point.step, self.plan.run.log_every_steps)
        before = self.point.step if self.point else self.started.step if self.started else 0
        return max(point.step - before, 1)

    @property
    def last(self) -> int:
        """The step that the run is to end at; 0 before it started."""
        total = self.started.total_steps if self.started else 0
        return total if self.max_steps is None else min(self.max_steps, total)

    @property
    def share(self) -> float:
        """Of the steps up to the last, how many are done: 0 to 1."""
        return min(self.step / self.last, 1.0) if self.last else 0.0

    def left_seconds(self) -> float | None:
        """By the pace of this session, evaluations and saves included; None before a step."""
        if self.started is None or self.step <= self.started.step:
            return None
        pace = (self.now - self.started.time) / (self.step - self.started.step)
        return max(pace, 0.0) * max(self.last - self.step, 0)

    def position(self) -> str:
        """`epoch 12/50  step 1,234/5,000`."""
        if self.started is None:
            return "starting"
        epoch = min(epoch_of(self.step, self.started.steps_per_epoch), self.started.epochs)
        return f"epoch {epoch}/{self.started.epochs}  step {self.step:,}/{self.last:,}"

    def figures(self) -> str:
        """Loss, learning rate, pace and the share of it spent waiting for data."""
        if self.point is None:
            return "waiting for the first step"
        rate = count_text(self.rate) if self.rate >= 1000 else f"{self.rate:.3g}"
        return (
            f"loss {number(self.point.loss)}  lr {self.point.lr:.3g}  {rate} samples/s  "
            f"data wait {percent(self.wait_share)}{sensed(self.point)}"
        )

    def memory(self) -> str:
        """Bytes now and at the peak, beside what the plan predicted."""
        predicted = interval("bytes", watched_memory(self.plan)) if self.plan else ""
        if self.point is None:
            return f"memory peak predicted {predicted}" if predicted else ""
        now, peak = bytes_text(self.point.device_bytes), bytes_text(self.point.peak_bytes)
        return f"memory {now}, peak {peak}" + (f" (predicted {predicted})" if predicted else "")

    def left(self) -> str:
        """Time left, beside what the plan predicted for the same steps; at the end, time taken."""
        if self.took is not None:
            return f"took {seconds_text(self.took)}"
        predicted, measured = self._predicted_left(), self.left_seconds()
        if measured is None:
            return f"{predicted} left as predicted" if predicted else ""
        said = f" (predicted {predicted})" if predicted else ""
        return f"{seconds_text(measured)} left{said}"

    def _predicted_left(self) -> str:
        """What the plan said that the steps to come would take; empty where there is none."""
        if self.plan is None:
            return ""
        steps = self.started.total_steps if self.started else 0
        part = max(self.last - self.step, 0) / steps if steps else 1.0
        return seconds_text(self.plan.predicted.run_seconds.expected * part)

    def above(self) -> bool:
        """Whether memory is above what the plan thought possible."""
        if self.point is None or self.plan is None:
            return False
        return self.point.peak_bytes > watched_memory(self.plan).high


def sensed(point: Step) -> str:
    """What the GPU does, or what other programs take of the cores; nothing where nobody tells."""
    gpu = [percent(point.gpu_utilisation)] if point.gpu_utilisation is not None else []
    gpu += [f"{point.gpu_celsius:.0f} C"] if point.gpu_celsius is not None else []
    if gpu:
        return f"  gpu {' '.join(gpu)}"
    taken = point.others_cpu
    return f"  others {percent(taken)} cpu" if taken is not None and taken >= TOLD_SHARE else ""


def monitored(event: Evaluated, monitor: str) -> float:
    """The figure that decides what is best: `loss`, or one of the task's own measures."""
    return float(event.metrics.get(monitor, event.loss))


def evaluation(event: Evaluated) -> str:
    """`validation loss 0.14, wer 0.12: best so far`."""
    others = {k: v for k, v in event.metrics.items() if k != "loss"}
    shown = [f"validation loss {number(event.loss)}"]
    shown += [f"{name} {number(float(value))}" for name, value in others.items()]
    verdict = "best so far" if event.best else f"no better for {event.bad_evaluations}"
    took = f" ({quantity('seconds', event.seconds)})" if event.seconds >= 1 else ""
    return f"{', '.join(shown)}: {verdict}{took}"
