"""What a trial changes of a plan: figures at the size that was tried, and at every other."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotrain.errors import DoesNotFitError
from autotrain.plan import correction, host
from autotrain.plan.correction import Point, corrected
from autotrain.plan.memory import Setup
from autotrain.schema import Prediction, Trial

from .profiles import GIB, MIB, device, goal, machine, model, planned, reason, trace

RAW = Prediction(low=0.8 * GIB, expected=1.0 * GIB, high=1.5 * GIB)
BASE = 0.5 * GIB


def raw(micro: int) -> Prediction:
    """0.5 GiB and 16 MiB a sample, with 20 % of doubt below and 50 % above."""
    expected = BASE + 16 * MIB * micro
    return Prediction(low=0.8 * expected, expected=expected, high=1.5 * expected)


def point(micro: int, measured: float, **more) -> Point:
    return Point(micro, measured, raw(micro).expected, base=BASE, **more)


def test_without_a_trial_nothing_changes():
    assert corrected(RAW, 8, []) == RAW


def test_at_the_size_tried_the_measured_figure_stands():
    made = corrected(raw(32), 32, [point(32, 1.1 * GIB)])
    assert made.expected == 1.1 * GIB
    assert made.low == pytest.approx(0.98 * 1.1 * GIB - 8 * MIB)
    assert made.high == pytest.approx(1.04 * 1.1 * GIB + 8 * MIB)


def test_elsewhere_what_is_above_the_base_is_multiplied_by_what_proved_true():
    """Predicted 1 GiB, 0.75 GiB measured: half of what had been said above the base."""
    made = corrected(raw(64), 64, [point(32, 0.75 * GIB)])
    assert made.expected == pytest.approx(BASE + 0.5 * 64 * 16 * MIB)


def test_an_untried_size_is_less_certain_than_a_tried_one_and_more_than_before():
    tried = corrected(raw(32), 32, [point(32, 1.0 * GIB)])
    near = corrected(raw(48), 48, [point(32, 1.0 * GIB)])
    alone = raw(48)

    def width(p: Prediction) -> float:
        return (p.high - p.low) / p.expected

    assert width(tried) < width(near) < width(alone)


def test_what_only_a_long_run_comes_to_hold_is_no_part_of_the_least():
    """At a size that was not tried as at one that was."""
    grown = {"more": (0.1 * GIB, 0.4 * GIB)}
    for micro in (32, 48):
        plain = corrected(raw(micro), micro, [point(32, 1.0 * GIB)])
        long = corrected(raw(micro), micro, [point(32, 1.0 * GIB, **grown)])
        assert long.low <= plain.expected - 8 * MIB
        assert long.expected >= plain.expected + 0.1 * GIB


def test_the_nearest_size_counts_and_one_that_accumulates_alike_before_others():
    a, b, c = point(8, 1 * GIB), point(64, 2 * GIB), point(12, 1 * GIB, holds=1)
    assert correction.nearest([a, b, c], 16) == a
    assert correction.nearest([a, b, c], 40) == b
    assert correction.nearest([c], 40) == c


def test_a_size_of_another_sort_is_not_exact():
    found = [point(32, 1.1 * GIB, as_long=False)]
    assert correction.exact(found, 32) is None
    assert corrected(raw(32), 32, found).high > 1.05 * 1.1 * GIB


def test_small_models_are_corrected_by_the_difference():
    """30 MiB above the base predicted, 60 measured: a ratio of 2 would be noise at 4 GiB."""
    near = Point(1, BASE + 60 * MIB, BASE + 30 * MIB, base=BASE)
    made = corrected(raw(200), 200, [near])
    assert made.expected == pytest.approx(raw(200).expected + 30 * MIB)


def test_a_smaller_size_takes_no_more_than_a_larger_one_that_was_measured():
    big = point(32, 1.0 * GIB)
    for micro in range(1, 32):
        assert corrected(raw(micro), micro, [big]).high <= corrected(raw(32), 32, [big]).high


def test_a_larger_size_takes_no_less_than_a_smaller_one_that_was_measured():
    """Also where two trials contradict each other a little, whichever came first."""
    found = [point(32, 1.41 * GIB), point(40, 1.4 * GIB)]
    for order in (found, found[::-1]):
        assert corrected(raw(39), 39, order).expected >= 1.41 * GIB


def test_where_memory_ran_out_more_is_needed_than_was_seen():
    lost = point(32, 1.2 * GIB, at_least=True)
    made = corrected(raw(32), 32, [lost])
    assert made.low == 1.2 * GIB
    assert 1.2 * GIB < made.expected < made.high
    assert corrected(raw(33), 33, [lost]).high >= made.high
    # Half the size: by as much more as where it ran out.
    half = corrected(raw(16), 16, [lost])
    assert half.expected > raw(16).expected
    assert half.high < made.high


@given(
    st.integers(1, 4096),
    st.lists(
        st.builds(
            point,
            st.integers(1, 4096),
            st.floats(BASE, 100 * GIB),
            at_least=st.booleans(),
            as_long=st.booleans(),
            holds=st.integers(-1, 1),
        ),
        max_size=4,
    ),
)
def test_low_expected_and_high_stay_in_order(micro, found):
    made = corrected(raw(micro), micro, found)
    assert 0 <= made.low <= made.expected <= made.high


# --- from a trial ---------------------------------------------------------------------------

SETUP = Setup(8, 1, "fp32", "adamw", "fused", None)


def trial(micro=8, accum=1, outcome="ok", **more) -> Trial:
    fields = {
        "outcome": outcome,
        "device": "cpu",
        "threads": 4,
        "micro_batch": micro,
        "accum_steps": accum,
        "dtype": "fp32",
        "optimizer": "adamw",
        "implementation": "fused",
        "steps": 3,
        "base_bytes": 600 * MIB,
        "device_peak_bytes": int(1.0 * GIB),
        "micro_seconds": 0.2,
        "update_seconds": 0.05,
    }
    return Trial.model_validate(fields | more)


@pytest.mark.parametrize(
    "other",
    [
        {"device": "cuda"},
        {"dtype": "bf16"},
        {"optimizer": "adam"},
        {"implementation": "foreach"},
        {"momentum": 0.9},
        {"outcome": "timed_out"},
        {"outcome": "failed"},
        {"outcome": "not_finite"},
    ],
)
def test_a_trial_of_other_settings_or_that_failed_says_nothing(other):
    assert correction.relevant([trial()], device(), SETUP) == [trial()]
    assert correction.relevant([trial(**other)], device(), SETUP) == []


def test_of_buckets_the_one_that_needs_most_stands_for_the_trial():
    made = trial(micro=4, accum=2, buckets=[[100.0, 16], [900.0, 4]])

    def predict(setup: Setup) -> Prediction:
        bytes_needed = GIB * setup.micro_batch * setup.length / 1600
        return Prediction(low=0, expected=bytes_needed, high=2 * bytes_needed)

    setup = SETUP._replace(micro_batch=4, accum_steps=2, length=900.0)
    (found,) = correction.points([made], setup, "device_peak_bytes", predict)
    assert (found.micro_batch, found.alike, found.predicted) == (4, True, 2.25 * GIB)


def test_what_was_seen_where_memory_ran_out_makes_no_prediction_smaller():
    lost = trial(outcome="out_of_memory", device_peak_bytes=1)
    (found,) = correction.points([lost], SETUP, "device_peak_bytes", lambda _: RAW)
    assert found.measured == RAW.expected


def test_a_long_run_holds_more_than_a_trials_few_steps_and_no_more_than_was_predicted():
    def tried(measured, **more) -> Prediction:
        made = trial(**{"base_bytes": int(BASE), "device_peak_bytes": measured} | more)
        (found,) = correction.points([made], SETUP, "device_peak_bytes", lambda _: RAW)
        return found.known()

    for measured in (600 * MIB, 900 * MIB, int(1.4 * GIB), int(RAW.high), 2 * GIB):
        few, long = 1.04 * measured + 8 * MIB, tried(measured)
        assert measured <= long.expected <= max(RAW.high, measured)
        assert long.high >= max(few, min(BASE + 1.3 * (measured - BASE), RAW.high))
        assert long.high <= max(RAW.high, 1.04 * long.expected + 8 * MIB)
        whole = tried(measured, of_run=True)
        assert (whole.expected, whole.high) == (measured, pytest.approx(few))
    assert tried(900 * MIB).expected > 900 * MIB
    # On a GPU blocks of the same sizes come again, and little that stays lies between them.
    assert tried(900 * MIB, base_bytes=0).expected == 900 * MIB


# --- in a plan ------------------------------------------------------------------------------


def on(here=None, trials=(), **user):
    made = model(
        traces=(trace(2, 64 * MIB, 10 * MIB, 16 * MIB), trace(8, 64 * MIB, 10 * MIB, 16 * MIB))
    )
    made = made.model_copy(update={"trials": tuple(trials)})
    settings = {"optimizer.implementation": "fused", "loader.workers": 0} | user
    return planned(machine(here or device(free=4 * GIB)), made, goal(**settings))


def test_a_plan_says_what_was_measured_and_what_had_been_predicted():
    fixed = {"batch.micro_batch": 8, "batch.accum_steps": 1}
    before, after = on(**fixed), on(trials=[trial()], **fixed)
    said = reason(after, "predicted.device_peak_bytes")
    waits = on(trials=[trial()], **fixed, **{"checkpoint.background": False})
    assert waits.predicted.device_peak_bytes.expected == GIB
    copy = after.predicted.device_peak_bytes.expected - GIB
    assert copy == pytest.approx(after.predicted.checkpoint_bytes.expected, rel=0.01)
    assert (said.kind, reason(before, "predicted.device_peak_bytes").kind) == ("measured", "rule")
    assert "a trial at micro_batch 8 took 1 GiB" in said.formula
    assert reason(after, "predicted.step_seconds").kind == "measured"
    assert after.predicted.step_seconds.expected == pytest.approx(0.25, rel=0.2)
    assert after.predicted.tensor_peak_bytes == before.predicted.tensor_peak_bytes


def test_seconds_go_by_the_last_trial_on_as_many_threads():
    fixed = {"batch.micro_batch": 8, "batch.accum_steps": 1, "device.threads": 1}
    of = [trial(), trial(threads=1, micro_seconds=0.9), trial(threads=1, micro_seconds=0.4)]
    step = on(trials=[*of, trial()], **fixed).predicted.step_seconds.expected
    assert step == pytest.approx(0.45, rel=0.1)
    blind = on(**fixed).predicted.step_seconds
    assert on(trials=[trial()], **fixed).predicted.step_seconds == blind


def test_a_trial_does_not_make_it_another_model():
    assert on(trials=[trial()]).inputs.model == on().inputs.model


def test_loader_workers_come_on_top_of_what_was_measured():
    fixed = {"batch.micro_batch": 8, "batch.accum_steps": 1}
    without = on(trials=[trial()], **fixed)
    with_two = on(trials=[trial()], **fixed, **{"loader.workers": 2})
    more = (
        with_two.predicted.device_peak_bytes.expected - without.predicted.device_peak_bytes.expected
    )
    assert more > 100 * MIB


def test_a_trial_that_took_less_makes_room_and_one_that_ran_out_takes_it():
    wide = {"batch.global_batch": 1024}
    alone = on(**wide).batch.micro_batch
    little = trial(micro=alone, accum=2, device_peak_bytes=int(1.5 * GIB))
    lost = trial(micro=alone, accum=2, outcome="out_of_memory", device_peak_bytes=int(4 * GIB))
    assert on(trials=[little], **wide).batch.micro_batch > alone
    assert on(trials=[lost], **wide).batch.micro_batch < alone


@settings(max_examples=40)
@given(st.integers(1, 512), st.integers(700, 60000), st.integers(1, 40))
def test_the_high_end_is_within_the_budget_whatever_was_tried(micro, took, free):
    tried = trial(micro=micro, accum=2, device_peak_bytes=took * MIB)
    here = device(free=free * GIB)
    try:
        made = on(here, [tried], **{"batch.global_batch": 512})
    except DoesNotFitError:
        return
    assert made.predicted.device_peak_bytes.high <= made.memory.budget_bytes


@pytest.mark.parametrize("trials", [(), (trial(),)], ids=["untried", "tried"])
def test_a_stage_is_planned_beside_what_those_before_it_leave_in_the_process(trials):
    """A trial has a process of its own, so what it measured lacks that as well."""
    made = model(traces=(trace(2, 64 * MIB, 10 * MIB, 16 * MIB),)).model_copy(
        update={"trials": tuple(trials)}
    )
    later = made.model_copy(update={"follows": 2})
    settings = {"optimizer.implementation": "fused", "batch.micro_batch": 8}
    here = machine(device(free=4 * GIB))
    first, second = (
        planned(here, each, goal(**settings)).predicted.device_peak_bytes for each in (made, later)
    )
    assert second.expected - first.expected == pytest.approx(180 * MIB)
    assert second.high - first.high == pytest.approx(180 * MIB)
    assert second.low == first.low


@pytest.mark.parametrize("free", [4, 2.2])
def test_a_stage_takes_no_less_than_malloc_keeps_of_the_one_before_it(free):
    """And never more than the budget because of that."""
    small = model(traces=(trace(2, 64 * MIB, 10 * MIB, 16 * MIB),))
    kept = Prediction(low=1000 * MIB, expected=1500 * MIB, high=1750 * MIB)
    here = machine(device(free=free * GIB))
    wish = goal(**{"batch.micro_batch": 8})
    alone = planned(here, small, wish)
    made = planned(here, small.model_copy(update={"follows": 1, "peak_before": kept}), wish)
    peak, budget = made.predicted.device_peak_bytes, made.memory.budget_bytes
    assert alone.predicted.device_peak_bytes.high < kept.expected
    assert peak.low == alone.predicted.device_peak_bytes.low
    assert kept.expected < peak.expected < kept.expected + 100 * MIB
    assert peak.high == min(kept.high + 90 * MIB, budget)
    assert made.batch == alone.batch
    why = reason(made, "predicted.device_peak_bytes").formula
    assert "no less than malloc keeps of the stage before, which took up to 1.71 GiB" in why


@pytest.mark.parametrize(
    ("more", "kept"),
    [({}, True), ({"device__keep_freed": False}, False),
     ({"model__activation_checkpointing": True}, False)],
)  # fmt: skip
def test_a_stage_leaves_its_peak_where_malloc_keeps_what_is_freed(more, kept):
    plan = planned(machine(device(free=4 * GIB)), wish=goal(**more))
    assert host.kept_of(plan) == (plan.predicted.device_peak_bytes if kept else None)


def test_a_stage_on_a_graphics_card_leaves_nothing_of_it():
    assert host.kept_of(planned(machine(device("cuda", 4 * GIB)))) is None
