"""What a range test's losses say of the learning rate, on curves with a known answer."""

import math
import random

import pytest

from autotrain.plan import range_test
from autotrain.plan.range_test import for_batch, parts_within, smoothed, suggest, sweep_of
from autotrain.schema import RangeTest, Sweep

from .profiles import goal, model, planned, reason, recipe

FIRST, FACTOR, STEPS = sweep_of(0.1)
RATES = [FIRST * FACTOR**i for i in range(STEPS)]


def quadratic(curvatures, *, noise=0.0, batches=0.0, seed=0, rates=RATES):
    """Gradient descent on sum of c w^2 / 2 from w = 1, the rate rising from step to step.

    `noise`: of the gradient; `batches`: how much harder one batch is than another.
    """
    chance = random.Random(seed)
    weights, losses, before = [1.0] * len(curvatures), [], []
    start = sum(c / 2 for c in curvatures)
    for rate in rates:
        own = batches * chance.gauss(0, 1)
        before.append(start + own)
        loss = sum(c * w * w / 2 for c, w in zip(curvatures, weights, strict=True)) + own
        if len(losses) < len(before) - 1 or not math.isfinite(loss) or loss > 1e6:
            continue
        losses.append(loss)
        weights = [
            w - rate * (c * w + noise * chance.gauss(0, 1))
            for c, w in zip(curvatures, weights, strict=True)
        ]
    return Sweep(seed, tuple(losses), tuple(before))


def test_of(sweeps, **changes):
    about = {"optimizer": "sgd", "dtype": "fp32", "micro_batch": 8, "samples": 32}
    fields = about | {"outcome": "ok", "rates": RATES, "sweeps": sweeps} | changes
    return RangeTest.model_validate(fields)


test_of.__test__ = False


@pytest.mark.parametrize("curvature", [0.5, 5.0, 20.0, 300.0])
def test_a_parabola_turns_up_where_theory_says(curvature):
    """Gradient descent diverges beyond 2 / curvature."""
    found = suggest(test_of([quadratic([curvature])]))
    assert not found.why_not
    assert found.diverged
    assert found.edge == pytest.approx(2 / curvature, rel=0.25)
    assert 2 / curvature / 60 < found.rate < 1 / curvature


def test_the_steepest_direction_sets_the_limit():
    """The noise of batches keeps that direction alive until its rate is too large."""
    sweeps = [quadratic([10.0, 1.0, 0.1], noise=0.3, seed=seed) for seed in range(3)]
    found = suggest(test_of(sweeps))
    assert found.edge < 2 / 10.0
    assert 2 / 10.0 / 60 < found.rate < found.edge


def test_seeds_agree_within_a_factor_of_two():
    rates = []
    for group in range(5):
        sweeps = [
            quadratic([10.0, 3.0, 1.0], noise=3.0, batches=3.0, seed=3 * group + i)
            for i in range(3)
        ]
        rates.append(suggest(test_of(sweeps)).rate)
    assert max(rates) / min(rates) < 2


def test_what_makes_batches_differ_does_not_move_it():
    quiet = suggest(test_of([quadratic([5.0])]))
    loud = suggest(test_of([quadratic([5.0], batches=50.0)]))
    assert loud.rate == pytest.approx(quiet.rate, rel=0.02)


def test_the_interval_holds_the_sweeps_own_answers():
    sweeps = [quadratic([c], seed=i) for i, c in enumerate([4.0, 5.0, 6.0])]
    found = suggest(test_of(sweeps))
    alone = [suggest(test_of([sweep])).rate for sweep in sweeps]
    assert found.low <= min(alone) * 1.1
    assert found.high >= max(alone) / 1.1
    assert found.low <= found.rate <= found.high
    single = suggest(test_of(sweeps[:1]))
    assert (single.low, single.high) == (single.rate / 2, single.rate * 2)


def test_a_loss_that_explodes_in_one_sweep_does_not_outweigh_the_others():
    wild = quadratic([5.0], seed=1)
    wild = wild._replace(losses=(*wild.losses[:-1], 1e30))
    found = suggest(test_of([quadratic([5.0]), wild, quadratic([5.0])]))
    assert found.rate == pytest.approx(suggest(test_of([quadratic([5.0])])).rate, rel=0.1)


def test_a_loss_that_never_fell_gets_no_suggestion():
    chance = random.Random(3)

    def flat():
        before = [2.3 + 0.1 * chance.gauss(0, 1) for _ in RATES]
        grown = [b + 0.02 * i / STEPS * chance.gauss(0, 1) for i, b in enumerate(before)]
        return Sweep(0, tuple(grown), tuple(before))

    for _ in range(10):
        found = suggest(test_of([flat(), flat(), flat()]))
        assert found.why_not == "the loss never fell beyond its noise"
        assert len(found.curve) == STEPS


def test_a_loss_that_does_not_move_at_all_gets_no_suggestion():
    still = Sweep(0, (1.0,) * STEPS, (1.0,) * STEPS)
    assert suggest(test_of([still])).why_not == "the loss never fell beyond its noise"


def test_where_it_still_falls_at_the_end_nothing_is_guessed():
    falls = tuple(1.0 - i / STEPS for i in range(STEPS))
    found = suggest(test_of([Sweep(0, falls, (1.0,) * STEPS)]))
    assert found.why_not == f"the loss still fell at {RATES[-1]:.2g}, the largest rate tried"


def test_where_it_diverges_at_once_nothing_is_guessed():
    found = suggest(test_of([Sweep(0, (1.0, 0.5, 90.0), (1.0,) * STEPS)]))
    assert found.why_not.startswith("it diverged at ")
    assert suggest(test_of([])).why_not == "nothing was measured"


def test_the_running_mean_is_drawn_to_zero_at_neither_end():
    assert smoothed([3.0] * 20, 2.0) == pytest.approx([3.0] * 20)
    assert smoothed([1.0], 2.0) == [1.0]


def test_a_batch_that_was_not_tested_goes_by_the_projects_law():
    test = test_of([quadratic([5.0])])
    found = suggest(test)
    same, told = for_batch(found, test, 32)
    assert same == float(f"{found.rate:.2g}")
    assert "scaling" not in told
    half, told = for_batch(found, test, 16)
    assert half == pytest.approx(found.rate / 2, rel=0.05)
    assert "linear scaling" in told
    most, told = for_batch(found, test, 32 * 1000)
    assert most == float(f"{found.edge:.2g}")
    assert "held at" in told
    adam = test_of([quadratic([5.0])], optimizer="adamw")
    assert for_batch(found, adam, 8)[0] == pytest.approx(found.rate / 2, rel=0.05)


def test_a_step_is_cut_to_the_time_there_is():
    whole = range_test.cost_seconds(0.8, sweeps=1)
    assert parts_within(0.8, 8, whole) == 8
    assert parts_within(0.8, 8, whole / 3) == 2
    assert parts_within(0.8, 8, 1e-3) == 1
    assert parts_within(0.0, 8, 1.0) == 8


def of_model(sweeps=None):
    test = test_of(sweeps or [quadratic([5.0])], optimizer="adamw", samples=64)
    return model(each=2**20, train=4000).model_copy(update={"range_test": test}), suggest(test)


def test_the_plan_takes_the_rate_that_was_measured():
    of, found = of_model()
    plan = planned(of=of)
    why = reason(plan, "optimizer.lr")
    assert plan.batch.global_batch == 64
    assert plan.optimizer.lr == float(f"{found.rate:.2g}")
    assert why.kind == "measured"
    assert "Smith 2017" in why.source
    assert why.beside[-1].value == planned(of=model(each=2**20, train=4000)).optimizer.lr
    assert plan.schedule.min_lr == pytest.approx(plan.optimizer.lr / 100)


def test_it_wins_over_a_recipe_and_loses_to_the_user():
    of, found = of_model()
    theirs = recipe(**{"optimizer.lr": 0.123, "optimizer.name": "adamw"})
    assert planned(of=of, wish=goal(theirs)).optimizer.lr == float(f"{found.rate:.2g}")
    plan = planned(of=of, wish=goal(theirs, **{"optimizer.lr": 0.5}))
    assert plan.optimizer.lr == 0.5
    why = reason(plan, "optimizer.lr")
    assert why.kind == "user"
    assert f"{found.rate:.2g}" in why.formula


def test_without_a_suggestion_the_rule_stays_and_says_why():
    of, _ = of_model(sweeps=[Sweep(0, (1.0,) * STEPS, (1.0,) * STEPS)])
    plan, plain = planned(of=of), planned(of=model(each=2**20, train=4000))
    assert plan.optimizer.lr == plain.optimizer.lr
    why = reason(plan, "optimizer.lr")
    assert why.kind == reason(plain, "optimizer.lr").kind
    assert why.formula.endswith("gave no suggestion: the loss never fell beyond its noise")


def test_of_another_optimizer_it_says_nothing():
    of, _ = of_model()
    user = {"optimizer.name": "sgd"}
    plain = planned(of=model(each=2**20, train=4000), wish=goal(**user))
    assert planned(of=of, wish=goal(**user)).optimizer.lr == plain.optimizer.lr
