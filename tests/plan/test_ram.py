"""What a run takes of the RAM beside a GPU, and of a CPU's budget by what it keeps."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotrain.errors import DoesNotFitError

from .profiles import GIB, MIB, between, device, goal, machine, model, planned, reason

FED = {"sample_seconds": 0.1}
PREFETCH = "loader__prefetch"


def gpu(ram: float, cores: int = 16, gpus: int = 1, **more):
    cards = [device("cuda", 40 * GIB, index=n) for n in range(gpus)]
    made = machine(*cards, device(), cores=cores, ram=ram, **more)
    return made.model_copy(update={"ram_available_bytes": int(ram)})


def test_workers_beside_a_gpu_keep_within_its_ram():
    roomy, small = (planned(gpu(ram * GIB), model(**FED)) for ram in (64, 6))
    assert roomy.loader.workers == 15
    assert 0 < small.loader.workers < 15
    assert reason(small, "loader.workers").limited_by == "memory"
    none = planned(gpu(3 * GIB), model(**FED))
    assert none.loader.workers == 0
    assert "the RAM has no room" in reason(none, "loader.workers").formula
    assert reason(none, "loader.workers").limited_by == "memory"


def test_what_each_worker_holds_ready_and_keeps_counts():
    """Two micro-batches each, and all that the dataset keeps once it was read."""

    def workers(**traits):
        return planned(gpu(16 * GIB), model(**FED, **traits)).loader.workers

    plain = workers()
    assert workers(each=1500 * MIB) < plain  # micro-batches of 30 MiB a sample
    assert workers(cached_bytes=3 * GIB) < plain
    assert workers(kept_bytes=2 * GIB, kept_most=100 * GIB) < plain


def test_where_ram_is_short_more_workers_count_for_more_than_a_second_batch_ready():
    def made(ram, **wish):
        of = model(sample_seconds=5.0, each=1500 * MIB)
        return planned(gpu(ram * GIB), of, goal(**wish))

    wide, short, asked = (
        made(ram, **wish) for ram, wish in ((64, {}), (24, {}), (24, {PREFETCH: 2}))
    )
    assert (wide.loader.workers, wide.loader.prefetch) == (15, 2)
    assert short.loader.prefetch == 1
    assert asked.loader.workers < short.loader.workers <= wide.loader.workers
    said = f"room for {short.loader.workers} so, and for {asked.loader.workers} else"
    assert said in reason(short, "loader.prefetch").formula


def test_a_plan_says_where_the_ram_may_not_do():
    enough, short = (planned(gpu(ram * GIB)).notes for ram in (64, 2))
    assert not any("of RAM" in note for note in enough)
    (said,) = [note for note in short if "of RAM" in note]
    assert "of which 2 GiB are free: the system may end it for that" in said
    asked = planned(gpu(8 * GIB), model(each=1500 * MIB), goal(loader__workers=15))
    assert any("15 loader workers" in note for note in asked.notes)


def test_a_process_that_does_not_go_into_the_ram_is_refused():
    with pytest.raises(DoesNotFitError, match=r"needs at least .* of RAM .* has 512 MiB"):
        planned(gpu(GIB // 2))
    with pytest.raises(DoesNotFitError, match="of RAM"):  # a save's copy of weights and states
        planned(gpu(8 * GIB), model(weights=6 * GIB))


def test_processes_on_one_machine_share_its_ram_and_cores_and_those_elsewhere_do_not():
    wish = goal(batch__world_size=4)
    one = planned(gpu(200 * GIB, cores=32, gpus=4), model(**FED), goal())
    four = planned(gpu(200 * GIB, cores=32, gpus=4), model(**FED), wish)
    assert (one.loader.workers, four.loader.workers) == (31, 7)
    apart = planned(gpu(200 * GIB, cores=32, gpus=1), model(**FED), wish)
    assert apart.loader.workers == 31
    tight = planned(gpu(16 * GIB, cores=32, gpus=4), model(**FED), wish)
    assert tight.loader.workers < four.loader.workers


def test_samples_are_kept_in_what_ram_the_run_leaves():
    def keep(ram):
        of = model(sample_seconds=2e-3, sample_bytes=10**6, train=2000)
        return planned(gpu(ram * GIB, cores=1), of).loader.keep

    assert keep(64) == "ram"
    assert keep(4) is None


def test_samples_that_a_person_keeps_count_once_on_a_cpu():
    """In the peak, in what fits beside them, and in each worker where there are several."""
    of = model(each=20 * MIB, sample_bytes=2 * MIB, train=1000, valid=100)
    plain = planned(of=of)
    four = {"batch.micro_batch": 4}
    kept = planned(of=of, wish=goal(loader__keep="ram", batch__micro_batch=4))
    alone = planned(of=of, wish=goal(loader__keep=None, batch__micro_batch=4))
    more = kept.predicted.device_peak_bytes.high - alone.predicted.device_peak_bytes.high
    assert more == pytest.approx(1100 * 2 * MIB, rel=1e-6)
    beside = planned(of=of, wish=goal(loader__keep="ram"))
    assert beside.predicted.device_peak_bytes.high <= beside.memory.budget_bytes
    tight = planned(machine(device(free=4.2 * GIB)), of, goal(loader__keep="ram"))
    assert tight.predicted.device_peak_bytes.high <= tight.memory.budget_bytes
    assert tight.batch.micro_batch < plain.batch.micro_batch
    wish = goal(loader__keep="ram", loader__workers=3)
    with pytest.raises(DoesNotFitError) as caught:
        planned(of=of, wish=wish)
    assert "--set loader.keep=auto" in caught.value.hint
    several = planned(of=of, wish=wish.model_copy(update={"user": {**wish.user, **four}}))
    assert "6.45 GiB of samples kept" in reason(several, "predicted.device_peak_bytes").formula
    gone = planned(of=of, wish=goal(loader__keep="ram", batch__micro_batch=200))
    assert any("more than the budget" in note for note in gone.notes)


def test_workers_on_a_cpu_leave_room_for_what_the_dataset_keeps_in_each():
    of = model(**FED, cached_bytes=2 * GIB)
    plan = planned(machine(device(free=10 * GIB), cores=16, ram=40 * GIB), of)
    assert 0 < plan.loader.workers < 15
    assert plan.predicted.device_peak_bytes.high <= plan.memory.budget_bytes


def test_a_micro_batch_beyond_each_processs_part_is_refused_with_its_figures():
    """On a CPU, which all share: 8 GiB are 2 for each of four."""
    of = model(each=64 * MIB)
    wish = {"batch__micro_batch": 40, "device__threads": 4}
    planned(of=of, wish=goal(**wish))
    said = r"batch.micro_batch 40 needs at least .*; a cpu has 2.2 GiB for each of 4 processes"
    with pytest.raises(DoesNotFitError, match=said) as caught:
        planned(of=of, wish=goal(**wish, batch__world_size=4))
    assert "--set batch.micro_batch=auto" in caught.value.hint
    assert "--set batch.world_size=auto" in caught.value.hint
    over = planned(of=of, wish=goal(**wish | {"batch__micro_batch": 18}, batch__world_size=4))
    told = "more than the budget of 1.6 GiB for each of 4 processes, 6.4 GiB in all"
    assert any(told in note for note in over.notes)


@settings(max_examples=30)
@given(st.floats(0.3, 64), st.floats(1, 20), between(MIB, 4 * GIB), st.floats(0, 0.5))
def test_more_ram_is_never_worse(ram, times, weights, seconds):
    """Nor does it say anything of the batch, which is in the GPU's memory."""
    of = model(weights, sample_seconds=seconds)
    try:
        less = planned(gpu(ram * GIB), of)
    except DoesNotFitError:
        return
    more = planned(gpu(times * ram * GIB), of)
    assert more.loader.workers >= less.loader.workers
    assert more.batch == less.batch
