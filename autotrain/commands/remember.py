"""What a run measured, kept for the next plan: folded from its events, judged, stored."""

from __future__ import annotations

import statistics
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import psutil

from autotrain.commands.present import Present
from autotrain.events import Evaluated, Event, Saved, Started, Step, Stopped
from autotrain.plan import batch
from autotrain.plan.planner import machine_digest
from autotrain.schema import CUDA_LIKE, HardwareProfile, Plan, Trial

# Times count from so many steps on after the first log point, and where other programs took
# less than this share of the cores.
LEAST_STEPS, MOST_OTHERS = 10, 0.2
# Log points and the like that are held on to: the last ones.
_HELD = 4096
_WHOLE = ("finished", "early_stop", "max_steps", "interrupted", "terminated")


@dataclass
class Cores:
    """Seconds that the cores this process may use were busy, and of these its own."""

    wall: float
    count: int
    busy: float
    own: float

    @classmethod
    def now(cls) -> Cores:
        """Takes about 1 ms; loader workers that still live count as ours."""
        process, each = psutil.Process(), psutil.cpu_times(percpu=True)
        with_affinity = hasattr(process, "cpu_affinity")
        chosen = process.cpu_affinity() if with_affinity else [*range(len(each))]
        times = [each[core] for core in chosen if core < len(each)]
        idle = ("idle", "iowait", "guest", "guest_nice")
        busy = sum(v for t in times for k, v in t._asdict().items() if k not in idle)
        own = process.cpu_times()
        ours = own.user + own.system + own.children_user + own.children_system
        for child in process.children(recursive=True):
            try:
                spent = child.cpu_times()
            except psutil.Error:
                continue
            ours += spent.user + spent.system
        return cls(time.monotonic(), max(len(times), 1), busy, ours)

    def others(self, later: Cores) -> float:
        """The share of the cores that other programs took from this moment to a later one."""
        room = (later.wall - self.wall) * self.count
        taken = (later.busy - self.busy) - (later.own - self.own)
        return min(max(taken / room, 0.0), 1.0) if room > 0 else 0.0


@dataclass
class Watch:
    """One session of a run, as `see` was shown it. `base_bytes`: the process before its model."""

    plan: Plan
    base_bytes: int = 0
    started: Started | None = None
    stopped: Stopped | None = None
    first: Step | None = None
    peak: int = 0
    points: deque[Step] = field(default_factory=lambda: deque(maxlen=_HELD))
    evaluations: deque[float] = field(default_factory=lambda: deque(maxlen=_HELD))
    saves: deque[float] = field(default_factory=lambda: deque(maxlen=_HELD))
    saved: set[int] = field(default_factory=set)
    begun: Cores | None = None
    others: float = 0.0

    def see(self, event: Event) -> None:
        """Take one event in."""
        match event:
            case Started():
                self.started, self.begun = event, Cores.now()
            case Step():
                self.first = self.first or event
                self.points.append(event)
                self.peak = max(self.peak, event.peak_bytes)
            case Evaluated():
                self.evaluations.append(event.seconds)
            case Saved() if event.step not in self.saved:
                # On a CPU a save in the background still takes cores from the training.
                on_cpu = self.plan.device.kind == "cpu"
                self.saves.append(event.seconds if on_cpu else event.held_seconds)
                self.saved.add(event.step)
            case Stopped():
                self.stopped = event
                self.peak = max(self.peak, event.peak_bytes or 0)
                self.others = self.begun.others(Cores.now()) if self.begun else 0.0

    @property
    def settled(self) -> list[Step]:
        """All log points but the first, whose steps warm kernels and caches up."""
        return [point for point in self.points if point is not self.first]

    def steps_of(self, point: Step) -> int:
        """How many steps a log point is the mean of."""
        return (point.step - 1) % self.plan.run.log_every_steps + 1

    def settled_steps(self) -> int:
        """How many steps the settled log points tell of."""
        return sum(map(self.steps_of, self.settled))


def passed_over(watch: Watch) -> str:
    """Why the times of this session say nothing about the next; empty where they do."""
    if watch.settled_steps() < LEAST_STEPS:
        return f"{watch.settled_steps()} steps after the first log point are too few"
    if watch.others > MOST_OTHERS:
        return f"other programs took {watch.others:.0%} of the cores"
    return ""


def times(watch: Watch) -> dict[str, float]:
    """Seconds of a step, of loading, of an evaluation, of a save, of the beginning; what is known.

    The median over log points; with buckets, whose steps differ, the mean.
    """
    points, plan, started = watch.settled, watch.plan, watch.started
    assert started is not None
    middle = statistics.fmean if plan.batch.buckets else statistics.median
    whole = middle([point.step_seconds for point in points])
    waits = middle([point.wait_seconds for point in points])
    samples = sum(p.samples for p in points) / watch.settled_steps()
    found = {
        "step_seconds": max(whole - waits, 1e-6),
        "micro_batches": _micro_batches(watch),
    }
    if plan.loader.workers == 0 and plan.loader.keep is None and samples:
        found["sample_seconds"] = waits / samples
    if watch.evaluations and started.valid_count:
        found["evaluation_seconds"] = statistics.median(watch.evaluations) / started.valid_count
    if watch.saves:
        found["save_seconds"] = statistics.median(watch.saves)
    if watch.first is not None and watch.first.step == started.step + watch.steps_of(watch.first):
        passed = watch.first.time - started.time
        found["start_seconds"] = max(passed - watch.steps_of(watch.first) * whole, 0.0)
    return found


def _micro_batches(watch: Watch) -> float:
    """Of a step, on average."""
    plan = watch.plan
    total, samples = plan.batch.global_batch, plan.inputs.train_samples
    if not plan.batch.buckets:
        return batch.filled(plan.batch.accum_steps, total, samples or total)
    mean = statistics.fmean(size for _, size in plan.batch.buckets)
    return max(total / mean, 1.0)


def peaks(watch: Watch, *, by_length: bool) -> dict[str, int]:
    """Bytes that say what the largest step takes; nothing where this run need not have met it.

    Samples of different lengths make one batch larger than another: what matters is the largest
    possible one, which a trial takes and a run may never meet. Before an epoch is over nobody
    knows whether samples differ. Loader workers' memory is not the step's, nor are samples that
    stay on a GPU, nor a copy that is being saved.
    """
    plan, stopped, started = watch.plan, watch.stopped, watch.started
    assert stopped is not None
    assert started is not None
    if plan.loader.keep == "device" and plan.device.kind != "cpu":
        return {}
    if by_length or stopped.step - started.step < started.steps_per_epoch or not watch.peak:
        return {}
    if plan.device.kind in CUDA_LIKE:
        tensors = stopped.tensor_peak_bytes
        found = {"reserved_peak_bytes": watch.peak}
        return found | ({"tensor_peak_bytes": tensors} if tensors is not None else {})
    if plan.device.kind == "cpu" and (plan.loader.workers or plan.checkpoint.background):
        return {}
    base = watch.base_bytes if plan.device.kind == "cpu" else 0
    return {"device_peak_bytes": watch.peak, "base_bytes": base}


def trial_of(watch: Watch, *, by_length: bool) -> Trial | None:
    """The session in the words of a trial; None where it says nothing about the next."""
    from autotrain.probe.child import setup_of

    stopped = watch.stopped
    if watch.started is None or stopped is None or stopped.reason not in _WHOLE:
        return None
    found: dict[str, Any] = dict(peaks(watch, by_length=by_length))
    if not passed_over(watch):
        found |= times(watch)
    if not found:
        return None
    steps = stopped.step - watch.started.step
    setup = setup_of(watch.plan)
    return Trial.model_validate(setup | found | {"outcome": "ok", "steps": steps, "of_run": True})


def loaded_bytes() -> int:
    """Resident bytes before the model is built, with all loaded that a run loads."""
    import importlib

    from autotrain.commands.trying import RUN_IMPORTS

    for name in RUN_IMPORTS:
        importlib.import_module(name)
    return int(psutil.Process().memory_info().rss)


def keep(watch: Watch, here: Present | None, *, by_length: bool) -> None:
    """Store this session for the next plan; nothing here can harm the run.

    Of other data than the plan's nothing is kept: the plan does not say which.
    """
    try:
        if here is not None and all(change.what != "data" for change in here.changes):
            _keep(watch, here.sha256, here.hardware, by_length=by_length)
    except Exception as error:
        print(f"warning: the run's figures are not kept: {error}", file=sys.stderr)


def _keep(watch: Watch, sha256: str, hardware: HardwareProfile, *, by_length: bool) -> None:
    from autotrain.probe import history, trials

    trial, plan, stopped = trial_of(watch, by_length=by_length), watch.plan, watch.stopped
    if trial is None or stopped is None:
        return
    task = plan.task.model_copy(update={"sha256": sha256})
    record = history.RunRecord(
        key=trials.key(plan.inputs.model, plan.inputs.dataset, task),
        model=plan.run.name,
        ended=stopped.time,
        steps=trial.steps,
        trial=trial,
        predicted=_predicted(plan),
        measured=_measured(watch, trial),
        passed_over=passed_over(watch),
    )
    fault = history.keep(machine_digest(hardware), record)
    if fault:
        print(f"warning: {fault}", file=sys.stderr)


def _predicted(plan: Plan) -> dict[str, float]:
    names = type(plan.predicted).model_fields
    return {name: getattr(plan.predicted, name).expected for name in names}


def _measured(watch: Watch, trial: Trial) -> dict[str, float]:
    """What a person would compare, whether it counts or not."""
    names = (
        "tensor_peak_bytes", "reserved_peak_bytes", "device_peak_bytes",
        "evaluation_seconds", "save_seconds", "start_seconds",
    )  # fmt: skip
    found = {
        name: float(getattr(trial, name)) for name in names if getattr(trial, name) is not None
    }
    if watch.settled:
        found["step_seconds"] = statistics.median(point.step_seconds for point in watch.settled)
    if watch.started is not None and watch.stopped is not None:
        found["run_seconds"] = watch.stopped.time - watch.started.time
    return found
