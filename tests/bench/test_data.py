"""Whether loading keeps up with the model, and what to set where it does not."""

import pytest

from autotrain.bench.data import advice, better, row, said_of, slowest
from autotrain.bench.spread import spread


def read(workers, rate, model=100.0, *, chosen=False):
    return row(workers, spread([[rate] * 5]), model, chosen=chosen)


def test_in_the_training_process_loading_adds_up_and_in_workers_it_runs_beside():
    assert read(0, 100.0).trains == pytest.approx(50.0)
    assert read(0, 100.0).waits == pytest.approx(0.5)
    assert read(2, 150.0).waits == 0.0
    assert read(2, 80.0).waits == pytest.approx(0.2)


def test_a_loader_that_keeps_up_is_left_alone():
    rows = [read(0, 10_000.0, chosen=True), read(1, 9_000.0), read(2, 20_000.0)]
    assert better(rows) is None
    said = advice(rows, 100.0, on_cpu=True)
    assert said.startswith("keep loader.workers=0: 100 x as many samples are read as the model")
    assert "waits for 1.0% of a step" in said


def test_a_starved_model_gets_the_fewest_workers_that_do():
    rows = [read(0, 50.0, chosen=True), read(1, 60.0), read(2, 120.0), read(4, 240.0)]
    assert better(rows).workers == 2
    said = advice(rows, 100.0, on_cpu=True)
    assert said.startswith("set loader.workers=2: the model waits for samples for 67% of a step")
    assert "workers take them from the model" in said
    assert "from the model" not in advice(rows, 100.0, on_cpu=False)


def test_where_no_number_of_workers_helps_the_samples_are_to_blame():
    rows = [read(0, 9.0), read(1, 10.0, chosen=True), read(2, 10.1)]
    assert "make a sample cheaper to read" in advice(rows, 100.0, on_cpu=False)


def test_samples_that_are_kept_need_no_workers():
    rows = [read(0, 50.0, chosen=True), read(2, 500.0)]
    assert better(rows, "device") is None
    said = advice(rows, 100.0, "device", on_cpu=True)
    assert said.startswith("keep the plan: samples stay where the model computes")
    assert "67% of a step in the first epoch alone" in said


def test_a_sample_that_stands_out_is_named():
    usual = [(index, 0.002) for index in range(20)]
    assert said_of(slowest(usual)) == "a sample takes 2 ms to read (median of 20)"
    assert said_of(slowest([*usual, (7, 0.5)])).endswith("; number 7 took 500 ms, 250 x as long")
    assert slowest([]) is None
