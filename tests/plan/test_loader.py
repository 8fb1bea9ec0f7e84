"""What feeds a run: loader workers, and what a slow loader or disk costs."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from autotrain.plan import compute, overlap
from autotrain.probe.machines import load_machine

from .profiles import GIB, device, goal, machine, model, planned, rates, reason
from .triples import faster


@given(
    st.floats(0, 100) | st.floats(0, 0.01), st.floats(0, 1),
    st.floats(1e-9, 100) | st.floats(1e-5, 0.02), st.integers(1, 64), st.integers(0, 64),
)  # fmt: skip
@example(0.000234837, 0.0, 0.00390625, 3, 0)
def test_workers_are_few_and_worth_it(seconds, waits, model_seconds, cores, threads):
    loading = overlap.Loading(seconds, waits * seconds)

    def fed(workers):
        return overlap.fed_seconds(model_seconds, loading, workers, cores=cores, threads=threads)

    most = overlap.most_workers(loading, cores, threads)
    assert most <= 4 * cores
    assert waits or most == (cores if threads else cores - 1) or cores < 2
    workers, best = overlap.best_workers(fed, model_seconds, most), min(map(fed, range(most + 1)))
    assert 0 <= workers <= most
    if workers:
        assert fed(0) - fed(workers) >= 0.0499 * model_seconds
    else:
        assert fed(0) - best <= (0.04 + 0.01 * most) * model_seconds * 1.001
    # All of it is over before workers could have handed a batch over, or loading hardly counts.
    if seconds + model_seconds <= overlap.HANDOVER_SECONDS / max(most, 1):
        assert workers == 0
    if seconds < 0.0499 * model_seconds:
        assert workers == 0


def test_what_waits_leaves_its_core_to_the_model_and_what_computes_does_not():
    """Two cores that both compute: a worker gains all of a wait, nothing of other work."""
    waiting, computing = overlap.Loading(0.050, 0.050), overlap.Loading(0.050)
    taken = [
        overlap.fed_seconds(0.055, each, 1, cores=2, threads=2) for each in (waiting, computing)
    ]
    assert taken == pytest.approx([0.055, 0.105])
    half = overlap.Loading(0.050, 0.025)
    assert overlap.fed_seconds(0.055, half, 1, cores=2, threads=2) == pytest.approx(0.080)
    # Measured 133 and 108 ms: the worker is late too (docs/measurements).
    half = overlap.Loading(0.096, 0.048)
    taken = [overlap.fed_seconds(0.055, half, n, cores=2, threads=2) for n in (1, 2, 4)]
    assert taken == pytest.approx([0.120, 0.103, 0.103])
    slow = overlap.Loading(0.400, 0.390)
    assert overlap.most_workers(slow, 2) == 8
    assert overlap.fed_seconds(0.050, slow, 8, cores=2, threads=2) == pytest.approx(0.060)
    by_waiting = {
        waited: planned(machine(cores=2), of=model(sample_seconds=5e-4, waiting_seconds=waited))
        for waited in (0.0, 2.5e-4, 5e-4)
    }
    workers = [plan.loader.workers for plan in by_waiting.values()]
    assert workers[0] == 0
    assert 0 < workers[1] <= workers[2]
    said = reason(by_waiting[5e-4], "loader.workers").formula
    assert " of it waiting, and the model takes " in said
    assert "waiting" not in reason(by_waiting[0.0], "loader.workers").formula


def test_a_slow_loader_gets_workers_and_a_fast_one_none():
    fast, slow = planned(of=model(sample_seconds=1e-5)), planned(of=model(sample_seconds=0.1))
    assert fast.loader.workers == 0
    assert slow.loader.workers == 4
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


def test_samples_stay_in_memory_where_reading_is_felt_and_there_is_room():
    """Not where several workers would each keep their own, nor where reading is a copy anyway."""

    def keep(**traits):
        return planned(of=model(**traits)).loader.keep

    assert keep(sample_seconds=2e-4, sample_bytes=1000) == "ram"
    assert keep(sample_seconds=2e-4, sample_bytes=10**8) is None
    assert keep(sample_seconds=1e-6, sample_bytes=1000) is None
    assert keep(sample_seconds=0.1, sample_bytes=1000) is None


def test_a_reason_says_which_condition_failed_and_none_that_did_not():
    def why(key, **traits):
        return reason(planned(of=model(**traits)), key).formula

    kept = why("loader.keep", sample_seconds=2e-4, sample_bytes=1000)
    assert kept.startswith("1.05 MiB of samples are within ")
    quick = why("loader.keep", sample_seconds=1e-6, sample_bytes=1000)
    assert quick.startswith("they are read each time: loading takes under 5% of the model's time")
    assert "workers" not in quick
    assert "are more than" not in quick
    large = why("loader.keep", sample_seconds=2e-4, sample_bytes=10**8)
    assert "are more than" in large
    assert "under 5%" not in large
    fed = why("loader.keep", sample_seconds=0.1, sample_bytes=1000)
    assert fed == (
        "they are read each time: each of 4 workers would keep its own; "
        "not stacked on the device: they do not stack, or two readings of one differ"
    )
    assert why("loader.workers", sample_seconds=1e-5).endswith("hand them over, which is no gain")
    assert "so others load the next ones" in why("loader.workers", sample_seconds=0.1)
    alone = planned(machine(cores=1), model(sample_seconds=0.1))
    assert reason(alone, "loader.workers").formula.endswith("the only core is left to training")


def test_samples_stay_on_the_device_where_the_step_leaves_room_for_all_of_them():
    """Only such as stack; what they take is counted, and later steps wait for none."""
    gpu = machine(device("cuda", 8 * GIB), cores=2)

    def made(**traits):
        return planned(gpu, of=model(sample_seconds=0.05, train=5000, stacks=True, **traits))

    small, large = made(sample_bytes=20_000), made(sample_bytes=2 * 10**6)
    assert (small.loader.keep, large.loader.keep) == ("device", None)
    loose = planned(gpu, of=model(sample_seconds=0.05, train=5000, sample_bytes=20_000))
    assert loose.loader.keep != "device"
    for name in ("tensor_peak_bytes", "reserved_peak_bytes", "device_peak_bytes"):
        less, more = (getattr(plan.predicted, name) for plan in (loose, small))
        assert more.expected - less.expected == 20_000 * 5100
        assert more.high <= small.memory.budget_bytes
    assert small.predicted.step_seconds.expected < loose.predicted.step_seconds.expected
    hidden = model(sample_seconds=2e-3, train=5000, stacks=True, sample_bytes=20_000)
    plan = planned(machine(device("cuda", 8 * GIB), cores=16), of=hidden)
    assert plan.loader.workers > 1
    assert plan.loader.keep is None
    said = reason(small, "loader.keep").formula
    assert said.startswith("97.3 MiB of samples, which stack")
    assert "what the step leaves of the budget" in said


def test_on_a_cpu_they_stay_stacked_within_what_the_peak_does_not_notice():
    """And the core of a worker goes back to the model."""

    def keep(**traits):
        return planned(of=model(**{"sample_seconds": 2e-4, "stacks": True, **traits})).loader.keep

    assert keep(sample_bytes=1000) == "device"
    assert keep(sample_bytes=1000, sample_seconds=0.1) == "device"
    assert keep(sample_bytes=10**8) is None
    assert keep(sample_bytes=1000, sample_seconds=1e-9) is None


CPUS = ("cpu-4-core", "cpu-8-core", "cpu-16-core", "cpu-64-core")


@pytest.mark.parametrize("name", CPUS)
def test_more_threads_of_a_cpu_by_its_datasheet_help_up_to_its_cores(name):
    """By less than their number: what memory brings is shared, and one core runs faster."""
    hardware = load_machine(name)
    cores = hardware.cpu.cores

    def step(threads, **wish):
        wish = goal(device__threads=threads, precision__dtype="fp32", batch__micro_batch=8, **wish)
        return planned(hardware, model(sample_seconds=0.0), wish).predicted.step_seconds.expected

    one, two, half, all_of_them = (step(threads) for threads in (1, 2, cores // 2, cores))
    assert one > two >= half > all_of_them
    assert one < cores * all_of_them
    assert step(2 * cores) == step(16 * cores) == all_of_them
    (cpu,) = hardware.devices
    for world in (2, 4):  # together they have no more of it than there is
        part = compute.on_threads(cpu, cores // world, cores, world).rates
        assert world * part.bandwidth <= cpu.rates.bandwidth
        assert world * part.matmul["fp32"] <= cpu.rates.matmul["fp32"]


@pytest.mark.parametrize("name", CPUS)
def test_workers_help_up_to_the_cores_and_what_loading_binds_stays_bound(name):
    hardware, of = load_machine(name), model(sample_seconds=0.05)
    cores = hardware.cpu.cores

    def step(workers):
        wish = goal(loader__workers=workers, precision__dtype="fp32", batch__micro_batch=8)
        wish.user["memory.budget_bytes"] = 64 * GIB
        return planned(hardware, of, wish).predicted.step_seconds.expected

    steps = [step(workers) for workers in (0, 1, 2, cores // 2, cores, 2 * cores)]
    assert steps == sorted(steps, reverse=True)
    assert steps[-1] == steps[-2]
    bound = 4 * overlap.loading_seconds(0.05, 8) / cores  # of four micro-batches
    assert steps[-1] > bound


def test_a_model_and_its_loader_share_the_cores():
    """A thread that a worker takes the core from is late, and the others wait for it."""
    fed = overlap.fed_seconds(0.010, overlap.Loading(0.016), 1, cores=2, threads=2)
    assert fed == pytest.approx(0.010 + 0.016)
    assert overlap.fed_seconds(
        0.055, overlap.Loading(0.096), 2, cores=2, threads=2
    ) == pytest.approx(0.14425)
    assert overlap.fed_seconds(0.010, overlap.Loading(0.016), 3, cores=4, threads=3) == 0.016
    assert overlap.fed_seconds(0.010, overlap.Loading(0.016), 3, cores=4, threads=2) == 0.010
    assert overlap.fed_seconds(0.010, overlap.Loading(0.016), 1, cores=2, threads=1) == 0.016
    assert overlap.fed_seconds(0.010, overlap.Loading(0.016), 8, cores=2) == 0.010
    assert overlap.fed_seconds(0.010, overlap.Loading(0.160), 8, cores=2) == 0.080
    plan = planned(wish=goal(loader__workers=3))
    said = reason(plan, "predicted.step_seconds").formula
    assert "beside it in 3 workers; on the same 4 cores both take " in said


@pytest.mark.parametrize("kind", ["cuda", "cpu"])
@pytest.mark.parametrize("user", [{}, {"train__epochs": 2}, {"loader__workers": 1}])
def test_a_faster_device_never_takes_longer_whether_samples_stay_or_not(kind, user):
    of = model(sample_bytes=1000, sample_seconds=1e-2, stacks=True)
    took, kept = math.inf, set()
    for power in range(60):
        own = faster(device(kind, native_dtypes=("fp32",), rates=rates(5e-4)), 1.15**power)
        plan = planned(machine(own, device(), cores=2), of, goal(**user))
        assert plan.predicted.run_seconds.expected <= took * 1.000001
        took = plan.predicted.run_seconds.expected
        kept.add(plan.loader.keep)
    assert len(kept) > 1
