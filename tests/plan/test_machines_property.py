"""Any machine, data and model: no crash, no plan over its budget, and more is never worse.

`make slow` draws 1,000 triples; the quick suite a few of them.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotrain.errors import AutotrainError
from autotrain.plan.planner import make_plan
from autotrain.schema import Device, Plan

from .triples import (
    Triple,
    batches,
    faster,
    multiplying_faster,
    roomier,
    traced_more,
    triples,
    true_peak,
)

QUICK, WHOLE = 60, 1000
# What rounding may add to a run that the arithmetic says is as long.
ROUNDING = 1.000001
# How often what was chosen is traced, at most.
CHECKS = 3
# Sizes that the user fixed are kept, over the budget too; the plan says so.
FIXED_SIZES = {"batch.micro_batch", "loader.keep", "loader.workers"}


def attempt(triple: Triple, **user: object) -> Plan | None:
    """The plan; None where it is refused in words. Anything else is a crash."""
    wish = triple.goal.model_copy(
        update={"user": triple.goal.user | {k.replace("__", "."): v for k, v in user.items()}}
    )
    try:
        return make_plan(triple.hardware, triple.data, triple.model, wish, version="0.1.0")
    except AutotrainError:
        return None


def with_devices(triple: Triple, change: Callable[[Device], Device]) -> Plan | None:
    devices = tuple(map(change, triple.hardware.devices))
    return attempt(
        triple._replace(hardware=triple.hardware.model_copy(update={"devices": devices}))
    )


def within_its_budget(plan: Plan, triple: Triple) -> None:
    """As predicted, and by counting the tensors of each of its batches once more.

    Far from the sizes that were traced a line may lie: what was chosen is then traced too, and
    planned with, as `plan` does each time.
    """
    for _ in range(CHECKS):
        budget = plan.memory.budget_bytes
        assert plan.predicted.device_peak_bytes.high <= budget
        if all(true_peak(plan, triple.chain, *each) <= budget for each in batches(plan, triple)):
            return
        triple = traced_more(plan, triple)
        made = attempt(triple)
        if made is None:
            return
        plan = made
    raise AssertionError(f"{plan.batch} takes more than {plan.memory.budget_bytes}")


def holds(triple: Triple, times: float) -> None:
    """Within its budget; with more memory no smaller a micro_batch, with more speed no longer."""
    plan = attempt(triple)
    if plan is None:
        return
    cut = plan.batch
    assert cut.micro_batch * cut.accum_steps * cut.world_size == cut.global_batch
    if not FIXED_SIZES & triple.goal.user.keys():
        within_its_budget(plan, triple)
    more = attempt(triple._replace(hardware=roomier(triple.hardware, times)))
    assert more is not None
    if not only_whole(plan, triple):
        assert more.batch.micro_batch >= cut.micro_batch
    longest = plan.predicted.run_seconds.expected * ROUNDING
    for change in (faster, multiplying_faster):
        quick = with_devices(triple, lambda each, change=change: change(each, times))
        assert quick is not None
        assert quick.predicted.run_seconds.expected <= longest


def only_whole(plan: Plan, triple: Triple) -> bool:
    """Whether a batch fits whole and not in parts, between which gradients are held."""
    if plan.batch.accum_steps > 1 or "batch.accum_steps" in triple.goal.user:
        return False
    parts = attempt(triple, batch__accum_steps=2, batch__micro_batch=1)
    # A size that the user fixes is kept over the budget too.
    return parts is None or parts.predicted.device_peak_bytes.high > parts.memory.budget_bytes


@settings(max_examples=QUICK)
@given(triples())
def test_workers_are_not_chosen_where_the_run_would_be_shorter_without(triple):
    """Its evaluations too: where these are long, what hands their batches over may cost more."""
    plan = attempt(triple)
    if plan is None or not plan.loader.workers or "loader.workers" in triple.goal.user:
        return
    alone = attempt(triple, loader__workers=0)
    assert alone is not None
    longest = alone.predicted.run_seconds.expected * ROUNDING
    assert plan.predicted.run_seconds.expected <= longest


@settings(max_examples=QUICK)
@given(triples(), st.floats(1, 2) | st.floats(1, 30))
def test_a_plan_fits_and_more_memory_or_speed_is_never_worse(triple, times):
    holds(triple, times)


@pytest.mark.slow
@settings(max_examples=WHOLE)
@given(triples(), st.floats(1, 2) | st.floats(1, 30))
def test_a_thousand_triples(triple, times):
    holds(triple, times)
