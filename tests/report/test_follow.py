"""A file of events while it grows: torn, replaced, not there yet."""

import os

import pytest
from plans import a_plan, a_run, a_step, evaluated, started, stopped

from autotrain.errors import AutotrainError
from autotrain.events import Evaluated, Started, Step, Stopped, Warned, to_json
from autotrain.report.follow import Tail, digest, event_of
from autotrain.report.log import event_log
from autotrain.report.result import collect


def test_a_line_counts_once_its_end_is_there(tmp_path):
    path = tmp_path / "events.jsonl"
    tail = Tail(path)
    assert [*tail.lines()] == []
    with open(path, "ab", buffering=0) as file:
        file.write(b"one\ntw")
        assert [*tail.lines()] == ["one"]
        assert tail.at == 4
        file.write(b"o")
        assert [*tail.lines()] == []
        file.write(b"\nthree\n")
    assert [*tail.lines()] == ["two", "three"]
    assert [*tail.lines()] == []


def test_a_torn_line_that_a_resumed_run_ended_is_passed_over(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text(to_json(started())[:40] + "\n" + to_json(started(step=5)) + "\n")
    assert [event_of(line) for line in Tail(path).lines()] == [None, started(step=5)]


def test_another_file_in_its_place_is_read_from_its_beginning(tmp_path):
    """`--fresh` puts the old one aside; an editor may cut one short."""
    path = tmp_path / "events.jsonl"
    path.write_text("old\nolder\n")
    tail = Tail(path)
    assert len([*tail.lines()]) == 2
    path.rename(tmp_path / "aside")
    path.write_text("new and longer than before\n")
    assert [*tail.lines()] == ["new and longer than before"]
    path.write_text("x\n")
    assert [*tail.lines()] == ["x"]
    assert tail.anew == 2


def test_what_was_read_before_is_skipped(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text("one\ntwo\n")
    tail = Tail(path)
    tail.skip(4)
    assert [*tail.lines()] == ["two"]


def test_a_line_without_end_takes_no_memory_without_end(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"x" * (5 << 20))
    tail = Tail(path)
    assert [*tail.lines()] == []
    assert len(tail._rest) <= 1 << 20


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a folder where a file is meant")
def test_a_folder_in_its_place_is_one_clear_error(tmp_path):
    (tmp_path / "events.jsonl").mkdir()
    with pytest.raises(AutotrainError, match=r"events\.jsonl"):
        [*Tail(tmp_path / "events.jsonl").lines()]


def test_a_long_run_is_told_in_a_few_events_in_their_order():
    """The newest session, its last point and evaluation, its last warnings."""
    warned = [Warned(step=n, epoch=1, message=f"warning {n}") for n in range(9)]
    events = [*a_run(20), started(step=100), *warned, a_step(101), a_step(102),
              evaluated(102, 0.5, best=True), a_step(103)]  # fmt: skip
    found = digest(map(to_json, events))
    assert [type(e) for e in found] == [Started, *3 * [Warned], Step, Evaluated, Step]
    assert found[0].step == 100
    assert found[3].message == "warning 8"
    ended = digest(map(to_json, [*events, stopped(103)]))
    assert isinstance(ended[-1], Stopped)


def test_of_a_torn_end_the_line_before_it_counts():
    lines = [*map(to_json, [started(), a_step(1), a_step(2)]), to_json(a_step(3))[:50]]
    assert [e.step for e in digest(lines)] == [0, 1, 2]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_in_the_place_of_the_log_is_not_waited_for(tmp_path):
    path = tmp_path / "events.jsonl"
    os.mkfifo(path)
    with pytest.raises(AutotrainError, match="not a regular file"):
        list(Tail(path).lines())
    with pytest.raises(AutotrainError, match="not a regular file"), event_log(path):
        pass
    with pytest.raises(AutotrainError, match="not a regular file"):
        collect(path, a_plan())
