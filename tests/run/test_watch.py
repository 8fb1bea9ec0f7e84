"""Red flags: silence over healthy runs, one word over sick ones, the same after a resume."""

import json
import math
import random
from dataclasses import asdict
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from autotrain.rates import is_error_rate
from autotrain.run.standing import RunState
from autotrain.run.watching.flags import AT_LOG_POINTS, FINE
from autotrain.run.watching.history import FIRST, KEPT, History
from autotrain.trends import most_fall, trend, wobble

from .watching import Watched, a_plan

FALLING = {
    "floor": st.floats(0.0, 5.0),
    "height": st.floats(0.5, 5.0),
    "power": st.floats(0.2, 1.0),
}
SEEDS = st.integers(0, 2**32)


def curve(floor, height, power):
    return lambda step: floor + height * step**-power


# --- silence -------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40, derandomize=True)
@given(**FALLING, noise=st.floats(0, 0.2), gap=st.floats(1.0, 1.5), seed=SEEDS)
def test_a_run_that_learns_under_a_falling_rate_is_told_nothing(
    floor, height, power, noise, gap, seed
):
    """Power laws of any floor and noise, by cosine to zero; the validation above the training."""
    train = curve(floor, height, power)
    run = Watched()
    run.epochs(
        60, train, lambda step: gap * train(step), noise=noise, seed=seed,
        lr=lambda step: 1e-2 * (1 + math.cos(math.pi * step / 3000)) / 2,
    )  # fmt: skip
    assert [m for m in run.messages if "plateau" not in m] == []
    flat = train(100) - train(1500) < 0.1 * train(100)
    assert flat or run.messages == []


@settings(deadline=None, max_examples=40, derandomize=True)
@given(seed=SEEDS, noise=st.floats(0.01, 0.2))
def test_a_validation_that_only_wobbles_is_not_overfitting(seed, noise):
    run = Watched()
    valid = lambda step: 0.5 + 2 * math.exp(-step / 300)  # noqa: E731
    run.epochs(60, curve(0.3, 2, 0.3), valid, noise=noise, seed=seed)
    assert not [m for m in run.messages if "overfitting" in m]


@settings(deadline=None, max_examples=40, derandomize=True)
@given(seed=SEEDS)
def test_speed_waits_and_norms_that_scatter_are_told_nothing(seed):
    """Log-normal times and norms, waits of up to 20 %, single outliers of a hundred times."""
    draw, run = random.Random(seed), Watched(a_plan(clip_norm=1.0))
    for _ in range(200):
        slow = 100 if draw.random() < 0.02 else 1
        run.log(
            1.0 / (1 + run.step), grad_norm=slow * math.exp(draw.gauss(0, 0.7)),
            step_seconds=slow * 60 * math.exp(draw.gauss(0, 0.3)),
            wait_seconds=slow * 5 * draw.random(),
        )  # fmt: skip
    assert run.messages == []


def test_an_empty_history_raises_no_flag_and_no_error():
    run = Watched()
    run.evaluate(math.nan, wer=math.nan)
    run.log(math.nan, [math.nan], grad_norm=math.nan)
    run.log(1.0, step_seconds=0.0)
    run.evaluate(1.0)
    assert run.messages == []


# --- what is learned -----------------------------------------------------------------------------


def overfit(**more):
    """Validation at its best after 10 epochs, then 3 % worse with each."""
    run = Watched(**more)
    best = lambda step: 0.5 * (1 + 0.03 * abs(step - 500) / 50)  # noqa: E731
    run.epochs(30, curve(0.0, 2, 0.5), best, noise=0.01)
    return run


def test_overfitting_is_told_once_with_its_epoch_and_figures():
    run = overfit()
    (told,) = run.told
    epoch = int(told.message.split("epoch ")[1].split(":")[0])
    assert 8 <= epoch <= 12
    assert told.step <= 22 * 50
    assert "while the training loss falls" in told.message
    assert "early_stop.patience" in told.advice
    assert "patience" not in overfit(plan=a_plan(early_stop={"patience": 50})).told[0].advice


def test_a_rise_while_the_training_loss_stands_still_is_not_overfitting():
    run = Watched()
    run.epochs(30, lambda _: 1.0, lambda step: 0.5 * (1 + 0.03 * abs(step - 500) / 50), noise=0.02)
    assert not [m for m in run.messages if "overfitting" in m]


def test_no_overfitting_before_samples_are_seen_again():
    """Ten evaluations within one epoch: there is nothing that could be known by heart."""
    run = Watched()
    for n in range(20):
        run.log(2.0 - 0.05 * n)
        run.evaluate(0.5 * (1 + 0.1 * n))
        run.step -= 9  # 20 evaluations within 30 steps
    assert run.messages == []


@pytest.mark.parametrize("better", ["lower", "higher"])
def test_a_monitored_figure_that_still_improves_is_no_overfitting(better):
    """The loss of a classifier that grows too sure of itself, while it gets more answers right."""
    sign = 1 if better == "higher" else -1
    run = Watched(better=better)
    for n in range(30):
        run.logs(5, 2.0 / (n + 1))
        run.evaluate(0.5 + 0.05 * n, monitored=0.7 + sign * 0.005 * n)
    assert run.messages == []
    for n in range(30, 50):
        run.logs(5, 2.0 / (n + 1))
        run.evaluate(0.5 + 0.05 * n, monitored=0.7 + sign * 0.02 * (35 - n))
    assert "overfitting" in run.messages[0]
    shown = run.messages[0].split("from ")[1]
    assert not shown.startswith("-")


def wandering(seed, *, rises):
    """Validation noise of 1 to 20 % that keeps up to nine tenths of itself; with a rise, to 5 %."""
    draw, run, wander = random.Random(seed), Watched(), 0.0
    size = math.exp(draw.uniform(math.log(0.01), math.log(0.05 if rises else 0.2)))
    keeps = draw.choice([0.0, 0.5, 0.8, 0.9])
    train = curve(0.3, 2, 0.3)
    for epoch in range(30 if rises else 60):
        run.logs(5, train(run.step + 25) * (1 + 0.03 * draw.gauss(0, 1)))
        wander = keeps * wander + math.sqrt(1 - keeps**2) * draw.gauss(0, 1)
        level = 0.5 + 2 * math.exp(-epoch / 2 if rises else -epoch / 6)
        run.evaluate(level * (1 + rises * epoch) * (1 + size * wander))
    return any("overfitting" in message for message in run.messages)


def test_figures_that_wander_are_rarely_taken_for_overfitting_and_real_ones_nearly_always():
    """What the comment at RISES says."""
    assert sum(wandering(seed, rises=0.0) for seed in range(60)) <= 5
    assert sum(wandering(seed, rises=0.03) for seed in range(60)) >= 57


def test_a_new_best_takes_the_flag_down_and_it_can_rise_again():
    run = overfit()
    run.log()
    run.evaluate(0.1)
    assert "overfitting" not in run.history.told
    run.epochs(30, curve(0.0, 2, 0.7), lambda step: 0.1 * (1 + 0.001 * (step - 1500)), noise=0.01)
    assert len([m for m in run.messages if "overfitting" in m]) == 2


def test_a_plateau_is_told_once_where_the_rate_is_high_and_something_is_left():
    flat = lambda step: 0.5 + 2 * math.exp(-step / 100)  # noqa: E731
    run = Watched()
    run.epochs(60, flat, flat, noise=0.01)
    (message,) = run.messages
    assert message.startswith("a plateau: neither loss has fallen by 1 % since step")
    low = Watched()
    low.epochs(60, flat, flat, noise=0.01, lr=lambda step: 1e-2 if step < 500 else 5e-3)
    assert low.messages == []
    learned = Watched()
    done = lambda step: 1e-3 + 2 * math.exp(-step / 100)  # noqa: E731
    learned.epochs(60, done, done, noise=0.01)
    assert learned.messages == []


def test_a_stall_of_less_than_500_steps_says_nothing():
    """However many evaluations fall into it."""
    run = Watched()
    for n in range(50):
        run.log(0.5 + 2.0 * (n < 3))
        run.evaluate(0.5 + 2.0 * (n < 3))
    assert run.messages == []
    for _ in range(60):
        run.log(0.5)
        run.evaluate(0.5)
    assert len(run.messages) == 1


def test_a_stall_shorter_than_half_of_the_run_says_nothing():
    """The loss fell to its half within 1500 steps: 700 more without a fall may be a saddle."""
    run = Watched()
    stalling = lambda step: max(2.0 - step / 1500, 1.0)  # noqa: E731
    run.epochs(44, stalling, stalling, noise=0.005)
    assert run.messages == []
    run.epochs(40, stalling, stalling, noise=0.005)
    assert len(run.messages) == 1


def test_what_falls_slowly_is_no_plateau():
    run = Watched()
    slow = curve(0.3, 2, 0.1)  # 3 to 6 % from each half to the next
    run.epochs(60, slow, slow, noise=0.02)
    assert run.messages == []


def test_a_loss_that_never_falls_is_told_and_one_that_falls_late_is_not_again():
    run = Watched()
    run.epochs(8, lambda _: 2.3, lambda _: 2.3, noise=0.02)
    (told,) = run.told
    assert "the training loss is 2.3" in told.message
    assert "at the start" in told.message
    assert 200 <= told.step <= 250
    falling = lambda step: 2.3 - min(1.5, (step - 400) / 400)  # noqa: E731
    run.epochs(8, falling, falling, noise=0.02)
    assert len(run.told) == 1
    assert "not learning" not in run.history.told


def test_a_loss_that_fell_within_the_first_steps_has_been_learned():
    """Also where the first log point comes long after."""
    run = Watched()
    fast = lambda step: 0.5 + 2 * math.exp(-step / 2)  # noqa: E731
    run.epochs(12, fast, fast, noise=0.01, lr=lambda _: 1e-3)
    assert run.messages == []


# --- the machine -----------------------------------------------------------------------------


def waiting(run, share, count=6, seconds=60.0):
    run.logs(count, wait_seconds=share * seconds, step_seconds=seconds)


@pytest.mark.parametrize(
    ("workers", "cores", "advice"),
    [(2, 8, "loader.workers = 4; the plan has 2"), (0, 8, "loader.workers = 1; the plan has 0"),
     (2, 4, "no free core"), (2, None, "loader.workers = 4; the plan has 2")],
)  # fmt: skip
def test_waiting_for_data_is_told_with_the_workers_that_would_end_it(workers, cores, advice):
    inputs = {"hardware": "", "dataset": "", "model": "", "cores": cores}
    run = Watched(a_plan(loader={"workers": workers}, inputs=inputs))
    waiting(run, 0.4, count=5)
    assert run.messages == []
    waiting(run, 0.4)
    (told,) = run.told
    assert told.message == "40 % of the time goes by waiting for data"
    assert advice in told.advice


def test_where_the_model_needs_the_cores_that_load_a_wait_is_told_late():
    """Four threads on four cores, no worker: the plan knew that loading would take its part."""
    inputs = {"hardware": "", "dataset": "", "model": "", "cores": 4}
    run = Watched(a_plan(device={"threads": 4}, loader={"workers": 0}, inputs=inputs))
    waiting(run, 0.35)
    assert run.messages == []
    waiting(run, 0.5)
    (told,) = run.told
    assert "takes turns with the model" in told.advice


def test_a_wait_that_costs_less_than_a_minute_is_not_worth_a_word():
    run = Watched()
    waiting(run, 0.4, seconds=1e-3)
    assert run.messages == []


def test_a_wait_is_told_again_only_after_it_was_clearly_gone():
    run = Watched()
    for share in (0.3, 0.15, 0.3):
        waiting(run, share)
    assert len(run.told) == 1
    for share in (0.05, 0.3):
        waiting(run, share)
    assert len(run.told) == 2


def test_half_the_speed_is_told_with_what_the_sensors_say():
    run = Watched()
    run.logs(10, step_seconds=10.0)
    run.logs(4, step_seconds=25.0, others_cpu=0.6)
    assert run.messages == []
    run.logs(4, step_seconds=25.0, others_cpu=0.6)
    (message,) = run.messages
    assert message == (
        "0.32 samples a second, where 0.8 were usual: other programs take 60 % of the cores"
    )


def test_a_speed_that_was_seen_before_is_usual():
    """Long samples come in micro-batches of their own: every seventh point is as slow."""
    run = Watched()
    for n in range(60):
        run.log(step_seconds=25.0 if n % 7 == 0 else 10.0)
    run.logs(5, step_seconds=25.0)
    assert run.messages == []
    run.logs(5, step_seconds=26.0)
    assert len(run.told) == 1


def test_a_gpu_that_slows_itself_down_is_told_once_with_its_temperature():
    run = Watched()
    for n in range(40):
        hot = "thermal slowdown" if n in (2, 5, 6, 7, 8, 12, 13, 14) else None
        run.log(gpu_slowed=hot, gpu_celsius=91.0)
    assert run.messages == ["the GPU slows itself down at 91 C: thermal slowdown"]
    run.logs(KEPT // 2)
    assert "heat" not in run.history.told


@pytest.mark.parametrize(
    ("kind", "peak", "told"), [("cpu", 700, True), ("cpu", 600, False), ("cuda", 600, True)]
)
def test_memory_above_the_prediction_and_near_the_budget_is_told(kind, peak, told):
    """A CPU's is held against the process's prediction, a GPU's against the allocator's."""
    size = lambda high: {"low": 1, "expected": 2, "high": high}  # noqa: E731
    plan = a_plan(
        device={"kind": kind}, memory={"budget_bytes": 1000},
        predicted={"device_peak_bytes": size(650), "reserved_peak_bytes": size(550)},
    )  # fmt: skip
    run = Watched(plan)
    run.logs(3, peak_bytes=peak)
    assert len(run.told) == told
    calm = Watched(a_plan(memory={"budget_bytes": 1500}, predicted=plan.predicted.model_dump()))
    calm.logs(3, peak_bytes=peak)
    assert calm.messages == []


# --- gradients -----------------------------------------------------------------------------------


def test_exploding_gradients_are_told_with_a_norm_to_clip_at():
    run = Watched()
    run.logs(10, 1.0, grad_norm=0.5)
    run.logs(3, 1.2, grad_norm=80.0)
    assert run.messages == ["the gradient norm is 80, where 0.5 was usual"]
    assert run.told[0].advice == "optimizer.clip_norm = 0.5"
    better = Watched()
    better.logs(10, 1.0, grad_norm=0.5)
    better.logs(3, 0.8, grad_norm=80.0)
    assert better.messages == []


def test_gradients_that_reach_nothing_are_told_unless_all_is_learned():
    run = Watched()
    run.logs(3, 1.0, grad_norm=0.0)
    assert run.messages == ["the gradient norm is 0: nothing reaches the weights"]
    learned = Watched()
    learned.log(1.0)
    learned.logs(5, 0.005, grad_norm=1e-9)
    assert learned.messages == []


@pytest.mark.parametrize(
    ("name", "clip", "told"), [("sgd", 1.0, True), ("adamw", 1.0, False), ("sgd", None, False)]
)
def test_steps_of_a_clipped_length_only_are_told_where_the_optimizer_minds(name, clip, told):
    run = Watched(a_plan(name=name, clip_norm=clip))
    for n in range(60):
        run.log(1.0 - 0.01 * n, grad_norm=0.5 if n == 30 else 30.0)
    assert (run.messages != []) == told
    if told:
        assert run.messages == ["gradients are clipped nearly always, from 30 to 1"]


# --- measures ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "is_one"),
    [("wer", True), ("CER", True), ("valid_wer", True), ("wer/greedy", True), ("power", False),
     ("accuracy", False), ("cerebral", False), ("answered", False)],
)  # fmt: skip
def test_an_error_rate_is_known_by_a_word_of_its_name(name, is_one):
    assert is_error_rate(name) == is_one


def test_more_errors_than_words_three_times_in_a_row_is_a_reason_to_look():
    run = Watched()
    for wer in (1.4, 1.0, 1.2, 1.3, 1.0, 1.1, 1.1, 1.1, 1.1):
        run.log()
        run.evaluate(wer=wer, accuracy=3.0)
    (message,) = run.messages
    assert message.startswith("wer is 110 %")
    run.evaluate(wer=0.9)
    assert "error rates" not in run.history.told


def test_outputs_that_loop_are_told():
    run = Watched()
    for share in (0.3, 0.3, 0.25, 0.3):
        run.log()
        run.evaluate(repeated=share, wer=share)
    assert run.messages == ["25 % of the outputs repeat themselves"]
    for _ in range(3):
        run.log()
        run.evaluate(repeated=0.3, wer=1.5)
    assert len(run.messages) == 2


# --- a history that lasts ------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(cut=st.integers(1, 29), seed=SEEDS)
def test_a_resumed_run_is_told_the_same(cut, seed):
    """Through the JSON of a checkpoint, at any epoch."""
    plain, resumed = Watched(), Watched()
    train, valid = curve(0.0, 2, 0.5), lambda step: 0.5 * (1 + 0.0006 * abs(step - 500))
    for run in (plain, resumed):
        run.epochs(cut, train, valid, noise=0.01, seed=seed)
        if run is resumed:
            run.saved()
        run.epochs(30 - cut, train, valid, noise=0.01, seed=seed + 1)
    assert plain.messages == resumed.messages
    assert plain.history == resumed.history


def test_a_history_is_bounded_and_fits_in_a_checkpoint():
    run = Watched()
    run.epochs(300, curve(0.1, 2, 0.5), curve(0.2, 2, 0.5))
    sizes = {len(v) for v in asdict(run.history).values() if isinstance(v, list)}
    assert max(sizes) == KEPT
    assert len(run.history.first) == FIRST
    assert len(json.dumps(asdict(run.history))) < 16_000


def test_a_run_state_takes_its_history_back_from_json():
    state = RunState(step=3, history=History(first=[1.0], told=["plateau"]))
    assert TypeAdapter(RunState).validate_python(json.loads(json.dumps(asdict(state)))) == state


def test_the_mean_training_loss_between_evaluations_is_by_weight():
    run = Watched()
    run.log(1.0, weight=1.0)
    run.log(4.0, weight=2.0)
    run.evaluate(1.0)
    run.log(5.0, weight=7.0)
    run.evaluate(1.0)
    assert run.history.trained == [3.0, 5.0]


# --- trends --------------------------------------------------------------------------------------


@given(st.lists(st.floats(-1e6, 1e6), min_size=4, max_size=20), st.floats(0.1, 10))
def test_a_trend_is_of_order_alone_and_turns_with_the_sign(values, times):
    assert trend(values) == pytest.approx(-trend(values[::-1]))
    assert trend(sorted(values)) >= trend(values)
    assert trend([1000.0 if v == max(values) else 0.0 for v in values]) <= 3


def test_ten_figures_that_only_rise_are_four_deviations():
    assert trend(range(10)) == pytest.approx(4.02, abs=0.01)
    assert trend([1.0] * 10) == 0


def test_noise_is_told_from_a_trend_and_from_an_outlier():
    draw = random.Random(3)
    noisy = [0.01 * n + draw.gauss(0, 1) for n in range(2000)]
    assert wobble(noisy) == pytest.approx(1.0, rel=0.08)
    noisy[500] = 1e6
    assert wobble(noisy) == pytest.approx(1.0, rel=0.08)
    assert wobble([1.0, 2.0]) == 0.0


def test_the_most_a_loss_may_have_fallen_covers_what_it_did_fall():
    """In 19 of 20 cases or more, as two standard errors promise."""
    draw, held = random.Random(5), 0
    for _ in range(400):
        values = [2.0 - 0.002 * n + draw.gauss(0, 0.05) for n in range(20)]
        true = (fmean([2.0 - 0.002 * n for n in range(10)]) - 2.0 + 0.002 * 14.5) / 1.991
        held += most_fall(values) >= true
    assert held >= 380 * 0.97
    assert most_fall([0.0, 0.0, 1.0, 1.0]) == math.inf


def test_every_flag_at_log_points_can_say_that_all_is_well_or_never_needs_to():
    """A flag that could not come down again would be told once in a run's life."""
    run = Watched(a_plan(clip_norm=1.0, name="sgd"))
    run.logs(60, step_seconds=10.0, grad_norm=1.0)
    from autotrain.run.watching.flags import Seen

    seen = Seen(run.history, run.plan, run.way)
    told = {name: rule(seen) for name, rule in AT_LOG_POINTS.items()}
    assert {name for name, verdict in told.items() if verdict != FINE} <= {"memory"}
