"""Epochs for a given time or sum of money: the most that fit, and what is said where none do."""

import statistics
import time

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from autotrain.errors import AutotrainError, DoesNotFitError, UsageError
from autotrain.goal import parse_settings
from autotrain.plan.inversion import priced
from autotrain.plan.planner import make_plan

from .profiles import (
    dataset,
    device,
    goal,
    goals,
    machine,
    machines,
    model,
    models,
    planned,
    rates,
    reason,
    recipe,
)


def bench(op_seconds: float = 0.01, **more):
    return machine(device(rates=rates().model_copy(update={"op_seconds": op_seconds})), **more)


def limited(hardware, of, wish, **keys):
    user = {**wish.user, **{key.replace("__", "."): value for key, value in keys.items()}}
    return make_plan(
        hardware, dataset(of.train_count), of, wish.model_copy(update={"user": user}), version="0"
    )


def expected(plan) -> float:
    return plan.predicted.run_seconds.expected


# --- any of them ---------------------------------------------------------------------------


@settings(max_examples=40)
@given(machines(), models(), goals(), st.floats(0.01, 1.5))
def test_a_run_fits_the_limit_and_one_more_epoch_would_not(hardware, of, wish, share):
    check_the_choice(hardware, of, wish, share)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(machines(), models(), goals(), st.floats(0.001, 1.5))
def test_any_run_fits_its_limit_and_one_more_epoch_would_not(hardware, of, wish, share):
    check_the_choice(hardware, of, wish, share)


def check_the_choice(hardware, of, wish, share):
    assume("train.epochs" not in wish.user)
    try:
        free = limited(hardware, of, wish)
    except AutotrainError:
        return
    seconds = share * expected(free)
    try:
        plan = limited(hardware, of, wish, train__within_seconds=seconds)
    except DoesNotFitError:
        assert share < 1
        user = {key: value for key, value in wish.user.items() if "epochs" not in key}
        one = limited(hardware, of, wish.model_copy(update={"user": user}), train__epochs=1)
        assert expected(one) > seconds * (1 - 1e-6) or user != wish.user
        return
    epochs = plan.train.epochs
    assert expected(plan) <= seconds
    assert epochs <= free.train.epochs
    if share >= 1:
        assert plan.model_dump(exclude={"because", "train"}) == free.model_dump(
            exclude={"because", "train"}
        )
    assert (epochs == free.train.epochs) == (share >= 1) or epochs < free.train.epochs
    assert reason(plan, "train.epochs").value == epochs


@settings(max_examples=25)
@given(models(), st.floats(0.02, 1.2), st.floats(0.02, 1.2))
def test_more_time_never_gives_fewer_epochs(of, one, other):
    hardware = machine(device("cuda", 1 << 38), disk=1 << 45)
    try:
        free = expected(limited(hardware, of, goal()))
        less, more = (
            limited(hardware, of, goal(), train__within_seconds=share * free)
            for share in sorted((one, other))
        )
    except DoesNotFitError:
        return
    assert less.train.epochs <= more.train.epochs


def test_a_limit_takes_arithmetic_of_the_order_of_one_more_plan():
    """Also where evaluating takes longer than training, and most candidates are too long."""
    hardware, of, data = bench(), model(train=64, valid=50_000), dataset()
    free = expected(planned(hardware, of))

    def seconds(**user):
        started = time.process_time()
        make_plan(hardware, data, of, goal(**user), version="0")
        return time.process_time() - started

    shares = [share / 20 for share in range(4, 20)]
    pairs = [(seconds(), seconds(train__within_seconds=share * free)) for share in shares]
    without, within = zip(*pairs, strict=True)
    assert statistics.median(within) < 4 * statistics.median(without)


# --- what a limit leads to -----------------------------------------------------------------


def test_the_epochs_a_limit_picks_and_all_that_follows_from_them():
    hardware, of = bench(), model(train=4000)
    theirs = recipe(
        train__epochs=100, schedule__warmup_epochs=10, checkpoint__every_epochs=20,
        schedule__name="cosine_restarts", schedule__period_epochs=50,
    )  # fmt: skip
    free = planned(hardware, of, goal(theirs))
    plan = planned(hardware, of, goal(theirs, train__within_seconds=expected(free) / 4))
    assert 20 <= plan.train.epochs <= 25
    share = plan.train.epochs / 100
    assert plan.schedule.warmup_steps == pytest.approx(share * free.schedule.warmup_steps, abs=1)
    assert plan.schedule.period_steps == pytest.approx(share * free.schedule.period_steps, abs=1)
    assert plan.checkpoint.every_epochs == int(share * 20)
    why = reason(plan, "train.epochs")
    assert why.limited_by == "train.within_seconds"
    assert why.source.startswith("--within, which you set")
    assert f"{plan.train.epochs} of 100 epochs are expected to take" in why.formula
    assert f"{plan.train.epochs + 1} would take" in why.formula
    assert reason(plan, "train.within_seconds").kind == "user"
    assert reason(plan, "train.within_seconds").formula == why.formula


def test_what_the_user_fixed_is_not_shortened_in_proportion():
    hardware, of = bench(), model(train=4000)
    theirs = recipe(train__epochs=100, schedule__warmup_epochs=10)
    own = {"schedule__warmup_epochs": 3, "checkpoint__every_epochs": 7}
    free = planned(hardware, of, goal(theirs, **own))
    plan = planned(hardware, of, goal(theirs, train__within_seconds=expected(free) / 4, **own))
    assert plan.train.epochs < 100
    assert plan.schedule.warmup_steps == free.schedule.warmup_steps
    assert plan.checkpoint.every_epochs == 7


def test_the_longest_time_is_said_with_the_epochs_that_would_fit_even_then():
    hardware, of = bench(), model(train=4000)
    plan = planned(hardware, of, goal(train__within_seconds=expected(planned(hardware, of)) / 2))
    said = reason(plan, "train.epochs").formula
    assert "They may take up to" in said
    sure = int(said.partition("train.epochs=")[2].partition(" ")[0])
    assert 1 <= sure < plan.train.epochs
    seconds = plan.train.within_seconds
    assert planned(hardware, of, goal(train__epochs=sure)).predicted.run_seconds.high <= seconds
    more = planned(hardware, of, goal(train__epochs=sure + 1))
    assert more.predicted.run_seconds.high > seconds


def test_a_limit_that_does_not_bind_keeps_the_epochs_and_says_what_is_left():
    free = planned()
    plan = planned(wish=goal(train__within_seconds=1e6))
    assert plan.train.epochs == free.train.epochs
    assert reason(plan, "train.epochs") == reason(free, "train.epochs")
    assert "are left over" in reason(plan, "train.within_seconds").formula


def test_without_a_limit_nothing_is_said_of_one():
    plan = planned()
    assert (
        plan.train.within_seconds is plan.train.spend_dollars is plan.train.price_per_hour is None
    )
    assert reason(plan, "train.within_seconds").formula == "no limit was set"


# --- money ---------------------------------------------------------------------------------


def test_money_buys_time_at_the_price_of_the_machine_or_the_one_that_is_said():
    of = model(train=4000)
    hours = expected(planned(bench(), of)) / 3600
    by_time = planned(bench(), of, goal(train__within_seconds=1800 * hours))
    by_profile = planned(bench(price_per_hour=4.0), of, goal(train__spend_dollars=2 * hours))
    wish = goal(train__spend_dollars=2 * hours, train__price_per_hour=4.0)
    said = planned(bench(price_per_hour=99.0), of, wish)
    assert by_time.train.epochs == by_profile.train.epochs == said.train.epochs
    assert (by_profile.train.price_per_hour, said.train.price_per_hour) == (4.0, 4.0)
    assert reason(said, "train.epochs").limited_by == "train.spend_dollars"
    assert reason(said, "train.epochs").source.startswith("--for, which you set")
    assert "dollars at 4 an hour" in reason(said, "train.spend_dollars").formula


def test_of_two_limits_the_tighter_one_counts():
    of = model(train=4000)
    seconds = expected(planned(bench(), of)) / 2
    wish = {"train__within_seconds": seconds, "train__price_per_hour": 3600.0}
    loose = planned(bench(), of, goal(train__spend_dollars=2 * seconds, **wish))
    tight = planned(bench(), of, goal(train__spend_dollars=seconds / 2, **wish))
    assert reason(loose, "train.epochs").limited_by == "train.within_seconds"
    assert reason(tight, "train.epochs").limited_by == "train.spend_dollars"
    assert tight.train.epochs < loose.train.epochs


def test_on_a_machine_that_costs_nothing_money_is_no_limit():
    own = planned(bench(price_per_hour=0.0), wish=goal(train__spend_dollars=0.01))
    assert own.train.epochs == planned(bench()).train.epochs
    assert own.train.price_per_hour == 0.0
    timed = goal(train__spend_dollars=0.01, train__within_seconds=300.0)
    both = planned(bench(price_per_hour=0.0), wish=timed)
    assert reason(both, "train.epochs").limited_by == "train.within_seconds"


def test_money_without_a_price_is_refused_with_both_ways_to_say_it():
    with pytest.raises(UsageError, match="the price of an hour of bench is not known") as error:
        planned(wish=goal(train__spend_dollars=5.0))
    assert "--price" in error.value.hint
    assert "price_per_hour in the machine's profile" in error.value.hint


def test_a_machine_at_a_price():
    assert priced(machine(price_per_hour=2.0), None).price_per_hour == 2.0
    assert priced(machine(price_per_hour=2.0), 0.5).price_per_hour == 0.5


# --- what cannot be ------------------------------------------------------------------------


def test_not_even_one_epoch_is_refused_with_remedies_that_work():
    hardware = machine(device("cuda", native_dtypes=("fp32",), rates=rates(1e-2)))
    of = model(train=4000)
    half = planned(hardware, of, goal(train__epochs=1, precision__dtype="bf16"))
    whole = planned(hardware, of, goal(train__epochs=1))
    seconds = (expected(half) + expected(whole)) / 2
    own = {"evaluate.every_epochs": 1, "run.seed": 7}
    wish = goal().model_copy(update={"user": {"train.within_seconds": seconds, **own}})
    with pytest.raises(DoesNotFitError, match="one epoch is expected to take") as error:
        planned(hardware, of, wish)
    assert error.value.exit_code == 4
    said = error.value.hint.removeprefix("what would make it fit: ").split(", or ")
    assert said[-2:] == ["a smaller model or input", "less data"]
    assert "--set precision.dtype=bf16" in said
    assert not any("run.seed" in remedy for remedy in said)
    flag, _, text = said[0].partition(" ")
    assert flag == "--within"
    amount = float(text.removesuffix("min").removesuffix("s")) * (60 if "min" in text else 1)
    more = goal().model_copy(update={"user": {"train.within_seconds": amount, **own}})
    assert planned(hardware, of, more).train.epochs == 1
    chosen, _ = parse_settings(["precision.dtype=bf16"])
    other = wish.model_copy(update={"user": wish.user | chosen})
    assert planned(hardware, of, other).train.epochs >= 1


def test_a_setting_of_the_users_own_that_stands_in_the_way_is_named():
    hardware = machine(device("cuda"))
    of = model(train=4000)
    slow = goal(precision__dtype="fp32", train__within_seconds=1e6)
    fast = planned(hardware, of, goal(train__epochs=1))
    one = planned(hardware, of, goal(train__epochs=1, precision__dtype="fp32"))
    assert expected(fast) < expected(one)
    seconds = (expected(fast) + expected(one)) / 2
    with pytest.raises(DoesNotFitError) as error:
        limited(hardware, of, slow, train__within_seconds=seconds)
    assert "--set precision.dtype=auto" in error.value.hint


def test_too_little_money_is_refused_with_the_sum_that_does():
    wish = goal(train__spend_dollars=0.001, train__price_per_hour=3.0)
    with pytest.raises(DoesNotFitError) as error:
        planned(bench(), model(train=4000), wish)
    amount = float(error.value.hint.partition("--for ")[2].partition("usd")[0])
    assert (
        planned(
            bench(), model(train=4000), goal(train__spend_dollars=amount, train__price_per_hour=3.0)
        ).train.epochs
        == 1
    )


def test_epochs_that_the_user_fixed_are_kept_where_they_fit_and_told_where_not():
    hardware, of = bench(), model(train=4000)
    ten = expected(planned(hardware, of, goal(train__epochs=10)))
    kept = planned(hardware, of, goal(train__epochs=10, train__within_seconds=1.01 * ten))
    assert kept.train.epochs == 10
    assert reason(kept, "train.epochs").kind == "user"
    with pytest.raises(UsageError, match="the 10 epochs that you set are expected") as error:
        planned(hardware, of, goal(train__epochs=10, train__within_seconds=ten / 2))
    fit = int(error.value.hint.partition("--set train.epochs=auto: ")[2].partition(" fit")[0])
    left_out = planned(hardware, of, goal(train__within_seconds=ten / 2))
    assert left_out.train.epochs == fit
