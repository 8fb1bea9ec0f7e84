"""The devices that are here, each with a plan of its own, and what is measured on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from autotrain.bench.cpu_vs_gpu import HERE, Point, Row, rate, settings_of
from autotrain.bench.rounds import Contender, Tally, Way, step_seconds
from autotrain.bench.spread import Spread, spread
from autotrain.commands import racing
from autotrain.commands.bench.asked import Asked, at_size
from autotrain.commands.compare import mildest
from autotrain.commands.decide import Case, Decision
from autotrain.commands.trying import RUN_IMPORTS, wished
from autotrain.errors import AutotrainError, DoesNotFitError
from autotrain.plan import compute
from autotrain.plan.choices import choose_device
from autotrain.probe.child import Request, setup_of
from autotrain.probe.turns import Took
from autotrain.schema import Device, Goal, HardwareProfile, Plan, Prediction, Trial, Variant

# A curve goes to so many times the planned micro_batch, AT_LEAST to so many samples, and has no
# more than MOST_SIZES sizes; a round of them takes no more than its share of all the time.
TIMES, AT_LEAST, MOST_SIZES, ROUND_SHARE = 4, 64, 8, 1 / 12
# Where others load, they decide from here on; else what they take adds up.
FULL = 0.95


class Planned(NamedTuple):
    """A device that is here with the task planned for it; `why` not, where it is not.

    `ways`: what is measured on it, `main` as planned.
    """

    device: Device
    case: Case | None = None
    made: Decision | None = None
    why: str = ""
    remedy: str = ""
    ways: tuple[Way, ...] = ()

    @property
    def plan(self) -> Plan:
        """Its plan, where there is one."""
        assert self.made is not None
        return self.made.plan

    @property
    def goal(self) -> Goal:
        """What was wished there."""
        assert self.case is not None
        return self.case.goal

    @property
    def main(self) -> Way:
        """As planned; two micro-batches stand for any number that accumulate."""
        cut = self.plan.batch
        return Way(variant_of(self.plan), cut.micro_batch, min(cut.accum_steps, 2))

    @property
    def name(self) -> str:
        """Of its tally."""
        return f"{self.device.kind}:{self.device.index}"


def planned(asked: Asked, hardware: HardwareProfile) -> list[Planned]:
    """Every device of this machine, of equal ones the first.

    Raises AutotrainError for what is wrong with the task.
    """
    found: list[Planned] = []
    case: Case | None = None
    for device in hardware.devices:
        if any((p.device.kind, p.device.name) == (device.kind, device.name) for p in found):
            continue
        goal = _goal_for(asked, device)
        if case is None:
            case = Case.open(asked.source, hardware, goal)
        else:
            case = replace(case, goal=goal).on(hardware)
        try:
            found.append(_on(asked, device, case))
        except DoesNotFitError as error:
            found.append(Planned(device, why=error.message, remedy=mildest(error.hint)))
    return found


def chosen(asked: Asked, hardware: HardwareProfile) -> Planned:
    """The device that a plan is for, or the one that it would choose. Raises AutotrainError."""
    plan = asked.plan
    if plan is not None:
        own = {"device.kind": plan.device.kind, "device.index": plan.device.index}
        goal = asked.goal.model_copy(update={"user": own | asked.goal.user})
        device = choose_device(hardware, goal)
    else:
        device = choose_device(hardware, asked.goal)
    case = Case.open(asked.source, hardware, _goal_for(asked, device))
    return _on(asked, device, case)


def _on(asked: Asked, device: Device, case: Case) -> Planned:
    """By a race, as `plan` would, where a plan does not say already how the model runs there."""
    made = case.decide()
    if made.plan.batch.world_size > 1:
        raise AutotrainError(
            f"a bench trains in one process, and this is for {made.plan.batch.world_size}",
            "--set batch.world_size=1",
        )
    if not _is_for(asked.plan, device) and wished(None) is not False:
        case = racing.raced(case, made, forced=False)
        made = case.decide()
    return Planned(device, case, made)


def _is_for(plan: Plan | None, device: Device) -> bool:
    return plan is not None and (plan.device.kind, plan.device.index) == (device.kind, device.index)


def _goal_for(asked: Asked, device: Device) -> Goal:
    """What was wished, on that device. A plan's own batch goes for all of them."""
    here = {"device.kind": device.kind, "device.index": device.index}
    if asked.plan is None:
        return asked.goal.model_copy(update={"user": asked.goal.user | here})
    user, plan = same_batch(asked), asked.plan
    mine: dict[str, Any] = {}
    if _is_for(plan, device):
        mine = {
            "device.threads": plan.device.threads,
            "precision.dtype": plan.precision.dtype,
            "model.memory_format": plan.model.memory_format,
        }
        cut = plan.batch
        if cut.buckets is None and not any(key.startswith("batch.") for key in asked.said):
            mine |= {"batch.micro_batch": cut.micro_batch, "batch.accum_steps": cut.accum_steps}
    return asked.goal.model_copy(update={"user": {**mine, **user, **here}})


def same_batch(asked: Asked) -> dict[str, Any]:
    """What was wished for any device: of a plan the same global batch, so the same training."""
    user = {k: v for k, v in asked.goal.user.items() if not k.startswith("device.")}
    if asked.plan is None or any(key.startswith("batch.") for key in asked.said):
        return user
    return {"batch.global_batch": asked.plan.batch.global_batch} | user


def variant_of(plan: Plan) -> Variant:
    """How it runs the model."""
    return Variant(plan.precision.dtype, plan.model.memory_format, plan.device.threads)


def sizes(able: Sequence[Planned], seconds: float) -> list[int]:
    """Micro-batches for the curves of all devices: powers of two, as large as time allows."""
    if not able:
        return []
    slow = max(able, key=_sample_seconds)
    most = max(here.plan.batch.micro_batch for here in able)
    # Together they take about twice as long as the largest.
    room = int(seconds * ROUND_SHARE / 2 / _sample_seconds(slow))
    assert slow.made is not None
    top = min(max(TIMES * most, AT_LEAST), slow.made.model.train_count, max(room, most))
    found = [1 << power for power in range(top.bit_length())]
    while len(found) > MOST_SIZES:
        found = found[::-2][::-1]
    return found


def _sample_seconds(here: Planned) -> float:
    return here.plan.predicted.step_seconds.expected / here.plan.batch.global_batch


def with_ways(here: Planned, every: Sequence[int]) -> Planned:
    """With the sizes that fit there, and the way that is planned, from small to large."""
    if here.made is None or here.case is None:
        return here
    variant, micro = variant_of(here.plan), here.plan.batch.micro_batch
    fitting = [size for size in every if size <= micro or at_size(here.case, here.goal, size)]
    ways = {here.main, *(Way(variant, size) for size in {micro, *fitting})}
    return here._replace(ways=tuple(sorted(ways, key=lambda w: (w.micro_batch * w.parts, w.parts))))


def contender(here: Planned) -> Contender:
    """What is to be measured there."""
    assert here.case is not None
    source = here.case.source
    request = Request(
        plan=here.plan, task_file=str(source.task_file), data=source.data, imports=RUN_IMPORTS
    )
    most = here.device.free_bytes if here.device.kind == "cpu" else None
    return Contender(here.name, request, here.ways, here.main, most)


def row(here: Planned, tally: Tally, others: float | None) -> Row:
    """What was measured on a device, while other programs took that share of the cores."""
    about: dict[str, Any] = {
        "machine": HERE, "device": here.device.name, "kind": here.device.kind,
        "source": "measured",
    }  # fmt: skip
    if here.made is None or here.case is None:
        return Row(**about, outcome="does_not_fit", why=here.why, remedy=here.remedy)
    about |= {**settings_of(here.plan), "curve": _curve(here, tally, others)}
    plan, accum = here.plan, here.plan.batch.accum_steps
    taken = tally.taken(here.main, lambda t: step_seconds(t, here.main, plan, accum))
    if not taken:
        return Row(**about | _nothing(here, tally))
    found, trial = spread(taken).beside(others), _trial(here, tally)
    known = here.case.decide((trial,), _loading_alike(here)).plan.predicted
    step = Prediction.around(*found.of(known.step_seconds.expected))
    memory = float(_memory(tally.peaks[here.main]))
    return Row(
        **about,
        step_seconds=step,
        samples_per_second=rate(plan.batch.global_batch, step),
        memory_bytes=Prediction.around(memory, memory, memory),
        run_seconds=_widened(known.run_seconds, found),
        loading=loading(
            (trial.sample_seconds or 0.0) * plan.batch.micro_batch, plan, step.expected
        ),
        rounds=found.rounds,
        processes=found.processes,
    )


def _loading_alike(here: Planned) -> Goal:
    """What was wished, and the loader as it is planned: what was measured is not to change it."""
    loader, goal = here.plan.loader, here.goal
    same = {"loader.workers": loader.workers, "loader.keep": loader.keep}
    return goal.model_copy(update={"user": goal.user | same})


def _widened(run: Prediction, found: Spread) -> Prediction:
    """A run's interval where its step is not known for sure either."""
    low, high = found.low / found.middle, found.high / found.middle
    return Prediction.around(low * run.low, run.expected, high * run.high)


def _nothing(here: Planned, tally: Tally) -> dict[str, Any]:
    """Why there is no figure of the planned way, and what did run."""
    took = tally.lost.get(here.main)
    if took is None:
        return {"outcome": "stopped", "why": "stopped before it was measured as planned"}
    ran = [way for way in here.ways if any(tally.rounds.get(way, []))]
    smaller = [way.micro_batch for way in ran if way not in tally.lost]
    micro = here.plan.batch.micro_batch
    if took.outcome == "out_of_memory":
        remedy = f"batch.micro_batch={max(smaller)} ran" if smaller else "a smaller model"
        why = f"memory ran out at micro_batch {micro}: {took.message}"
        return {"outcome": took.outcome, "why": why, "remedy": remedy}
    return {"outcome": took.outcome, "why": took.message, "remedy": took.hint}


def _curve(here: Planned, tally: Tally, others: float | None) -> tuple[Point, ...]:
    points = []
    for way in here.ways:
        seconds = partial(step_seconds, way=way, plan=here.plan, parts=1)
        taken = tally.taken(way, seconds) if way.parts == 1 else []
        if taken:
            found = spread(taken).beside(others)
            each = Prediction.around(found.low, found.middle, found.high)
            speed = rate(way.micro_batch, each)
            points.append(Point(micro_batch=way.micro_batch, samples_per_second=speed))
    return tuple(points)


def _trial(here: Planned, tally: Tally) -> Trial:
    """What was measured, told as a run's: the plan's own arithmetic takes it from there.

    With buckets: of the longest micro-batch alone, by which the others are scaled.
    """
    cut, main = here.plan.batch, here.main
    parts = 1 if cut.buckets else cut.accum_steps
    load = tally.taken(main, lambda t: t.load / main.micro_batch)
    model = tally.taken(main, lambda t: parts * t.micro + t.update + compute.LOOP_SECONDS)
    said = {
        **setup_of(here.plan), "buckets": (), "outcome": "ok", "of_run": True,
        "steps": sum(map(len, model)), "micro_batches": float(parts),
        "step_seconds": spread(model).middle, "sample_seconds": spread(load).middle,
    }  # fmt: skip
    return Trial.model_validate(said)


def _memory(took: Took) -> int:
    """What the system lent: RSS on a CPU; on a GPU as the driver tells, or else the allocator."""
    return took.peak_bytes if took.lent_bytes is None else took.lent_bytes


def loading(seconds: float, plan: Plan, step: float) -> float:
    """The share of a step that loading accounts for, of so many seconds for a micro-batch.

    0 where others load while the model computes, and it does not wait for them.
    """
    if plan.loader.keep == "device":
        return 0.0
    workers, parts = plan.loader.workers, plan.batch.accum_steps
    share = min(parts * seconds / max(workers, 1) / step, 1.0)
    return share if not workers or share > FULL else 0.0
