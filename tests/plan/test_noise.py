"""The gradient-noise scale, from gradients whose covariance is known."""

import math
import random

import pytest

from autotrain.plan import noise
from autotrain.plan.noise import Scale, batch_for, estimates, scale, scales, sizes, steps_within
from autotrain.schema import NoiseTest, NoiseWindow

from .profiles import goal, model, planned, reason, recipe

COUNT = 1_000_000


def drawn(square, trace, *, micro=4, parts=8, windows=64, size=50, count=COUNT, seed=0):
    """Windows of Gaussian gradients: |G|^2 = `square`, tr(Sigma) = `trace` a sample."""
    chance = random.Random(seed)
    mean, sd = math.sqrt(square / size), math.sqrt(trace / size / micro)
    found = []
    for step in range(windows):
        rows = [[chance.gauss(mean, sd) for _ in range(size)] for _ in range(parts)]
        middle = [sum(column) / parts for column in zip(*rows, strict=True)]
        spread = sum(
            sum((a - b) ** 2 for a, b in zip(row, middle, strict=True)) for row in rows
        ) / (parts - 1)
        found.append(NoiseWindow(step, sum(m * m for m in middle), spread))
    return NoiseTest(
        outcome="ok", micro_batch=micro, parts=parts, count=count, windows=tuple(found)
    )


@pytest.mark.parametrize(("square", "trace"), [(1.0, 10.0), (1.0, 100.0), (0.01, 3.0), (4e6, 1e8)])
def test_the_scale_of_gradients_that_are_known(square, trace):
    found = scales(drawn(square, trace))
    assert found.later.low < trace / square < found.later.high
    assert found.later.expected == pytest.approx(trace / square, rel=0.25)
    assert found.later.high / found.later.low < 5


def test_the_interval_holds_what_is_true_about_as_often_as_it_says():
    held = 0
    for seed in range(40):
        test = drawn(1.0, 40.0, windows=24, size=20, seed=seed)
        found = scale(test, test.windows)
        held += found.low < 40.0 < found.high
    assert held >= 33


def test_both_estimates_are_unbiased():
    test = drawn(1.0, 200.0, windows=600, size=20, micro=2)
    pairs = [estimates(test, window) for window in test.windows]
    assert sum(s for s, _ in pairs) / 600 == pytest.approx(1.0, abs=0.3)
    assert sum(t for _, t in pairs) / 600 == pytest.approx(200.0, rel=0.02)


def test_a_micro_batch_that_is_much_of_the_data_scatters_less():
    """Of N samples b are drawn without replacement: (N - b) / (N - 1) of the scatter."""
    few = NoiseTest(outcome="ok", micro_batch=30, parts=2, count=61)
    many = few.model_copy(update={"count": COUNT})
    window = NoiseWindow(0, 1.0, 0.1)
    assert estimates(many, window)[1] == pytest.approx(3.0, rel=1e-4)
    assert estimates(few, window)[1] == pytest.approx(3.0 * 60 / 31)


def test_gradients_that_are_only_noise_give_no_scale():
    refused = 0
    for seed in range(10):
        found = scales(drawn(1e-12, 100.0, seed=seed))
        refused += found.later is None
    assert refused >= 9
    assert found.why_not == "the gradients are noise: their mean is not told from zero"


def test_too_little_to_say_anything():
    assert "3 steps" in scales(drawn(1.0, 1.0, windows=3)).why_not
    whole = drawn(1.0, 1.0, micro=4, count=4)
    assert scales(whole).why_not == "one micro-batch is the whole dataset: nothing scatters"


def test_it_becomes_a_batch_that_the_data_can_fill():
    def batch(expected, count):
        return batch_for(Scale(0, expected, 0), count)

    assert batch(100, 100_000) == 128
    assert batch(90, 100_000) == 64
    assert batch(0.5, 100_000) == 8
    assert batch(5000, 1437) == 128
    assert batch(5000, 64) == 8
    assert batch(5000, 5) == 5


def test_what_is_measured_with():
    assert sizes(64, 32, 1437) == (8, 8)
    assert sizes(64, 256, 50_000) == (64, 8)
    assert sizes(2, 256, 50_000) == (2, 8)
    assert sizes(8, 8, 6) == (3, 8)
    assert steps_within(0.1, 60) == 64
    assert steps_within(2.0, 60) == 30
    assert steps_within(100.0, 60) == 8


def with_noise(of, **fields):
    return of.model_copy(update={"noise": drawn(1.0, 500.0, **fields)})


MIB = 2**20


def test_the_plan_takes_the_batch_that_was_measured():
    of = with_noise(model(each=MIB, train=10_000))
    before, plan = planned(of=model(each=MIB, train=10_000)), planned(of=of)
    assert plan.batch.global_batch == 512 != before.batch.global_batch
    why = reason(plan, "batch.global_batch")
    assert why.kind == "measured"
    assert "McCandlish" in why.source
    assert "noise scale at " in why.formula
    assert why.beside[-1].value == before.batch.global_batch


def test_a_recipes_batch_gives_way_and_its_rate_follows():
    of = with_noise(model(each=MIB, train=10_000))
    theirs = recipe(**{"batch.global_batch": 32, "optimizer.lr": 1e-3, "optimizer.name": "adamw"})
    plan = planned(of=of, wish=goal(theirs))
    assert plan.batch.global_batch == 512
    assert plan.optimizer.lr == pytest.approx(4e-3)


@pytest.mark.parametrize(
    "user",
    [{"batch.global_batch": 24}, {"batch.micro_batch": 12, "batch.accum_steps": 2}],
)
def test_the_users_own_batch_stays_and_the_measured_one_is_shown_beside(user):
    plan = planned(of=with_noise(model(each=MIB, train=10_000)), wish=goal(**user))
    assert plan.batch.global_batch == 24 == plan.batch.micro_batch * plan.batch.accum_steps
    (shown,) = [b for b in reason(plan, "batch.global_batch").beside if b.value == 512]
    assert shown.why_not == "you set the batch yourself"


def test_what_could_not_be_measured_changes_nothing_and_is_said():
    plain = model(each=MIB, train=10_000)
    failed = plain.model_copy(update={"noise": drawn(1e-12, 100.0)})
    plan = planned(of=failed)
    assert plan.batch == planned(of=plain).batch
    assert "could not be measured" in reason(plan, "batch.global_batch").formula
    assert noise.told(failed.noise).endswith("not told from zero")
