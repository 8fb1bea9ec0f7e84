"""Cores that a model on a CPU leaves to its loader."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotrain.schema import Race, Raced, Variant

from .profiles import device, goal, machine, model, planned, rates, reason
from .triples import faster


def plan_of(cores=16, wish=None, of=None, **traits):
    traits = {"sample_seconds": 0.002, "sample_bytes": 10**9} | traits
    return planned(machine(cores=cores), of or model(**traits), wish or goal(batch__micro_batch=32))


def step(plan):
    return plan.predicted.step_seconds.expected


def test_loading_that_computes_gets_cores_of_its_own():
    plan = plan_of()
    whole = plan_of(wish=goal(batch__micro_batch=32, device__threads=16))
    assert plan.device.threads < 16
    assert plan.device.threads + plan.loader.workers <= 16
    assert step(plan) < 0.85 * step(whole)
    said = reason(plan, "device.threads")
    assert said.value == plan.device.threads
    assert said.formula.startswith("loading has the other cores to itself: the model takes ")
    assert "(computed)" in said.formula
    assert said.would_change == "--set device.threads=16"


@pytest.mark.parametrize(
    "traits",
    [
        {"waiting_seconds": 0.002},  # waits, and takes no core
        {"sample_seconds": 1e-6},  # takes next to nothing
        {"sample_bytes": 1000, "steady": True},  # stays in memory once it was read
    ],
)
def test_other_loading_leaves_the_model_all_of_them(traits):
    plan = plan_of(**traits)
    assert plan.device.threads == 16
    assert reason(plan, "device.threads").formula == "16 cores it has"


def test_samples_known_to_be_the_same_each_time_are_read_once_where_the_run_is_shorter_for_it():
    def made(steady, **traits):
        wish = goal(batch__micro_batch=32, **traits)
        return plan_of(sample_bytes=1000, steady=steady, wish=wish)

    once, again = made(True), made(False)
    assert (once.loader.keep, once.loader.workers, once.device.threads) == ("ram", 0, 16)
    assert again.loader.workers > 0
    assert step(once) < step(again)
    assert reason(once, "loader.workers").formula.startswith("samples are the same at each reading")
    assert made(True, train__epochs=1).loader.workers > 0
    asked = made(True, loader__workers=2)
    assert asked.loader.workers == 2


def test_threads_and_workers_that_were_set_stay_and_the_rest_follows():
    assert plan_of(wish=goal(device__threads=16)).device.threads == 16
    alone = plan_of(wish=goal(batch__micro_batch=32, loader__workers=0))
    assert (alone.device.threads, alone.loader.workers) == (16, 0)
    four = plan_of(wish=goal(batch__micro_batch=32, loader__workers=4))
    assert four.device.threads in range(8, 16)
    assert four.loader.workers == 4
    assert plan_of(wish=goal(batch__world_size=4)).device.threads == 16
    assert plan_of(cores=1).device.threads == 1


def test_on_a_gpu_the_loader_has_the_cores_anyhow():
    gpu = planned(machine(device("cuda", 2**33), cores=4), model(sample_seconds=0.002))
    assert gpu.device.threads == 4


@pytest.mark.parametrize(("slower", "threads"), [(1.2, 1), (3.2, 2)])
def test_a_race_says_what_fewer_threads_cost_the_model(slower, threads):
    """Loading as long as the model: 2 after one another, and what it takes on one thread apart."""
    first = plan_of(cores=2, sample_seconds=0.0)
    of = model(sample_bytes=10**9)
    each = step(first) / 32
    ways = (Raced(Variant("fp32", "contiguous", n), micro, 1e-3)
            for n, micro in ((2, 0.1), (1, 0.1 * slower)))  # fmt: skip
    race = Race(outcome="ok", micro_batch=32, accum_steps=1, rounds=5, runs=tuple(ways))
    of = of.model_copy(update={"sample_seconds": each, "race": race})
    plan = plan_of(cores=2, of=of, wish=goal(batch__micro_batch=32, precision__dtype="fp32"))
    assert plan.device.threads == threads
    if threads == 1:
        assert "(raced)" in reason(plan, "device.threads").formula


@given(st.floats(1e-5, 1e-1), st.floats(0, 1), st.sampled_from([2, 4, 8, 16, 64]))
def test_a_faster_machine_never_takes_longer_and_no_plan_longer_than_with_all_threads(
    seconds, waits, cores
):
    of = model(sample_seconds=seconds, waiting_seconds=waits * seconds, sample_bytes=10**9)
    before = None
    for power in range(0, 24, 3):
        own = faster(device("cpu", native_dtypes=("fp32",), rates=rates(5e-4)), 1.3**power)
        there = machine(own, cores=cores)
        plan = planned(there, of, goal(batch__micro_batch=32))
        whole = planned(there, of, goal(batch__micro_batch=32, device__threads=cores))
        assert step(plan) <= step(whole) * 1.021
        if before is not None:
            assert step(plan) <= before * 1.021
        before = step(plan)
