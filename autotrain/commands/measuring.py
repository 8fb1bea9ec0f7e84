"""What `plan --measure-noise` and `plan --find-lr` measure: when, for how long, what follows."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from autotrain.commands.trying import ASKED_SECONDS, RUN_IMPORTS, START_SECONDS
from autotrain.errors import AutotrainError, DoesNotFitError
from autotrain.plan import learning
from autotrain.plan import noise as noises
from autotrain.plan import range_test as ranges
from autotrain.schema import HardwareProfile, NoiseTest, Plan, RangeTest
from autotrain.units import seconds_text

if TYPE_CHECKING:
    from autotrain.commands.decide import Case, Decision
    from autotrain.probe.noise import NoiseRequest
    from autotrain.probe.range_test import RangeRequest

# A measurement plans for so long, and its steps are cut to it as far as they can be.
MOST_SECONDS = 60.0
# It is stopped at so many times what was predicted.
PATIENCE = 3.0
_NAMES = {"range_test": "range test", "noise": "measurement of the gradient noise"}
_FLAGS = {"range_test": "--find-lr", "noise": "--measure-noise"}


class Measures(NamedTuple):
    """What was asked to be measured."""

    find_lr: bool = False
    noise: bool = False

    def insist_here(self, hardware: HardwareProfile, *, here: bool) -> None:
        """Raise AutotrainError where something is to be measured on another machine."""
        flags = [
            flag for flag, on in zip(("--find-lr", "--measure-noise"), self, strict=True) if on
        ]
        if flags and not here:
            raise AutotrainError(
                f"{flags[0]}: real steps for {hardware.name} cannot be taken on another machine",
                f"leave {' and '.join(flags)} out, or --machine",
            )


NOTHING = Measures()


def noise_measured(case: Case) -> Case:
    """The case with the gradient-noise scale, so that what it decides follows from that.

    Raises AutotrainError for a loss that ties samples together, or where the task's own code
    fails; DoesNotFitError where memory ran out.
    """
    from autotrain.probe.child import Request
    from autotrain.probe.noise import NoiseRequest

    made = case.decide()
    plan, file = made.plan, str(case.source.task_file)
    if made.model.mixes:
        raise AutotrainError(
            f"{file}: the loss ties samples together (mixes=True): its gradient is no mean over "
            "samples, and has no noise scale",
            "leave --measure-noise out, and set batch.global_batch yourself",
        )
    total, count = plan.batch.global_batch, made.model.train_count
    micro, parts = noises.sizes(plan.batch.micro_batch, total, count)
    step = _sample_seconds(plan) * micro * parts
    steps = noises.steps_within(step, MOST_SECONDS)
    print(
        f"measuring gradient noise: {steps} steps of {parts} x {micro} samples, about "
        f"{seconds_text(steps * step + START_SECONDS)}",
        file=sys.stderr,
    )
    rate = learning.scaled_rate(plan.optimizer.lr, plan.optimizer.name, total, micro * parts)
    request = NoiseRequest(
        take=Request(plan=plan, task_file=file, data=case.source.data, imports=RUN_IMPORTS),
        micro_batch=micro,
        parts=parts,
        steps=steps,
        rate=min(rate, plan.optimizer.lr),
        seconds=MOST_SECONDS,
    )
    said = _asked("noise", request, NoiseTest, case, plan, steps * step)
    print(noises.told(said), file=sys.stderr)
    return replace(case, measured={**case.measured, "noise": said})


def rate_found(case: Case, made: Decision) -> Decision:
    """The decision with the learning rate that a range test at its own batch suggests.

    Raises AutotrainError where the task's own code fails, DoesNotFitError where memory ran out.
    """
    from autotrain.probe.child import Request
    from autotrain.probe.range_test import RangeRequest

    plan, batch = made.plan, made.plan.batch
    step = _sample_seconds(plan) * batch.micro_batch * batch.accum_steps
    parts = ranges.parts_within(step, batch.accum_steps, MOST_SECONDS / 2)
    step *= parts / batch.accum_steps
    rule = learning.default_rate(plan.optimizer.name, made.model.parameters)
    first, factor, steps = ranges.sweep_of(rule)
    cost = min(ranges.cost_seconds(step), max(MOST_SECONDS, ranges.cost_seconds(step, sweeps=1)))
    print(
        f"finding the learning rate: up to {ranges.SWEEPS} sweeps of up to {steps} steps of "
        f"{batch.micro_batch * parts} samples, about {seconds_text(cost + START_SECONDS)}",
        file=sys.stderr,
    )
    file, data = str(case.source.task_file), case.source.data
    request = RangeRequest(
        take=Request(plan=plan, task_file=file, data=data, imports=RUN_IMPORTS),
        first=first,
        factor=factor,
        steps=steps,
        sweeps=ranges.SWEEPS,
        parts=parts,
        seconds=MOST_SECONDS,
    )
    said = _asked("range_test", request, RangeTest, case, plan, cost)
    case = replace(case, measured={**case.measured, "range_test": said})
    found = case.decide(made.model.trials)
    print(_suggested(said, found.plan), file=sys.stderr)
    return found


Test = TypeVar("Test", RangeTest, NoiseTest)


def _asked(
    what: str,
    request: RangeRequest | NoiseRequest,
    expected: type[Test],
    case: Case,
    plan: Plan,
    seconds: float,
) -> Test:
    """What the child measured. Raises AutotrainError, DoesNotFitError."""
    from autotrain.probe.child import Silence, ask

    device = case.hardware.device(plan.device.kind, plan.device.index)
    most = device.free_bytes if device is not None and device.kind == "cpu" else None
    wait = max(PATIENCE * (seconds + START_SECONDS), ASKED_SECONDS)
    module = f"autotrain.probe.{what}"
    said = ask(module, request, expected, seconds=wait, most_bytes=most)
    if said.outcome == "ok":
        assert not isinstance(said, Silence)
        return said
    leave = f"leave {_FLAGS[what]} out to plan without it"
    if said.outcome == "out_of_memory":
        raise DoesNotFitError(
            f"in the {_NAMES[what]}: memory ran out at micro_batch {plan.batch.micro_batch}: "
            f"{said.message}",
            f"a smaller batch.micro_batch, or close other programs; {leave}",
        )
    hint = leave if isinstance(said, Silence) else said.hint or leave
    raise AutotrainError(f"in the {_NAMES[what]}: {said.message}", hint)


def _sample_seconds(plan: Plan) -> float:
    """What a sample takes in a step, by the plan's prediction."""
    batch = plan.batch
    return plan.predicted.step_seconds.expected / (batch.micro_batch * batch.accum_steps)


def _suggested(test: RangeTest, plan: Plan) -> str:
    """One line for a person."""
    found, said = ranges.suggest(test), f"{len(test.sweeps)} sweeps in {seconds_text(test.seconds)}"
    rate, batch = plan.optimizer.lr, plan.batch.global_batch
    if found.why_not:
        return f"no suggestion from {said}: {found.why_not}; optimizer.lr stays {rate:.2g}"
    own, _ = ranges.for_batch(found, test, batch)
    kept = f"; you set {rate:.4g}" if plan.because["optimizer"]["lr"].kind == "user" else ""
    return f"{said} suggest optimizer.lr {own:.2g} at {batch} samples a step{kept}"


def write_curve(test: RangeTest, target: Path) -> tuple[Path, Path]:
    """The curve beside the plan, as a picture and a table; where they are.

    Raises AutotrainError where they cannot be written.
    """
    from autotrain.files import write_atomic
    from autotrain.report import lr_curve

    found = ranges.suggest(test)
    picture, table = (target.with_name(f"{target.stem}.lr.{kind}") for kind in ("png", "csv"))
    write_atomic(picture, lr_curve.png(test, found))
    write_atomic(table, lr_curve.table(test, found))
    return picture, table
