"""Devices beside each other: from which size a GPU wins, and what a person is told to do."""

import pytest

from autotrain.bench.cpu_vs_gpu import (
    base_of,
    cost,
    crossing,
    crossings,
    rate,
)
from autotrain.bench.verdict import advice, best_of
from autotrain.schema import Prediction
from tests.bench.devices import around, cpu, gpu, lost


def test_a_gpu_wins_from_the_size_on_at_which_it_is_faster_and_stays_so():
    found = crossing(cpu(), gpu())
    assert (found.expected, found.least, found.most) == (8, 1, 8)
    # 24 / 2 is less than 13 x 1.1: the slow end of the GPU does not pass the CPU's fast end.
    assert found.sure is None
    assert crossing(cpu(), gpu(spread=1.2)).sure == 8


def test_where_it_wins_is_not_where_it_wins_once():
    found = crossing(cpu(rates={1: 1, 2: 10, 4: 5, 8: 5}), gpu(rates={1: 3, 2: 6, 4: 12, 8: 24}))
    assert found.expected == 4


def test_a_gpu_that_never_wins_or_always_does():
    assert crossing(cpu(rates={1: 99, 2: 99}), gpu()).expected is None
    assert crossing(cpu(rates={1: 1, 2: 1}), gpu()).expected == 1
    assert crossing(cpu(rates={3: 1}), gpu()) is None


def test_every_gpu_is_held_against_the_cpu_here():
    rows = [gpu(machine="here", source="measured"), cpu(), gpu(), lost(), cpu(machine="cpu-4-core")]
    assert base_of(rows) == rows[1]
    assert [row.machine for row, _ in crossings(rows)] == ["here", "t4-16gb"]


def test_the_sentence_says_where_to_train_and_why():
    said = advice([cpu(1000.0), gpu(50.0)])
    assert said == (
        "train on t4-16gb: it takes 50 s (25 s to 1 min 40 s) for the run and the CPU here "
        "16 min 40 s, 20 x as fast; t4-16gb is predicted, not measured"
    )
    assert best_of([cpu(1000.0), gpu(50.0)]).machine == "t4-16gb"


def test_what_is_measured_is_not_called_a_prediction():
    said = advice([gpu(50.0, spread=1.1, machine="here", source="measured"), cpu(1000.0)])
    assert said.startswith("train on the GPU here: it takes 50 s for the run and the CPU here")
    assert "predicted" not in said


def test_who_saves_seconds_need_not_look_for_a_gpu():
    said = advice([cpu(30.0), gpu(3.0)])
    assert said.startswith("stay on the CPU here: t4-16gb is 10 x as fast, and would save 27 s")
    assert best_of([cpu(30.0), gpu(3.0)]).kind == "cpu"


def test_a_gpu_that_is_here_need_not_be_looked_for():
    own = gpu(3.0, spread=1.1, machine="here", source="measured")
    assert advice([own, cpu(30.0)]).startswith("train on the GPU here: it takes 3 s")
    assert best_of([own, cpu(30.0)]) == own


MEASURED = gpu(100.0, spread=1.1, machine="here", source="measured")


def test_a_gpu_measured_here_is_advised_though_another_may_be_faster():
    perhaps = gpu(95.0, spread=12.0)
    for rows in ([cpu(1000.0), MEASURED, perhaps], [perhaps, MEASURED, cpu(1000.0)]):
        said = advice(rows)
        assert said.startswith("train on the GPU here: it takes 1 min 40 s for the run and the CPU")
        assert "; t4-16gb, predicted to take 1 min 35 s (7.92 s to 19 min" in said
        assert said.endswith("may be faster or slower")
        assert best_of(rows) == MEASURED


def test_another_gpu_is_advised_where_it_is_surely_faster_than_the_own_and_worth_it():
    own = gpu(1000.0, spread=1.1, machine="here", source="measured")
    rented, dear = gpu(100.0, machine="h100"), gpu(90.0, machine="b200", spread=9.0)
    assert best_of([cpu(9000.0), own, rented, dear]) == rented
    said = advice([cpu(9000.0), own, rented, dear])
    assert said.startswith("train on h100")
    assert (
        "b200, predicted to take 1 min 30 s (10 s to 13 min 30 s), may be faster or slower" in said
    )
    assert best_of([cpu(9000.0), MEASURED, gpu(60.0, spread=1.1)]) == MEASURED
    said = advice([cpu(9000.0), MEASURED, gpu(60.0, spread=1.1)])
    assert (
        "t4-16gb, predicted to take 1 min 0 s (54.5 s to 1 min 6 s), would save 40 s more" in said
    )


def test_one_that_may_be_faster_leaves_it_open_though_a_likelier_one_is_surely_slower():
    said = advice([cpu(100.0), gpu(150.0, spread=1.1, machine="a"), gpu(200.0, spread=4.0)])
    assert said.startswith("it is open between the CPU here and t4-16gb")
    said = advice([cpu(50.0), gpu(10.0), gpu(5.0, machine="b", spread=12.0)])
    assert said.startswith("stay on the CPU here: t4-16gb is 5 x as fast, and would save 40 s")


def test_intervals_that_overlap_leave_it_open():
    said = advice([cpu(100.0), gpu(80.0)])
    assert said.startswith("it is open between the CPU here and t4-16gb, which takes 1 min 20 s")
    assert "the intervals overlap; t4-16gb is the faster one from micro_batch 8 on" in said
    assert best_of([cpu(100.0), gpu(80.0)]).kind == "cpu"


def test_a_gpu_that_is_slower_leaves_one_on_the_cpu_with_the_size_at_which_that_turns():
    said = advice([cpu(100.0), gpu(900.0)])
    assert said.startswith("stay on the CPU here: t4-16gb takes 15 min 0 s")
    assert "from micro_batch 8 on" in said
    said = advice([cpu(100.0, rates={1: 999, 2: 999}), gpu(900.0)])
    assert "at no micro_batch up to 2 is t4-16gb the faster one" in said


def test_money_and_a_loader_that_cannot_keep_up_are_named():
    dear = gpu(50.0, cost=around(0.5), currency="\u20ac", loading=0.8)
    said = advice([cpu(1000.0, cost=around(0.01), currency="$"), dear])
    assert "it costs $0.01 on the CPU here and \u20ac0.5 on t4-16gb" in said
    assert "80% of a step would be waiting for samples" in said
    assert "bench data" in said


def test_one_device_alone_is_told_how_to_get_another():
    assert "--machine rtx-4060-laptop-8gb" in advice([cpu()])
    assert advice([cpu(), lost()]).endswith("rtx-3050 has no figures")
    assert "nothing to compare" in advice([lost()])


def test_rates_and_costs_turn_an_interval_the_right_way_round():
    speed = rate(10, Prediction(low=1.0, expected=2.0, high=5.0))
    assert (speed.low, speed.expected, speed.high) == (2.0, 5.0, 10.0)
    spent = cost(Prediction(low=1800.0, expected=3600.0, high=7200.0), 0.5)
    assert (spent.low, spent.expected, spent.high) == (0.25, 0.5, 1.0)
    assert cost(None, 0.5) is None
    assert cost(speed, None) is None
    assert cost(speed, 0.0).high == pytest.approx(0.0)
