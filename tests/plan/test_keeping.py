"""Samples that stay in memory, in what a plan predicts and says."""

from __future__ import annotations

import pytest

from .profiles import GIB, MIB, device, goal, machine, model, planned

CPU = machine(device("cpu", free=8 * GIB), ram=16 * GIB)


def expected(workers, **more):
    wish = goal(batch__micro_batch=8, loader__workers=workers)
    seen = model().model_copy(update=more)
    return planned(CPU, seen, wish).predicted.device_peak_bytes.expected


def test_samples_that_blocks_keep_are_in_the_peak_up_to_what_they_keep_at_most():
    def kept(workers):
        return expected(workers, kept_bytes=100 * MIB, kept_most=250 * MIB) - expected(workers)

    assert [kept(workers) for workers in (0, 1, 2, 3)] == [n * MIB for n in (100, 100, 200, 250)]


def test_samples_that_a_dataset_keeps_are_in_the_peak_for_each_worker():
    for workers in (0, 1, 2):
        more = expected(workers, cached_bytes=300 * MIB) - expected(workers)
        assert more == 300 * MIB * max(workers, 1)


def notes(cached, workers=0, hardware=CPU):
    wish = goal(batch__micro_batch=8, loader__workers=workers)
    seen = model().model_copy(update={"cached_bytes": cached})
    return [n for n in planned(hardware, seen, wish).notes if "keeps what it has read" in n]


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_what_a_dataset_keeps_is_said_where_it_is_much(kind):
    hardware = machine(device(kind, free=8 * GIB, native_dtypes=("fp32",)), ram=16 * GIB)
    assert notes(MIB, hardware=hardware) == []
    (said,) = notes(GIB, workers=2, hardware=hardware)
    assert said.endswith("in each of 2 loader workers: about 2 GiB once all was")
    (said,) = notes(90 * GIB, hardware=hardware)
    assert "about 90 GiB once all was, of" in said
    assert "may end the run for it" in said


def test_more_memory_never_gives_a_smaller_micro_batch_whatever_the_dataset_keeps():
    seen = model(each=200 * MIB, train=10_000).model_copy(update={"cached_bytes": 8 * GIB})
    sizes = []
    for step in range(60):
        free = int(4 * GIB * 1.05**step)
        hardware = machine(device("cpu", free=free), ram=2 * free)
        sizes.append(planned(hardware, seen).batch.micro_batch)
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]


def test_more_than_half_of_the_memory_does_not_count_as_it_may_be_bounded_otherwise():
    assert expected(0, cached_bytes=90 * GIB) == expected(0)
