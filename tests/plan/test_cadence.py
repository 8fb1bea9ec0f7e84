"""How often a run logs, evaluates and saves, how much it keeps, and what feeds it."""

from hypothesis import given
from hypothesis import strategies as st

from autotrain.plan import cadence, compute
from autotrain.run.cadence import Cadence
from autotrain.schema import CheckpointSection, EvaluateSection
from autotrain.units import GIB

from .profiles import MIB, device, goal, machine, model, planned, reason


@given(st.floats(0, 1e13), st.floats(0, 1e15), st.integers(1, 50))
def test_what_is_kept_fits_the_disk_with_room_for_the_best_and_the_next(size, free, wanted):
    kept = cadence.keep(size, free, wanted)
    assert 1 <= kept <= wanted
    if kept > 1:
        assert cadence.disk_bytes(size, kept) <= free - GIB + 1


@given(st.floats(1e-6, 1e5), st.integers(1, 10**7))
def test_log_points_are_a_second_apart_and_at_least_fifty_in_a_run(seconds, total):
    every = cadence.log_every(seconds, total)
    assert 1 <= every <= 100
    assert total // every >= min(50, total)
    assert every == 1 or every * seconds <= 1.5


@given(
    st.integers(1, 60), st.integers(1, 40), st.none() | st.integers(1, 70),
    st.none() | st.integers(1, 300),
)  # fmt: skip
def test_occasions_are_as_many_as_the_run_will_take(epochs, per_epoch, by_epochs, by_steps):
    total = epochs * per_epoch
    save = CheckpointSection(every_epochs=by_epochs, every_steps=by_steps, keep=1)
    evaluate = EvaluateSection(every_epochs=1)
    due = Cadence(per_epoch, total, 1, evaluate, save)
    said = cadence.occasions(epochs, per_epoch, by_epochs, by_steps)
    assert said == sum(due.saves(step) for step in range(1, total + 1))


@given(st.floats(1e-4, 1e3), st.floats(1, 1e5))
def test_no_more_work_is_at_stake_than_said(seconds, most):
    steps = cadence.checkpoint_steps(seconds, most)
    assert steps == 1 or steps * seconds <= most * (1 + 1e-9)


def test_a_slow_run_saves_by_steps_too():
    slow = machine(device(rates=device().rates.model_copy(update={"op_seconds": 1.0})))
    plan = planned(slow, model(train=1600))
    step = plan.predicted.step_seconds.expected
    assert plan.checkpoint.every_steps * step <= 15 * 60
    assert planned(of=model(train=1600)).checkpoint.every_steps is None


def test_steps_said_by_the_user_replace_epochs():
    plan = planned(wish=goal(checkpoint__every_steps=500, evaluate__every_steps=250))
    assert (plan.checkpoint.every_steps, plan.checkpoint.every_epochs) == (500, None)
    assert (plan.evaluate.every_steps, plan.evaluate.every_epochs) == (250, None)
    both = planned(wish=goal(checkpoint__every_steps=500, checkpoint__every_epochs=2))
    assert (both.checkpoint.every_steps, both.checkpoint.every_epochs) == (500, 2)


def test_a_small_disk_keeps_fewer_and_says_so():
    plan = planned(machine(disk=1 * GIB + 500 * MIB))
    assert plan.checkpoint.keep == 2
    assert reason(plan, "checkpoint.keep").limited_by == "the disk"


# --- loader --------------------------------------------------------------------------------


@given(
    st.floats(0, 100), st.floats(1e-9, 100), st.floats(0.01, 1), st.integers(1, 200),
    st.integers(0, 200),
)  # fmt: skip
def test_workers_leave_a_core_and_keep_within_the_memory(loading, seconds, share, cores, most):
    workers = compute.loader_workers(loading, seconds, share, cores, most)
    assert 0 <= workers <= min(max(cores - 1, 0), most)
    if loading < 1e-3 or loading < share * seconds:
        assert workers == 0


def test_a_slow_loader_gets_workers_and_a_fast_one_none():
    fast, slow = planned(of=model(sample_seconds=1e-5)), planned(of=model(sample_seconds=0.1))
    assert fast.loader.workers == 0
    assert slow.loader.workers == 3
    assert reason(slow, "loader.workers").limited_by == "cpu.cores"
    assert slow.predicted.device_peak_bytes.low < slow.predicted.device_peak_bytes.expected


def test_workers_shorten_a_step_that_waits_for_data():
    alone = planned(of=model(sample_seconds=0.1), wish=goal(loader__workers=0))
    fed = planned(of=model(sample_seconds=0.1))
    assert fed.predicted.step_seconds.expected < 0.5 * alone.predicted.step_seconds.expected


def test_a_slower_disk_and_a_larger_validation_set_lengthen_the_run():
    def run(of=None, **disk):
        hardware = machine()
        disk = hardware.disk.model_copy(update=disk)
        plan = planned(hardware.model_copy(update={"disk": disk}), of or model())
        return plan.predicted.run_seconds

    assert run(write_bandwidth=1e6).expected > run(write_bandwidth=1e9).expected
    assert run(of=model(valid=5000)).expected > run(of=model(valid=10)).expected
