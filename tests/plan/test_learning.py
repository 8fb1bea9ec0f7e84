"""Learning rates, epochs, patience, and how they follow from recipes and the batch."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotrain.plan import learning

from .profiles import OPTIMIZERS, goal, planned, reason, recipe

BATCHES = st.integers(1, 4096)


@given(st.floats(1e-6, 1), st.sampled_from(OPTIMIZERS), BATCHES, BATCHES)
def test_a_rate_scales_by_ratio_for_sgd_and_by_its_root_for_the_others(rate, name, theirs, ours):
    scaled = learning.scaled_rate(rate, name, theirs, ours)
    ratio = ours / theirs
    assert scaled == pytest.approx(rate * (ratio if name == "sgd" else ratio**0.5))
    assert learning.scaled_rate(rate, name, theirs, theirs) == rate
    assert learning.scaled_rate(scaled, name, ours, theirs) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("name", "parameters", "rate"),
    [("adamw", 1e6, 1e-3), ("adam", 45e6, 1e-3), ("adamw", 125e6, 6e-4), ("sgd", 1e6, 0.1)],
)
def test_the_default_rate_is_the_published_one(name, parameters, rate):
    assert learning.default_rate(name, int(parameters)) == rate


@given(st.sampled_from(OPTIMIZERS), st.integers(0, 10**12), st.integers(0, 10**12))
def test_a_larger_model_never_learns_faster_by_default(name, one, other):
    less, more = sorted((one, other))
    assert 0 < learning.default_rate(name, more) <= learning.default_rate(name, less)


@given(st.integers(1, 10**6))
def test_default_epochs_warm_up_and_patience_keep_within_their_bounds(steps):
    epochs = learning.default_epochs(steps)
    assert 10 <= epochs <= 100
    if 10 < epochs < 100:
        assert epochs * steps >= 3000 > (epochs - 1) * steps
    assert learning.warmup_steps(steps) <= min(steps / 20, 2000)
    assert learning.default_patience(epochs) == max(math.ceil(epochs / 5), 5)


# --- in a plan -----------------------------------------------------------------------------

ADAM = recipe(optimizer__name="adam", optimizer__lr=1e-3, batch__global_batch=16)
SGD = recipe(optimizer__name="sgd", optimizer__lr=0.1, batch__global_batch=16)


def rate(wish):
    return planned(wish=wish).optimizer.lr


def test_a_recipes_rate_is_left_alone_at_the_recipes_batch():
    plan = planned(wish=goal(ADAM))
    assert plan.optimizer.lr == 1e-3
    assert reason(plan, "optimizer.lr").source == "a paper"
    assert reason(plan, "optimizer.lr").kind == "fixed"


def test_another_global_batch_scales_a_recipes_rate():
    assert rate(goal(ADAM, batch__global_batch=64)) == pytest.approx(2e-3)
    assert rate(goal(SGD, batch__global_batch=64)) == pytest.approx(0.4)
    assert rate(goal(ADAM, batch__micro_batch=2, batch__accum_steps=2)) == pytest.approx(5e-4)
    why = reason(planned(wish=goal(SGD, batch__global_batch=64)), "optimizer.lr")
    assert (
        "0.1 (found at a global batch of 16) x 64 / 16 = 0.4 at 64 (linear scaling)" in why.formula
    )
    assert why.limited_by == "batch.global_batch"
    assert "Goyal 2017" in why.source


def test_the_users_rate_is_never_scaled():
    assert rate(goal(ADAM, batch__global_batch=64, optimizer__lr=0.5)) == 0.5


def test_a_rule_rate_scales_for_sgd_from_its_reference_batch_of_256():
    assert rate(goal(optimizer__name="sgd", batch__global_batch=64)) == pytest.approx(0.025)
    assert rate(goal(batch__global_batch=64)) == rate(goal(batch__global_batch=8)) == 1e-3


def test_a_rate_scales_from_the_batch_of_the_recipe_that_gave_it():
    """A template's rate at its batch of 4; a recipe over it changes the batch alone."""
    template = recipe(optimizer__name="adam", optimizer__lr=1e-3, batch__global_batch=4)
    assert rate(goal(template, recipe(batch__global_batch=16))) == pytest.approx(2e-3)
    assert rate(goal(template, ADAM)) == 1e-3


def test_a_recipe_may_give_its_batch_in_parts():
    parts = recipe(optimizer__lr=1e-3, batch__micro_batch=8, batch__accum_steps=4)
    plan = planned(wish=goal(parts))
    assert (plan.batch.micro_batch, plan.batch.accum_steps, plan.optimizer.lr) == (8, 4, 1e-3)
    assert rate(goal(parts, batch__global_batch=128)) == pytest.approx(2e-3)


def test_a_rate_found_for_one_optimizer_is_not_taken_for_a_stranger():
    plan = planned(wish=goal(ADAM, optimizer__name="sgd"))
    assert plan.optimizer.lr == pytest.approx(0.1 * 16 / 256)
    assert "the recipe's 0.001 is for adam" in reason(plan, "optimizer.lr").formula
    assert rate(goal(ADAM, optimizer__name="nadam")) == 1e-3


def test_epochs_and_schedules_follow_the_batch():
    small, large = (planned(wish=goal(batch__global_batch=size)) for size in (10, 100))
    assert (small.train.epochs, large.train.epochs) == (30, 100)
    assert (small.schedule.warmup_steps, large.schedule.warmup_steps) == (150, 50)
    assert small.early_stop.patience == 6


def test_what_is_said_in_epochs_becomes_steps():
    wish = goal(recipe(schedule__warmup_epochs=5), batch__global_batch=100)
    plan = planned(wish=wish)
    assert plan.schedule.warmup_steps == 50
    assert (
        "the recipe sets 5 epochs x 10 steps = 50" in reason(plan, "schedule.warmup_steps").formula
    )


@pytest.mark.parametrize("first", ["epochs", "steps"])
def test_the_later_recipe_wins_in_whichever_unit_it_speaks(first):
    epochs, steps = recipe(schedule__warmup_epochs=5), recipe(schedule__warmup_steps=7)
    order = (epochs, steps) if first == "epochs" else (steps, epochs)
    plan = planned(wish=goal(*order, batch__global_batch=100))
    assert plan.schedule.warmup_steps == (7 if first == "epochs" else 50)


@pytest.mark.parametrize("name", ["constant", "exponential", "inverse_sqrt", "plateau"])
def test_a_schedule_has_the_keys_it_reads_and_no_others(name):
    of_another = recipe(
        schedule__name="cosine_restarts", schedule__period_steps=9, schedule__min_lr=1e-6,
        schedule__factor=0.3, schedule__patience=4,
    )  # fmt: skip
    schedule = planned(wish=goal(of_another, schedule__name=name)).schedule
    for key, users in learning.SCHEDULE_USERS.items():
        assert (getattr(schedule, key) is not None) == (name in users)
