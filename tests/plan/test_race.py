"""Which way of running a model wins, and what that settles."""

from autotrain.plan import race
from autotrain.schema import Race, Raced, RacedCut, Variant, leaders

from .profiles import goal, model, planned, reason

PLAIN = Variant("fp32", "contiguous", 2)
HALF = Variant("bf16", "contiguous", 2)
LAST = Variant("bf16", "channels_last", 2)
ALONE = Variant("fp32", "contiguous", 1)


def of(*times, accum=1):
    ways = (PLAIN, HALF, LAST, ALONE)
    runs = tuple(Raced(way, t, 0.001) for way, t in zip(ways, times, strict=False) if t)
    return Race(outcome="ok", micro_batch=8, accum_steps=accum, rounds=5, runs=runs)


def parted(*cuts):
    """A race that LAST wins, and what it was in parts."""
    return of(0.1, 0.06, 0.05).model_copy(update={"cuts": tuple(RacedCut(*cut) for cut in cuts)})


def test_the_fastest_wins():
    assert race.winner(of(0.100, 0.060, 0.050, 0.120), {}).variant == LAST


def test_less_than_the_margin_does_not_count():
    assert race.winner(of(0.100, 0.099, 0.098), {}).variant == PLAIN


def test_of_two_that_are_alike_the_plainer_one_wins():
    assert race.winner(of(0.100, 0.0505, 0.050), {}).variant == HALF
    assert race.winner(of(0.100, 0.054, 0.050), {}).variant == LAST


def test_what_is_fixed_is_kept():
    found = race.winner(of(0.100, 0.060, 0.050, 0.070), {"precision.dtype": "fp32"})
    assert found.variant == ALONE
    found = race.winner(of(0.100, 0.060, 0.050), {"model.memory_format": "contiguous"})
    assert found.variant == HALF


def test_those_that_promise_most_come_first_where_there_is_no_time_for_all():
    alone, last = HALF._replace(threads=1), LAST._replace(dtype="fp32")
    ways = [PLAIN, last, HALF, LAST, ALONE, alone]
    assert race.foremost(ways, 4)[:2] == [PLAIN, HALF]
    assert {*race.foremost(ways, 4)} == {PLAIN, HALF, LAST, last}
    assert race.foremost(ways, 1) == [PLAIN]
    assert {*race.foremost(ways, 9)} == {*ways}


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
        return race.preferred(parted(*((PLAIN, *each) for each in cuts)), PLAIN)

    assert cut((48, 0.100), (24, 0.090), (12, 0.091))[0] == 12
    assert cut((48, 0.100), (24, 0.090), (12, 0.095))[0] == 24
    assert cut((48, 0.100), (24, 0.099), (12, 0.098)) is None
    assert race.preferred(None, PLAIN) is None


def test_another_format_may_win_in_smaller_parts():
    made = parted((LAST, 8, 0.050), (LAST, 4, 0.049), (HALF, 4, 0.040), (HALF, 2, 0.045))
    assert race.in_parts(made, {}) == RacedCut(HALF, 4, 0.040)
    plan = planned(of=model(race=made), wish=goal(batch__global_batch=8))
    assert (plan.model.memory_format, plan.precision.dtype) == ("contiguous", "bf16")
    assert (plan.batch.micro_batch, plan.batch.accum_steps) == (4, 2)
    told = (
        "8 samples took 50 ms at once (bf16, channels_last, 2 threads) and 40 ms in parts of 4 "
        "(bf16, contiguous, 2 threads) (a race)"
    )
    assert told in reason(plan, race.FORMAT).formula


def test_parts_win_nothing_where_the_size_or_the_format_is_fixed():
    made = parted((LAST, 8, 0.050), (HALF, 4, 0.040))
    assert race.in_parts(made, {"batch.micro_batch": 8}) is None
    assert race.in_parts(made, {race.FORMAT: "channels_last"}) is None
    assert race.in_parts(made, {race.DTYPE: "fp32"}) is None  # another one wins then
    assert race.preferred(made, LAST) is None


def test_the_best_of_each_format_is_tried_in_parts_if_it_is_not_far_behind():
    def able(made):
        return leaders(made.runs, made.accum_steps, race.MARGIN, race.LEADERS)

    assert able(of(0.100, 0.060, 0.050)) == (LAST, HALF)
    assert able(of(0.100, 0.080, 0.050)) == (LAST,)
    assert able(of(0.100, 0.099, 0.120)) == (PLAIN, LAST)


def test_a_batch_is_cut_for_speed_only_where_nothing_else_changes():
    def sizes(fixed=(), **more):
        plan = planned(of=model(**more), wish=goal(batch__global_batch=32))
        return race.cuts(plan, model(**more), frozenset(fixed))

    assert sizes() == (16, 8)
    assert sizes(batch_norm=True) == ()
    assert sizes(mixes=True) == ()
    assert sizes({"batch.micro_batch"}) == ()


def test_it_compares_only_runs_that_differ_in_that_one_setting():
    made = of(0.183, 0.060, 0.050, 0.120)  # the winner: bf16, channels_last, 2 threads
    best = race.winner(made, {})
    dtype, layout, threads = (race.said(made, best, place) for place in range(3))
    assert dtype == (
        "bf16 took 51 ms a step at micro_batch 8 (channels_last, 2 threads); nothing else was "
        "tried with these"
    )
    assert layout.endswith("8 (bf16, 2 threads), contiguous 61 ms")
    assert "fp32" not in layout
    assert threads.endswith("(bf16, channels_last); nothing else was tried with these")
    alone = of(0.183, 0.190, 0.200, 0.120)  # the winner: fp32 on 1 thread
    text = race.said(alone, race.winner(alone, {}), 0)
    assert "bf16" not in text  # which ran on 2
    assert race.said(alone, race.winner(alone, {}), 2).endswith("(fp32, contiguous), 2 184 ms")


def test_it_says_that_a_little_faster_does_not_count_only_where_something_was():
    near, far = of(0.100, 0.099), of(0.100, 0.120)
    for made, counts in ((near, True), (far, False)):
        text = race.said(made, race.winner(made, {}), 0)
        assert (f"less than {race.MARGIN:.0%} faster does not count" in text) is counts


def test_what_a_race_chose_is_limited_by_its_time_and_not_by_the_rule_it_replaced():
    made = of(0.183, 0.060, 0.050, 0.120)
    plan = planned(of=model(race=made))
    for key in (race.DTYPE, race.FORMAT, race.THREADS):
        why = reason(plan, key)
        assert (why.kind, why.limited_by) == ("measured", "the time of real steps")
