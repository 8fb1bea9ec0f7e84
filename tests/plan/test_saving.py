"""How often a plan evaluates and saves, and how much it keeps, on any machine and any wish."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotrain.errors import AutotrainError, DoesNotFitError
from autotrain.plan import cadence
from autotrain.schema import Disk
from autotrain.units import GIB

from .profiles import (
    MIB,
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


def slow(seconds: float):
    """A device on which a small operator, of which a step has 200, takes so long."""
    return device(rates=rates().model_copy(update={"op_seconds": seconds}))


def disk(hardware, **facts):
    return hardware.model_copy(update={"disk": hardware.disk.model_copy(update=facts)})


def steps_per_epoch(plan, of):
    total, share = of.train_count, plan.data.valid_share
    train = total if share is None else total - min(max(round(total * share), 1), total - 1)
    return -(-train // plan.batch.global_batch)


def apart(plan, of):
    """Most steps between two saves."""
    said, total = plan.checkpoint, plan.train.epochs * steps_per_epoch(plan, of)
    by_epochs = (said.every_epochs or 0) * steps_per_epoch(plan, of)
    return min(steps for steps in (by_epochs, said.every_steps, total) if steps)


def attempt(hardware, of, wish):
    try:
        return planned(hardware, of, wish)
    except AutotrainError:
        return None


@settings(max_examples=80)
@given(machines(), models(), goals(), st.floats(0.1, 1000))
def test_no_more_is_at_stake_than_said_unless_the_user_fixed_it(hardware, of, wish, minutes):
    user = {**wish.user, "checkpoint.at_stake_minutes": minutes}
    plan = attempt(hardware, of, wish.model_copy(update={"user": user}))
    fixed = {"checkpoint.every_steps", "checkpoint.every_epochs"} & set(user)
    fixed |= {k for r in wish.recipes for k in r.settings if k == "checkpoint.every_steps"}
    if plan is None or fixed:
        return
    steps = apart(plan, of)
    seconds = steps * plan.predicted.step_seconds.high
    assert steps == 1 or seconds <= 60 * minutes * (1 + 1e-6)


@settings(max_examples=80)
@given(machines(), models(), goals())
def test_checkpoints_never_take_more_than_the_disk_has(hardware, of, wish):
    plan = attempt(hardware, of, wish)
    if plan is None or reason(plan, "checkpoint.keep").kind in ("user", "fixed"):
        return
    size, free = plan.predicted.checkpoint_bytes.high, hardware.disk.free_bytes
    assert 3 * size <= free
    if plan.checkpoint.keep > 1:
        assert (plan.checkpoint.keep + 3) * size <= free - GIB + 1


@settings(max_examples=40)
@given(models(), st.floats(1e6, 1e10), st.floats(1, 100), st.floats(0.01, 1000))
def test_costlier_saves_are_never_made_more_often(of, bandwidth, times, hours):
    wish = goal(checkpoint__interruption_hours=hours)
    large = machine(device("cuda", 200 * GIB), disk=10_000 * GIB)
    fast = attempt(disk(large, write_bandwidth=times * bandwidth), of, wish)
    dear = attempt(disk(large, write_bandwidth=bandwidth), of, wish)
    if fast is not None and dear is not None:
        assert apart(dear, of) >= apart(fast, of)


@settings(max_examples=40)
@given(models(), st.floats(0.01, 1000), st.floats(1, 100))
def test_more_interruptions_never_save_less_often(of, hours, times):
    large = machine(device("cuda", 200 * GIB), disk=10_000 * GIB)
    often = attempt(large, of, goal(checkpoint__interruption_hours=hours))
    seldom = attempt(large, of, goal(checkpoint__interruption_hours=times * hours))
    if often is not None and seldom is not None:
        assert apart(often, of) <= apart(seldom, of)


# --- saving --------------------------------------------------------------------------------


def test_a_slow_run_saves_in_mid_epoch_and_says_what_limits_it():
    of, hardware = model(train=16_000), machine(slow(0.1))
    plan = planned(hardware, of, goal(checkpoint__interruption_hours=12.0))
    assert plan.checkpoint.every_epochs is None
    why = reason(plan, "checkpoint.every_steps")
    assert why.limited_by == "checkpoint.interruption_hours"
    assert "an interruption comes every 12 h 0 min" in why.formula
    said = reason(plan, "checkpoint.every_epochs")
    assert [(b.name, b.value) for b in said.beside] == [
        ("epochs_fifth_rule", plan.train.epochs // 5)
    ]
    capped = planned(hardware, of, goal(checkpoint__at_stake_minutes=1))
    assert reason(capped, "checkpoint.every_steps").limited_by == "checkpoint.at_stake_minutes"
    assert capped.checkpoint.every_steps < plan.checkpoint.every_steps


def test_what_may_be_at_stake_holds_for_steps_as_long_as_they_may_be():
    """The best interval by Young and Daly is a mean, and is for steps as they are expected."""
    of, hardware = model(train=16_000, sample_seconds=0.0), machine(slow(0.1))
    capped = planned(hardware, of, goal(checkpoint__at_stake_minutes=5))
    step, often = capped.predicted.step_seconds, capped.checkpoint.every_steps
    assert often * step.high <= 300 < (often + 2) * 1.1 * step.high
    assert "steps of up to " in reason(capped, "checkpoint.every_steps").formula
    theirs = planned(
        hardware, of, goal(checkpoint__every_steps=often + 2, checkpoint__at_stake_minutes=5)
    )
    assert any("of work is at stake" in note for note in theirs.notes)
    mean = planned(hardware, of, goal(checkpoint__interruption_hours=12.0))
    assert "steps of up to" not in reason(mean, "checkpoint.every_steps").formula


def test_a_quick_run_saves_every_fifth_of_its_epochs():
    plan = planned()
    assert plan.checkpoint.every_epochs == plan.train.epochs // 5
    assert plan.checkpoint.every_steps is None
    why = reason(plan, "checkpoint.every_epochs")
    assert why.limited_by == "train.epochs"
    assert "of work from one to the next. The most would be " in why.formula
    steps = plan.train.epochs * math.ceil(1000 / plan.batch.global_batch)
    assert f"(longer than the run's {steps} steps of" in why.formula


@pytest.mark.parametrize(
    ("train", "valid", "epochs", "said"),
    [
        (20_000, 10, 50, ": after each epoch, which adds 1.7%"),
        (1_000, 10, 50, ": every 3 epochs, which adds 7.4%; after each one would add over 10%"),
        (1_000, 100_000, 50, ": every 5 epochs, which adds 601%; a run is to have 10, or one"),
        (1_000, 100_000, 5, ": after each epoch, which adds 3004%; a run is to have 10, or one"),
        (300_000, 10, 5, "more often than once an epoch, so that 5 epochs have 10 or so"),
        (16_000_000, 10, 5, "more often than once an epoch, so that no hour passes without"),
    ],
)
def test_how_often_to_evaluate_says_by_which_rule(train, valid, epochs, said):
    plan = planned(of=model(train=train, valid=valid), wish=goal(train__epochs=epochs))
    key = "every_epochs" if plan.evaluate.every_epochs else "every_steps"
    assert said in reason(plan, f"evaluate.{key}").formula


def test_a_laptop_a_word_and_a_number_of_hours_all_count():
    of, bench = model(train=160_000), slow(0.001)
    workstation, laptop = planned(machine(bench), of), planned(machine(bench, battery=True), of)
    spot = planned(machine(bench), of, goal(checkpoint__interruption_hours=2.0))
    assert workstation.checkpoint.interruption_hours == 168
    assert laptop.checkpoint.interruption_hours == 8
    assert apart(spot, of) < apart(laptop, of) < apart(workstation, of)
    assert (
        "taken for a laptop (a battery" in reason(laptop, "checkpoint.interruption_hours").formula
    )


def test_without_interruptions_and_without_a_limit_epochs_decide():
    of, never = (
        model(train=16_000),
        dict.fromkeys(("checkpoint__interruption_hours", "checkpoint__at_stake_minutes")),
    )
    plan = planned(machine(slow(0.1)), of, goal(**never))
    assert plan.checkpoint.every_epochs == plan.train.epochs // 5
    assert plan.checkpoint.every_steps is None


def test_what_the_user_says_of_saves_replaces_a_recipes_and_the_rules():
    theirs = recipe(checkpoint__every_epochs=3, evaluate__every_epochs=1)
    steps = planned(wish=goal(theirs, checkpoint__every_steps=500, evaluate__every_steps=250))
    assert (steps.checkpoint.every_steps, steps.checkpoint.every_epochs) == (500, None)
    assert (steps.evaluate.every_steps, steps.evaluate.every_epochs) == (250, None)
    both = planned(wish=goal(checkpoint__every_steps=500, checkpoint__every_epochs=2))
    assert (both.checkpoint.every_steps, both.checkpoint.every_epochs) == (500, 2)
    kept = planned(wish=goal(theirs))
    assert (kept.checkpoint.every_epochs, kept.evaluate.every_epochs) == (3, 1)


def test_epochs_that_a_recipe_gives_are_joined_by_steps_where_too_much_is_at_stake():
    of, hardware = model(train=16_000), machine(slow(0.1))
    plan = planned(hardware, of, goal(recipe(checkpoint__every_epochs=3)))
    assert plan.checkpoint.every_epochs == 3
    assert plan.checkpoint.every_steps * plan.predicted.step_seconds.high <= 15 * 60
    assert not any("at stake" in note for note in plan.notes)


def test_epochs_that_the_user_fixes_stand_alone_and_the_risk_is_said():
    of, hardware = model(train=16_000), machine(slow(0.1))
    plan = planned(hardware, of, goal(checkpoint__every_epochs=3))
    assert (plan.checkpoint.every_epochs, plan.checkpoint.every_steps) == (3, None)
    assert any("of work is at stake between saves" in note for note in plan.notes)
    both = planned(hardware, of, goal(checkpoint__every_epochs=3, checkpoint__at_stake_minutes=5.0))
    assert both.checkpoint.every_steps * both.predicted.step_seconds.high <= 5 * 60


def test_off_by_epochs_goes_by_steps_and_off_by_steps_goes_by_epochs():
    of, hardware = model(train=16_000), machine(slow(0.1))
    by_steps = planned(wish=goal(checkpoint__every_epochs=None))
    assert by_steps.checkpoint.every_epochs is None
    assert by_steps.checkpoint.every_steps
    by_epochs = planned(hardware, of, goal(checkpoint__every_steps=None))
    assert (by_epochs.checkpoint.every_epochs, by_epochs.checkpoint.every_steps) == (1, None)
    both = goal(checkpoint__every_epochs=None, checkpoint__every_steps=None)
    at_the_end = planned(hardware, of, both)
    assert at_the_end.checkpoint.every_epochs is None
    assert at_the_end.checkpoint.every_steps is None


def test_a_slow_loader_is_reckoned_with_its_workers():
    """The step between saves is the one that is predicted."""
    of = model(train=16_000, sample_seconds=0.1)
    plan = planned(machine(slow(1e-4), cores=16), of)
    assert plan.loader.workers > 0
    per_step = 900 / plan.predicted.step_seconds.expected
    assert apart(plan, of) <= per_step
    assert apart(plan, of) > 0.1 * per_step


# --- the disk ------------------------------------------------------------------------------


def test_a_small_disk_keeps_fewer_and_says_so():
    plan = planned(machine(disk=1 * GIB + 640 * MIB))
    assert plan.checkpoint.keep == 2
    assert reason(plan, "checkpoint.keep").limited_by == "the disk"
    assert planned(machine(disk=1 * GIB + 400 * MIB)).checkpoint.keep == 1


def test_a_disk_that_cannot_hold_the_fewest_is_refused_with_what_it_takes():
    with pytest.raises(
        DoesNotFitError, match=r"/runs: 300 MiB free; a run needs 36\d MiB"
    ) as error:
        planned(machine(disk=300 * MIB))
    assert error.value.hint.startswith("free 6")
    assert planned(machine(disk=370 * MIB)).checkpoint.keep == 1


def test_what_checkpoints_take_beyond_the_disk_is_told():
    plan = planned(machine(disk=2 * GIB), wish=goal(checkpoint__keep=40))
    assert any("40 kept, and up to 3 others" in note for note in plan.notes)


# --- evaluating ----------------------------------------------------------------------------


def test_an_evaluation_dearer_than_training_is_made_ten_times():
    plan = planned(of=model(train=64, valid=50_000))
    assert plan.train.epochs == 100
    assert plan.evaluate.every_epochs == 10
    kept = planned(of=model(train=64, valid=50_000), wish=goal(recipe(evaluate__every_epochs=1)))
    assert kept.evaluate.every_epochs == 1


def test_few_long_epochs_are_evaluated_on_the_way():
    plan = planned(machine(slow(0.1)), model(train=16_000), goal(train__epochs=2))
    assert plan.evaluate.every_epochs is None
    per_epoch = steps_per_epoch(plan, model(train=16_000))
    assert 10 <= cadence.occasions(2, per_epoch, None, plan.evaluate.every_steps) <= 11
    assert plan.early_stop.patience >= 3


def test_evaluations_by_epochs_that_the_user_turns_off_leave_the_last_one():
    plan = planned(machine(slow(0.1)), model(train=16_000), goal(evaluate__every_epochs=None))
    assert (plan.evaluate.every_epochs, plan.evaluate.every_steps) == (None, None)


def test_epochs_that_a_recipe_evaluates_by_are_not_joined_by_steps():
    theirs, long = recipe(evaluate__every_epochs=1), model(train=16_000)
    plan = planned(machine(slow(0.1)), long, goal(theirs, train__epochs=2))
    assert (plan.evaluate.every_epochs, plan.evaluate.every_steps) == (1, None)


def test_a_grace_time_that_a_save_does_not_fit_in_is_told():
    drive = {"path": "/runs", "total_bytes": 10**12, "free_bytes": 10**12}
    slow = machine().model_copy(update={"disk": Disk(**drive, write_bandwidth=1e6)})
    found = planned(slow, model(weights=10**8), goal(checkpoint__grace_seconds=30))
    assert any("more than the 30 s of checkpoint.grace_seconds" in note for note in found.notes)
    quick = planned(slow, model(weights=10**6), goal(checkpoint__grace_seconds=30))
    assert not any("grace" in note for note in quick.notes)
    assert reason(quick, "checkpoint.grace_seconds").kind == "user"


def test_a_save_that_is_felt_goes_on_in_the_background_where_a_copy_has_room():
    large = model(weights=10**8)
    made = planned(machine(), large)
    assert made.checkpoint.background
    waits = planned(machine(), large, goal(checkpoint__background=False))
    more = made.predicted.device_peak_bytes.expected - waits.predicted.device_peak_bytes.expected
    assert 0 < more <= 1.3e9
    assert made.predicted.device_peak_bytes.high <= made.memory.budget_bytes
    assert "during which training goes on" in reason(made, "checkpoint.background").formula
    quick = planned(machine(), model(weights=1000))
    assert not quick.checkpoint.background
    assert "which is not felt" in reason(quick, "checkpoint.background").formula
    several = planned(machine(), large, goal(batch__world_size=2))
    assert not several.checkpoint.background
    tight = planned(
        machine(),
        large,
        goal(memory__budget_bytes=int(waits.predicted.device_peak_bytes.high) + 10**7),
    )
    assert not tight.checkpoint.background
    assert "there is no room" in reason(tight, "checkpoint.background").formula
