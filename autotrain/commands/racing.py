"""A race between ways to run the model: when there is one, and what it is asked."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from autotrain.commands.trying import ASKED_SECONDS, RUN_IMPORTS, START_SECONDS, UNASKED_SECONDS
from autotrain.errors import AutotrainError
from autotrain.plan import kernels
from autotrain.plan import race as races
from autotrain.plan.ledger import Ledger
from autotrain.plan.planner import machine_digest, model_digest
from autotrain.schema import Plan, Race, Variant
from autotrain.sensors import Quiet
from autotrain.units import seconds_text

if TYPE_CHECKING:
    from autotrain.commands.decide import Case, Decision

# One race lasts about so long after everything is loaded; it is stopped at so many times that.
SECONDS, PATIENCE = 6.0, 3.0
# Rounds that a race takes however long they last, the first of which does not count.
ROUNDS = 3


def raced(case: Case, made: Decision, *, forced: bool) -> Case:
    """The case with what a race found, so that what it decides follows from that.

    As it was where there is nothing to choose from, and where the race fails: a trial tells why.
    Where steps take long and nobody asked for them, only as many ways enter as there is time for.
    """
    from autotrain.probe import trials

    device = case.hardware.device(made.plan.device.kind, made.plan.device.index)
    fixed = frozenset(Ledger(case.goal, 0, made.plan.device.kind).given)
    cores, ways = case.hardware.cpu.cores, list[Variant]()
    if device is not None:
        ways = races.variants(made.plan, made.model, device, fixed, cores)
    sizes = races.cuts(made.plan, made.model, fixed)
    if ways and not forced:
        ways, sizes = affordable(made.plan, ways, sizes)
    if not sizes and len(ways) < 2:
        return case
    machine = machine_digest(case.hardware)
    key = trials.key(model_digest(made.model), case.dataset.fingerprint, case.goal.task)
    known = None if forced else trials.recall_race(machine, key)
    if known is None or not races.answers(known, made.plan, ways, sizes):
        quiet = Quiet()
        known = take(case, made.plan, ways, sizes)
        if made.plan.device.kind == "cpu":
            known = kernels.charged(known, made.model, len(made.plan.batch.buckets or ()))
        taken = quiet.disturbed()
        print(told(known) if taken is None else disturbed(taken), file=sys.stderr)
        if known.outcome != "ok" or taken is not None:
            return case
        trials.keep_race(machine, key, known)
    try:
        return case.raced(known)
    except AutotrainError as error:  # it ran so, and cannot be looked at so
        why = error.message.partition("\n")[0]
        print(f"warning: what won cannot be planned for: {why}; it runs the plain way",
              file=sys.stderr)  # fmt: skip
        return case


def predicted_seconds(plan: Plan, ways: int) -> float:
    """What a race takes at most."""
    return START_SECONDS + max(SECONDS, ROUNDS * ways * _micro_seconds(plan))


def short(plan: Plan) -> bool:
    """Whether two ways can be compared unasked."""
    return predicted_seconds(plan, 2) < UNASKED_SECONDS


def affordable(
    plan: Plan, ways: list[Variant], sizes: tuple[int, ...]
) -> tuple[list[Variant], tuple[int, ...]]:
    """What may enter a race that nobody asked for: all of it, or the foremost ways alone."""
    entries = len(ways) + len(sizes) * len({way.memory_format for way in ways})
    if predicted_seconds(plan, entries) < UNASKED_SECONDS:
        return ways, sizes
    left = (UNASKED_SECONDS - START_SECONDS) / (ROUNDS * _micro_seconds(plan))
    return races.foremost(ways, int(left)), ()


def _micro_seconds(plan: Plan) -> float:
    return plan.predicted.step_seconds.high / plan.batch.accum_steps


def take(case: Case, plan: Plan, ways: list[Variant], sizes: tuple[int, ...]) -> Race:
    """One race in a child process, with an end to it."""
    from autotrain.probe.child import Request, ask
    from autotrain.probe.race import RaceRequest

    take = Request(
        plan=plan,
        task_file=str(case.source.task_file),
        data=case.source.data,
        imports=RUN_IMPORTS,
    )
    request = RaceRequest(
        take=take, variants=tuple(ways), cuts=sizes, margin=races.MARGIN, near=races.LEADERS,
        seconds=SECONDS,
    )  # fmt: skip
    most = max(PATIENCE * predicted_seconds(plan, len(ways)), ASKED_SECONDS / 3)
    device = case.hardware.device(plan.device.kind, plan.device.index)
    free = device.free_bytes if device is not None and device.kind == "cpu" else None
    said = ask("autotrain.probe.race", request, Race, seconds=most, most_bytes=free)
    if isinstance(said, Race):
        return said.model_copy(update={"entered": tuple(ways), "sizes": sizes})
    about = {"micro_batch": plan.batch.micro_batch, "accum_steps": plan.batch.accum_steps}
    return Race.model_validate({**about, "outcome": said.outcome, "message": said.message})


def told(race: Race) -> str:
    """One line for a person."""
    if race.outcome != "ok" or not race.runs:
        why = race.message or race.outcome
        return f"ways to run the model were not compared ({why}); it runs the plain way"
    best = races.winner(race, {})
    assert best is not None
    plain = race.runs[0]
    ratio = plain.step_seconds(race.accum_steps) / best.step_seconds(race.accum_steps)
    first = spelled(best.variant)
    cut = races.in_parts(race, {})
    if cut is not None:
        ratio *= race.cuts[0].seconds / cut.seconds
        first = f"{spelled(cut.variant)} in parts of {cut.micro_batch}"
    beaten = best == plain and cut is None
    which = "none beats" if beaten else f"{first} is {ratio:.2f} x as fast as"
    return (
        f"compared {len(race.runs)} ways to take a step in {seconds_text(race.seconds)}: {which} "
        f"{spelled(plain.variant)}"
    )


def disturbed(taken: float) -> str:
    """What becomes of figures that were taken beside other programs."""
    return (
        f"warning: other programs took {taken:.0%} of the cores meanwhile: how long a step takes "
        "and which way is fastest is not known; plan again once they are gone"
    )


def spelled(variant: Variant) -> str:
    """As a person would say it."""
    threads = f"{variant.threads} thread{'s' if variant.threads > 1 else ''}"
    last = ", channels_last" if variant.memory_format == "channels_last" else ""
    return f"{variant.dtype}{last} on {threads}"
