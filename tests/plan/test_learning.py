"""Learning rates and what goes with them, epochs, warm-up: how they follow recipes and batch."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotrain.plan import learning

from .profiles import OPTIMIZERS, goal, model, planned, reason, recipe

BATCHES = st.integers(1, 4096)
TIMES = st.floats(1e-3, 1e3)
POWERS = {"sgd": 1.0, "adagrad": 0.0, "rprop": 0.0}


@given(st.floats(1e-6, 1), st.sampled_from(OPTIMIZERS), BATCHES, BATCHES)
def test_a_rate_scales_by_its_optimizers_law_and_back(rate, name, theirs, ours):
    scaled = learning.scaled_rate(rate, name, theirs, ours)
    assert scaled == pytest.approx(rate * (ours / theirs) ** POWERS.get(name, 0.5))
    assert learning.scaled_rate(rate, name, theirs, theirs) == rate
    assert learning.scaled_rate(scaled, name, ours, theirs) == pytest.approx(rate)


@given(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True), TIMES)
def test_betas_stay_between_0_and_1_and_in_their_range_or_where_they_were(first, second, times):
    given_betas = (first, second)
    scaled = learning.scaled_betas(given_betas, times)
    for beta, now, (low, high) in zip(given_betas, scaled, learning.BETA_RANGE, strict=True):
        assert 0 <= now < 1
        assert min(low, beta) <= now <= max(high, beta)
        # They are rounded to twelve digits: a plan is read by people.
        assert (now <= beta + 1e-12) if times >= 1 else (now >= beta - 1e-12)
    assert learning.scaled_betas(given_betas, 1.0) == given_betas


@given(st.floats(0.7, 0.95), st.floats(0.96, 0.9995), st.floats(0.25, 1.6))
def test_betas_scale_as_malladi_says_and_back_where_no_limit_holds_them(first, second, times):
    scaled = learning.scaled_betas((first, second), times)
    assert scaled == pytest.approx([1 - times * (1 - beta) for beta in (first, second)])
    assert learning.scaled_betas(scaled, 1 / times) == pytest.approx((first, second))


@given(st.floats(1e-12, 1e-3), st.sampled_from(sorted(learning.EPS)), TIMES)
def test_eps_falls_with_the_noise_of_a_gradient_and_back(eps, name, times):
    scaled = learning.scaled_eps(eps, name, times)
    assert scaled == pytest.approx(eps / times**0.5 if name in learning.SCALES_EPS else eps)
    assert learning.scaled_eps(scaled, name, 1 / times) == pytest.approx(eps)


@given(st.floats(1e-6, 1), st.sampled_from(OPTIMIZERS), st.floats(1e-6, 1), BATCHES, BATCHES)
def test_an_epoch_decays_weights_as_much_at_any_batch(rate, name, decay, theirs, ours):
    """AdamW's decay and SGD's act through lr; an epoch has 1 / batch as many steps."""
    times = ours / theirs
    scaled = learning.scaled_decay(decay, name, times)
    if name in ("adamw", "sgd"):
        before = rate * decay / theirs
        after = learning.scaled_rate(rate, name, theirs, ours) * scaled / ours
        assert after == pytest.approx(before)
    else:
        assert scaled == decay
    assert learning.scaled_decay(scaled, name, 1 / times) == pytest.approx(decay)


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
def test_default_epochs_keep_within_their_bounds(steps):
    epochs = learning.default_epochs(steps)
    assert 10 <= epochs <= 100
    if 10 < epochs < 100:
        assert epochs * steps >= 3000 > (epochs - 1) * steps


@given(
    st.integers(1, 10**7), st.sampled_from(OPTIMIZERS), st.integers(1, 10**5),
    st.none() | st.floats(0, 0.99999), TIMES,
)  # fmt: skip
def test_warm_up_is_a_tenth_of_the_run_at_most(total, name, per_epoch, beta2, times):
    made = learning.warmup(total, name, per_epoch, beta2, times)
    assert 0 <= made.steps <= total / 10
    assert made.formula
    assert made.source
    if name != "rprop":
        assert made.steps >= min(total // 20, 2000)


@pytest.mark.parametrize(
    ("name", "beta2", "times", "steps"),
    [
        ("adamw", 0.999, 1, 2000), ("adam", 0.98, 1, 1500), ("adamw", 0.9998, 1, 3000),
        ("radam", 0.999, 1, 1500), ("sgd", None, 1, 1500), ("sgd", None, 4, 2500),
        ("sgd", None, 0.25, 1500), ("adagrad", None, 4, 1500), ("rprop", None, 1, 0),
    ],
)  # fmt: skip
def test_warm_up_is_as_long_as_the_optimizer_needs(name, beta2, times, steps):
    """30,000 steps, 500 an epoch."""
    assert learning.warmup(30_000, name, 500, beta2, times).steps == steps


def test_warm_up_of_a_short_run_with_rmsprop_covers_the_memory_of_its_mean():
    assert learning.warmup(2500, "rmsprop", 50).steps == 200


# --- in a plan -----------------------------------------------------------------------------

ADAM = recipe(optimizer__name="adam", optimizer__lr=1e-3, batch__global_batch=16)
ADAMW = recipe(optimizer__name="adamw", optimizer__lr=1e-3, batch__global_batch=16)
SGD = recipe(optimizer__name="sgd", optimizer__lr=0.1, batch__global_batch=16)


def rate(wish):
    return planned(wish=wish).optimizer.lr


def test_a_recipes_rate_is_left_alone_at_the_recipes_batch():
    plan = planned(wish=goal(ADAM))
    assert plan.optimizer.lr == 1e-3
    assert reason(plan, "optimizer.lr").source == "a paper"
    assert reason(plan, "optimizer.lr").kind == "fixed"
    assert plan.optimizer.betas == (0.9, 0.999)
    assert plan.optimizer.eps == 1e-8


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


def test_a_rate_of_adagrad_is_good_at_any_batch_and_the_plan_says_why():
    own = recipe(optimizer__name="adagrad", optimizer__lr=0.02, batch__global_batch=16)
    plan = planned(wish=goal(own, batch__global_batch=64))
    assert plan.optimizer.lr == 0.02
    assert "0.02 at any global batch" in reason(plan, "optimizer.lr").formula


def test_betas_eps_and_decay_follow_the_batch_with_the_rate():
    own = ADAMW.model_copy(update={"settings": {**ADAMW.settings, "optimizer.weight_decay": 0.1}})
    plan = planned(wish=goal(own, batch__global_batch=64))
    made = plan.optimizer
    assert made.betas == pytest.approx((0.6, 0.996))
    assert made.eps == pytest.approx(5e-9)
    assert made.weight_decay == pytest.approx(0.2)
    for key in ("betas", "eps", "weight_decay"):
        why = reason(plan, f"optimizer.{key}")
        assert (why.kind, why.limited_by) == ("rule", "batch.global_batch")
    assert "Malladi 2022" in reason(plan, "optimizer.betas").source
    assert "1 - 64 / 16 x (1 - 0.9) = 0.6" in reason(plan, "optimizer.betas").formula
    assert "0.1 (found at a global batch of 16) x sqrt(64 / 16) = 0.2" in (
        reason(plan, "optimizer.weight_decay").formula
    )
    smaller = planned(wish=goal(own, batch__global_batch=4)).optimizer
    assert smaller.betas == pytest.approx((0.975, 0.99975))
    assert smaller.weight_decay == pytest.approx(0.05)


def test_a_limit_that_holds_a_beta_is_said():
    why = reason(planned(wish=goal(ADAM, batch__global_batch=256)), "optimizer.betas")
    assert why.value == pytest.approx((0.5, 0.984))
    assert "= -0.6, held at 0.5" in why.formula
    assert why.limited_by == "the range of 0.5 to 0.99"


def test_decay_that_is_part_of_the_loss_does_not_follow_the_batch():
    for name in ("adam", "sgd"):
        own = recipe(
            optimizer__name=name, optimizer__lr=1e-3, optimizer__weight_decay=0.1,
            batch__global_batch=16,
        )  # fmt: skip
        plan = planned(wish=goal(own, batch__global_batch=64))
        assert plan.optimizer.weight_decay == 0.1
        assert reason(plan, "optimizer.weight_decay").kind == "fixed"


def test_nothing_is_scaled_where_no_batch_is_known():
    made = planned(wish=goal(batch__global_batch=64)).optimizer
    assert (made.betas, made.eps, made.weight_decay) == ((0.9, 0.999), 1e-8, 0.01)
    without = recipe(optimizer__name="adamw", optimizer__lr=1e-3)
    made = planned(wish=goal(without, batch__global_batch=64)).optimizer
    assert (made.lr, made.betas, made.weight_decay) == (1e-3, (0.9, 0.999), 0.01)


def test_each_value_is_scaled_from_the_batch_of_the_recipe_that_gave_it():
    decay = recipe(optimizer__name="adamw", optimizer__weight_decay=0.1, batch__global_batch=64)
    made = planned(wish=goal(ADAMW, decay)).optimizer
    assert made.weight_decay == 0.1
    assert made.lr == pytest.approx(2e-3)
    assert made.betas == pytest.approx((0.6, 0.996))


@pytest.mark.parametrize(
    ("key", "value"),
    [("betas", (0.8, 0.9)), ("eps", 1e-6), ("weight_decay", 0.3), ("lr", 0.5), ("betas", None)],
)
def test_what_the_user_fixed_is_never_scaled(key, value):
    wish = goal(ADAMW, **{"batch__global_batch": 64, f"optimizer__{key}": value})
    plan = planned(wish=wish)
    assert getattr(plan.optimizer, key) == value
    why = reason(plan, f"optimizer.{key}")
    assert why.kind == "user"
    assert key == "lr" or "global batch" not in why.formula


def test_a_rate_of_the_users_own_leaves_what_goes_with_it_as_the_recipe_has_it():
    made = planned(wish=goal(ADAMW, batch__global_batch=64, optimizer__lr=0.5)).optimizer
    assert (made.betas, made.eps, made.weight_decay) == ((0.9, 0.999), 1e-8, 0.01)


def test_the_warm_up_follows_a_beta_that_the_user_fixed():
    of = model(train=100_000)
    long, short = (
        planned(of=of, wish=goal(batch__global_batch=32, optimizer__betas=(0.9, beta)))
        for beta in (0.9995, 0.99)
    )
    assert long.schedule.warmup_steps == 3125
    assert short.schedule.warmup_steps == 1562
    assert "a tenth of the run's 31250 steps" in reason(long, "schedule.warmup_steps").formula


def test_a_rule_rate_scales_for_sgd_from_its_reference_batch_of_256():
    assert rate(goal(optimizer__name="sgd", batch__global_batch=64)) == pytest.approx(0.025)


@pytest.mark.parametrize("name", ["adamw", "adam", "rmsprop"])
def test_a_rule_rate_scales_for_others_from_the_batch_that_a_plan_chooses_itself(name):
    usual = planned(wish=goal(optimizer__name=name))
    total, chosen = usual.batch.global_batch, usual.optimizer.lr
    for times in (4, 0.25):
        wish = goal(optimizer__name=name, batch__global_batch=int(total * times))
        assert rate(wish) == pytest.approx(chosen * times**0.5)
        assert (
            f"usual at {total}, which this plan would choose"
            in reason(planned(wish=wish), "optimizer.lr").formula
        )
    wish = goal(optimizer__name="adagrad", batch__global_batch=total * 4)
    assert rate(wish) == rate(goal(optimizer__name="adagrad"))


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


def test_betas_of_adam_serve_its_kin_and_its_decay_does_not():
    own = recipe(
        optimizer__name="adam", optimizer__lr=1e-3, optimizer__betas=(0.8, 0.95),
        optimizer__weight_decay=0.2, batch__global_batch=16,
    )  # fmt: skip
    made = planned(wish=goal(own, optimizer__name="adamw")).optimizer
    assert (made.betas, made.weight_decay) == ((0.8, 0.95), 0.01)
    assert planned(wish=goal(own, optimizer__name="sgd")).optimizer.betas is None


def test_epochs_and_schedules_follow_the_batch():
    small, large = (planned(wish=goal(batch__global_batch=size)) for size in (10, 100))
    assert (small.train.epochs, large.train.epochs) == (30, 100)
    assert (small.schedule.warmup_steps, large.schedule.warmup_steps) == (300, 100)


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
