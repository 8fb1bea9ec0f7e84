"""What runs that ended here change of the next plan's seconds."""

import pytest

from autotrain.plan import compute, runs
from autotrain.plan.compute import LOOP_SECONDS
from autotrain.plan.correction import NEAR_SPREAD, TRIED_SPREAD
from autotrain.plan.memory import Setup
from autotrain.schema import Trial

from .profiles import GIB, goal, machine, model, planned, reason

SETUP = Setup(32, 1, "fp32", "adamw", "fused", None)
BASE = {
    "outcome": "ok", "device": "cpu", "threads": 4, "accum_steps": 1, "dtype": "fp32",
    "optimizer": "adamw", "implementation": "fused",
}  # fmt: skip


def micro(setup: Setup) -> float:
    return 1e-3 * setup.micro_batch


def ran(step: float, micro_batch: int = 32, **more) -> Trial:
    fields = {"micro_batch": micro_batch, "of_run": True, "steps": 100}
    fields |= {"step_seconds": step, "micro_batches": 1.0}
    return Trial.model_validate(BASE | fields | more)


def tried(micro_seconds: float, micro_batch: int = 32) -> Trial:
    fields = {"micro_batch": micro_batch, "micro_seconds": micro_seconds, "update_seconds": 0.002}
    return Trial.model_validate(BASE | fields)


def step(pace: runs.Pace, size: int = 32, update: float = 0.002) -> float:
    return (
        pace.micro * micro(SETUP._replace(micro_batch=size)) + pace.update * update + LOOP_SECONDS
    )


def test_without_any_nothing_changes():
    assert runs.pace([], SETUP, micro, 0.002) == runs.Pace()


def test_the_same_settings_take_what_the_run_took():
    found = runs.pace([ran(0.05)], SETUP, micro, 0.002)
    assert step(found) == pytest.approx(0.05)
    assert found.spread == TRIED_SPREAD


def test_micro_batches_of_a_step_are_counted():
    found = runs.pace([ran(0.1, micro_batches=3.0, accum_steps=2)], SETUP, micro, 0.002)
    assert 3 * found.micro * 0.032 + found.update * 0.002 + LOOP_SECONDS == pytest.approx(0.1)


def test_the_median_of_the_last_three_so_that_one_odd_run_does_not_decide():
    odd = [ran(0.9), ran(0.05), ran(0.5), ran(0.04)]
    assert step(runs.pace(odd, SETUP, micro, 0.002)) == pytest.approx(0.05)
    assert (
        "the last 3 runs here at micro_batch 32 took 50 ms"
        in runs.pace(odd, SETUP, micro, 0.002).said
    )


def test_at_another_size_the_ratio_holds_with_more_doubt():
    found = runs.pace([ran(2 * 0.034 + LOOP_SECONDS)], SETUP._replace(micro_batch=64), micro, 0.002)
    assert found.micro == pytest.approx(2.0)
    assert found.spread == NEAR_SPREAD


def test_the_nearest_size_decides_and_of_equal_ones_the_run():
    both = [tried(0.064, 32), ran(0.05, 32)]
    assert step(runs.pace(both, SETUP, micro, 0.002)) == pytest.approx(0.05)
    near = runs.pace([ran(0.05, 8), tried(0.064, 32)], SETUP, micro, 0.002)
    assert near.micro == pytest.approx(2.0)
    assert near.said.startswith("a trial at micro_batch 32")


def test_a_run_whose_times_do_not_count_leaves_the_trial_in_force():
    loaded = ran(0.05).model_copy(update={"step_seconds": None, "device_peak_bytes": GIB})
    assert runs.pace([tried(0.064), loaded], SETUP, micro, 0.002).micro == pytest.approx(2.0)


def test_what_lies_beside_the_steps_is_the_median_of_those_that_know_it():
    found = runs.pace(
        [ran(0.05, save_seconds=2.0, start_seconds=3.0), ran(0.05, 64, save_seconds=4.0)],
        SETUP, micro, 0.002,
    )  # fmt: skip
    assert found.save_seconds == 3.0
    assert found.start_seconds == 3.0
    assert found.evaluation_seconds is None


def test_a_plan_is_corrected_in_all_that_a_run_takes():
    alone = planned(of=model())
    seen = ran(
        0.5, alone.batch.micro_batch, device_peak_bytes=2 * GIB, base_bytes=GIB,
        sample_seconds=1e-4, evaluation_seconds=0.01, save_seconds=7.0, start_seconds=9.0,
        implementation=alone.optimizer.implementation, micro_batches=float(alone.batch.accum_steps),
        accum_steps=min(alone.batch.accum_steps, 2), momentum=alone.optimizer.momentum,
        dtype=alone.precision.dtype, optimizer=alone.optimizer.name,
    )  # fmt: skip
    same = goal(**{"batch.micro_batch": alone.batch.micro_batch})
    made = planned(of=model(trials=(seen,)), wish=same)
    loading = alone.batch.micro_batch * alone.batch.accum_steps * 1e-4
    assert made.loader.workers == 0
    assert made.predicted.step_seconds.expected == pytest.approx(0.5 + loading)
    assert made.predicted.device_peak_bytes.expected == pytest.approx(2 * GIB, rel=0.05)
    why = reason(made, "predicted.step_seconds")
    assert why.kind == "measured"
    assert "the last run here at micro_batch" in why.formula
    said = reason(made, "predicted.run_seconds").formula
    assert "start 9 s" in said
    assert "evaluations x 1 s" in said  # 100 samples of 10 ms
    assert "the best x 7 s" in said
    assert reason(made, "predicted.device_peak_bytes").formula.startswith("a run at micro_batch")


def test_start_seconds_are_the_rule_s_until_a_run_has_told():
    cpu = machine().devices[0]
    assert runs.start_seconds(runs.Pace(), cpu).expected == compute.START_SECONDS
    assert runs.start_seconds(runs.Pace(start_seconds=3.0), cpu).expected == 3.0
