"""A plan for several processes: what each takes, and what they share."""

import pytest

from autotrain.plan import memory, sequence

from .profiles import GIB, MIB, device, goal, machine, model, planned, reason

FIXED = {"batch__micro_batch": 8, "device__threads": 4, "optimizer__implementation": "fused"}
BIG = model(weights=40 * MIB, each=32 * MIB)
SETUP = memory.Setup(8, 1, "fp32", "adamw", "fused", None)


def test_gradients_of_all_processes_are_one_copy_more():
    net = model(weights=40 * MIB, each=32 * MIB)
    alone = memory.tensor_peak_bytes(net, SETUP)
    several = memory.tensor_peak_bytes(net, SETUP._replace(several=True))
    assert several - alone == net.trainable_bytes


def test_an_update_needs_no_copy_more():
    """Gradients lie in the buckets by then; here the update is what takes most."""
    net = model(weights=400 * MIB, each=1024)
    loop = SETUP._replace(implementation="foreach", optimizer="nadam")
    assert memory.tensor_peak_bytes(net, loop) == memory.tensor_peak_bytes(
        net, loop._replace(several=True)
    )


def test_buckets_hold_every_gradient_once():
    sizes = (30 * MIB, 10, 20 * MIB, MIB // 2, MIB // 2)
    found = sequence._buckets(sizes)
    assert found == [MIB, 20 * MIB + 10 + 30 * MIB]
    assert sequence._buckets(()) == []


def test_each_process_takes_its_share_and_the_batch_stays():
    one = planned(of=BIG, wish=goal(**FIXED, batch__global_batch=32))
    two = planned(of=BIG, wish=goal(**FIXED, batch__global_batch=32, batch__world_size=2))
    assert (one.batch.accum_steps, two.batch.accum_steps) == (4, 2)
    assert two.batch.global_batch == 32
    assert two.optimizer.lr == one.optimizer.lr
    more = two.predicted.tensor_peak_bytes.expected - one.predicted.tensor_peak_bytes.expected
    assert more == pytest.approx(40 * MIB, rel=0.05)


def test_processes_on_a_cpu_share_its_memory_and_those_on_gpus_do_not():
    net = model(weights=40 * MIB, each=64 * MIB, train=4096)
    small = machine(device(free=8 * GIB))
    one = planned(small, net, goal(batch__global_batch=1024))
    four = planned(small, net, goal(batch__global_batch=1024, batch__world_size=4))
    high = four.predicted.device_peak_bytes.high
    assert 4 * high <= four.memory.budget_bytes
    assert four.batch.micro_batch < one.batch.micro_batch
    gpu = machine(device("cuda", free=8 * GIB), device())
    wide = planned(gpu, net, goal(batch__global_batch=1024, batch__world_size=4))
    assert wide.predicted.device_peak_bytes.high > wide.memory.budget_bytes / 4


def gpus(*free: float):
    cards = [device("cuda", gib * GIB, index=n) for n, gib in enumerate(free)]
    return machine(*cards, device(), ram=200 * GIB)


def told(plan):
    return [note for note in plan.notes if "GPU" in note]


def test_gpus_that_a_run_leaves_alone_are_said_with_the_way_to_use_them():
    (said,) = told(planned(gpus(40, 40, 40)))
    assert "bench has 3 GPUs to train on, and one process uses one" in said
    assert "--set batch.world_size=3" in said
    assert "--nproc 3" in said
    assert not told(planned(gpus(40)))
    assert not told(planned(gpus(40, 40, 40), wish=goal(batch__world_size=3)))
    assert not told(planned(gpus(40, 40, 40), wish=goal(batch__world_size=1)))
    assert not told(planned(gpus(40, 40), wish=goal(device__kind="cpu")))
    (said,) = told(planned(gpus(40, 40, 40), wish=goal(device__index=1)))
    assert "has 2 GPUs to train on" in said


def test_processes_beyond_the_gpus_are_for_other_machines():
    (said,) = told(planned(gpus(40, 40), wish=goal(batch__world_size=4)))
    assert "has 2 GPUs for that: the rest is to be on other machines" in said


def test_the_budget_is_of_the_gpu_with_the_least_that_is_free():
    apart = planned(gpus(40, 20, 10), wish=goal(batch__world_size=2))
    assert apart.memory.budget_bytes == int(0.9 * 20 * GIB)
    assert "(cuda:1), the least of those" in reason(apart, "memory.budget_bytes").formula
    assert planned(gpus(40, 20, 10)).memory.budget_bytes == int(0.9 * 40 * GIB)
