import json
import sys

import pytest
from plans import a_plan, a_run, a_step, started

from autotrain.errors import AutotrainError
from autotrain.events import from_json
from autotrain.report.log import EventLog, event_log
from autotrain.report.result import collect


def test_events_are_appended_one_json_line_each_and_there_at_once(tmp_path):
    path = tmp_path / "events.jsonl"
    with event_log(path) as write:
        for n, event in enumerate(a_run(2), start=1):
            write(event)
            assert len(path.read_text().splitlines()) == n
    assert [from_json(line) for line in path.read_text().splitlines()] == a_run(2)


def test_a_second_session_appends(tmp_path):
    path = tmp_path / "events.jsonl"
    for step in (1, 2):
        with event_log(path) as write:
            write(a_step(step))
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]


def test_a_torn_last_line_is_ended_before_the_next_event(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text('{"event": "step", "lo')
    with event_log(path) as write:
        write(started())
        write(a_step(1))
    lines = path.read_text().splitlines()
    assert len(lines) == 3
    assert from_json(lines[1]) == started()
    assert len(collect(path, a_plan()).points) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full")
def test_a_full_disk_warns_once_and_stops_nothing(tmp_path, capsys):
    path = tmp_path / "events.jsonl"
    path.touch()
    with open("/dev/full", "wb", buffering=0) as full:
        log = EventLog(path, full)
        for event in a_run(2):
            log(event)
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "No space left on device; training goes on" in err


def test_events_are_recorded_again_once_there_is_space(tmp_path, capsys):
    """The half line that was written before the disk was full is ended first."""

    class Disk:
        def __init__(self, file):
            self.file, self.room = file, 10

        def write(self, line):
            if not self.room:
                raise OSError(28, "No space left on device")
            written = self.file.write(line[: self.room])
            self.room -= written
            return written

    path = tmp_path / "events.jsonl"
    with open(path, "ab", buffering=0) as file:
        disk = Disk(file)
        log = EventLog(path, disk)
        log(a_step(1))
        log(a_step(2))
        disk.room = 10_000
        log(a_step(3))
    assert collect(path, a_plan()).points.column("step").tolist() == [3]
    assert capsys.readouterr().err.count("warning") == 1


def test_a_folder_that_is_missing_is_one_clear_error(tmp_path):
    with (
        pytest.raises(AutotrainError, match="No such file"),
        event_log(tmp_path / "missing" / "events.jsonl"),
    ):
        pass
