"""A traced step played again on this machine, in several ways: where no real steps are taken."""

from __future__ import annotations

import os
import sys
from time import monotonic
from typing import TYPE_CHECKING

from autotrain.commands import racing, trying
from autotrain.commands.racing import disturbed, told
from autotrain.errors import AutotrainError
from autotrain.plan import compute, kernels, memory, pricing
from autotrain.plan import race as races
from autotrain.plan.ledger import Ledger
from autotrain.schema import (
    Device,
    Plan,
    Race,
    Raced,
    RacedCut,
    Replay,
    Variant,
    leaders,
)
from autotrain.sensors import Quiet

if TYPE_CHECKING:
    from autotrain.commands.decide import Case, Decision

# For all ways to run the model together, about; and for all sizes of micro-batch.
SECONDS = 3.0
# Rounds that are played however long they last; what they take, in steps, as each way is played
# twice in its turn, and evaluated; ways at least, of a long step and of one that is longer still.
ROUNDS, PLAYED, FEWEST = 3, 8, (4, 2)
# What a step may take of the memory that is free, by what is predicted.
SHARE = 0.5


def alone(trial: bool | None, here: bool, plan: Plan) -> bool:
    """Whether operators are to be played by themselves: where no real steps tell how long they
    take, and the environment does not say that nothing is to be run."""
    if os.environ.get("AUTOTRAIN_TRIAL") == "off" or not trying.possible(plan, forced=False):
        return False
    quick = trying.quick(plan) and racing.short(plan)
    return trial is False or (trial is None and here and not quick)


def played(case: Case, made: Decision) -> tuple[Case, Decision]:
    """The decision with what this machine, which is the one planned for, takes for such steps.

    Of a long step the ways that promise most are played, with fewer samples if it must be. As it
    was where nothing computes here, and where that is still too long or too large.
    """
    device = case.hardware.device(made.plan.device.kind, made.plan.device.index)
    if device is None or device.kind != "cpu" or not device.rates.timings:
        return case, made
    fixed = frozenset(Ledger(case.goal, 0, made.plan.device.kind).given)
    ways = races.variants(made.plan, made.model, device, fixed, case.hardware.cpu.cores)
    ways, whole = playable(made.plan, ways)
    if not whole or not _small(made, device, len(ways)):
        return case, made
    begun, quiet, batch = monotonic(), Quiet(), made.plan.batch
    held = _held(case, made.plan, device, [(way, whole) for way in ways])
    if not held:
        return case, made
    accum = batch.accum_steps * -(-batch.micro_batch // whole)
    about = {"micro_batch": whole, "accum_steps": accum, "outcome": "ok"}
    update = _update_seconds(made, device)
    runs = tuple(Raced(way, of.seconds, update) for (way, _), of in held.items())
    race = Race.model_validate({**about, "rounds": ROUNDS, "runs": runs})
    sizes = races.cuts(made.plan, made.model, fixed) if whole == batch.micro_batch else ()
    able = leaders(race.runs, race.accum_steps, races.MARGIN, races.LEADERS)
    smaller = [(way, size) for way in able for size in sizes]
    parts = _held(case, made.plan, device, [(able[0], whole), *smaller]) if smaller else {}
    taken = quiet.disturbed()
    if taken is not None:
        print(disturbed(taken), file=sys.stderr)
        return case, made
    cuts = tuple(RacedCut(way, n, whole / n * of.seconds) for (way, n), of in parts.items())
    race = race.model_copy(update={"cuts": cuts, "seconds": monotonic() - begun})
    race = kernels.charged(race, made.model, len(made.plan.batch.buckets or ()))
    if len(race.runs) > 1:
        print(told(race), file=sys.stderr)
    case = case.raced(race, tuple((held | parts).values()))
    return case, case.decide()


def playable(plan: Plan, ways: list[Variant]) -> tuple[list[Variant], int]:
    """Ways to play, and with how many samples, in the time that there is; 0: not even with one."""
    samples = plan.batch.micro_batch
    many = trying.UNASKED_SECONDS * plan.batch.accum_steps
    many /= PLAYED * plan.predicted.step_seconds.expected
    for fewest in FEWEST:
        foremost = races.foremost(ways, max(int(many), fewest))
        if size := min(int(samples * many / len(foremost)), samples):
            return foremost, size
    return ways, 0


def _small(made: Decision, device: Device, ways: int) -> bool:
    need = made.plan.predicted.tensor_peak_bytes.high + ways * made.model.parameter_bytes
    return need < SHARE * device.free_bytes


def _update_seconds(made: Decision, device: Device) -> float:
    chosen, model = made.plan.optimizer, made.model
    state = memory.optimizer_state_bytes(
        chosen.name, model.trainable_bytes, model.tensors, chosen.momentum
    )
    return compute.optimizer_seconds(model, device, state)


def _held(
    case: Case, plan: Plan, device: Device, ways: list[tuple[Variant, int]]
) -> dict[tuple[Variant, int], Replay]:
    """Each way and size, played in turns; none where one cannot be. A way in which the model does
    not run, as in a precision that one of its operators lacks, is out."""
    from autotrain.probe import replay

    known = pricing.prices(device.rates.timings)
    programs, traces, able = [], [], list[tuple[Variant, int]]()
    for variant, size in ways:
        form = plan.model.uncompiled()
        form = form.model_copy(update={"memory_format": variant.memory_format})
        try:
            trace = case.step(size, variant.dtype, form)
        except AutotrainError:
            continue
        program = case.tracer.program(trace)
        if program is None or not program.whole:
            return {}
        able.append((variant, size))
        traces.append(trace)
        programs.append((program, variant.threads))
    if able[:1] != ways[:1]:
        return {}
    try:
        taken = replay.timed(programs, plan.batch.accum_steps, SECONDS)
    except Exception as error:
        print(f"warning: the traced step could not be played: {error}", file=sys.stderr)
        return {}
    held = {}
    for way, trace, of in zip(able, traces, taken, strict=True):
        threads = way[0].threads
        priced = known.seconds(trace.evaluate_work, threads)
        evaluated = priced if of.evaluate_seconds is None else of.evaluate_seconds
        held[way] = Replay(
            trace.micro_batch, trace.length, trace.dtype, trace.form, threads, of.seconds,
            evaluated, known.seconds(trace.work, threads), priced,
        )  # fmt: skip
    return held
