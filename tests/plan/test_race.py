"""Which way of running a model wins, and what that settles."""

import pytest

from autotrain.plan import race
from autotrain.schema import Race, Raced, Variant

from .profiles import goal, model, planned

PLAIN = Variant("fp32", "contiguous", 2)
HALF = Variant("bf16", "contiguous", 2)
LAST = Variant("bf16", "channels_last", 2)
ALONE = Variant("fp32", "contiguous", 1)


def of(*times, accum=1):
    ways = (PLAIN, HALF, LAST, ALONE)
    runs = tuple(Raced(way, t, 0.001) for way, t in zip(ways, times, strict=False) if t)
    return Race(outcome="ok", micro_batch=8, accum_steps=accum, rounds=5, runs=runs)


def test_the_fastest_wins():
    assert race.winner(of(0.100, 0.060, 0.050, 0.120), {}).variant == LAST


def test_less_than_the_margin_does_not_count():
    assert race.winner(of(0.100, 0.099, 0.098), {}).variant == PLAIN


def test_what_is_fixed_is_kept():
    found = race.winner(of(0.100, 0.060, 0.050, 0.070), {"precision.dtype": "fp32"})
    assert found.variant == ALONE
    found = race.winner(of(0.100, 0.060, 0.050), {"model.memory_format": "contiguous"})
    assert found.variant == HALF


def test_nothing_agrees_with_what_is_fixed():
    assert race.winner(of(0.1, 0.06), {"precision.dtype": "fp16"}) is None


def test_the_update_counts_once_a_step():
    runs = (Raced(PLAIN, 0.010, 0.100), Raced(ALONE, 0.012, 0.050))
    one = Race(outcome="ok", micro_batch=8, accum_steps=1, runs=runs)
    many = one.model_copy(update={"accum_steps": 50})
    assert race.winner(one, {}).variant == ALONE
    assert race.winner(many, {}).variant == PLAIN


def test_a_smaller_cut_wins_only_where_it_is_clearly_faster():
    def cut(*cuts):
        return race.preferred(of(0.1).model_copy(update={"cuts": cuts}))

    assert cut((48, 0.100), (24, 0.090), (12, 0.091))[0] == 12
    assert cut((48, 0.100), (24, 0.090), (12, 0.095))[0] == 24
    assert cut((48, 0.100), (24, 0.099), (12, 0.098)) is None
    assert race.preferred(None) is None


def test_a_batch_is_cut_for_speed_only_where_nothing_else_changes():
    def sizes(fixed=(), **more):
        plan = planned(of=model(**more), wish=goal(batch__global_batch=32))
        return race.cuts(plan, model(**more), frozenset(fixed))

    assert sizes() == (16, 8)
    assert sizes(batch_norm=True) == ()
    assert sizes(mixes=True) == ()
    assert sizes({"batch.micro_batch"}) == ()


@pytest.mark.parametrize(("place", "value"), [(0, "bf16"), (1, "channels_last"), (2, "2")])
def test_it_says_what_each_value_took(place, value):
    made = of(0.100, 0.060, 0.050, 0.120)
    text = race.said(made, race.winner(made, {}), place)
    assert text.startswith(f"{value} took 51 ms")
