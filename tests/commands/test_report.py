"""Reports of real runs: while they go on, after a kill, of several beside each other."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib

import pytest

from autotrain.commands import reporting
from autotrain.commands.reporting import MOST_SECONDS, PAUSE_SECONDS, PAUSES, Reports
from autotrain.events import Evaluated, Started

from .house import cli, edit


@pytest.fixture
def two_runs(trained):
    """A run of the tiny task, and beside it one at another rate, which came to less."""
    place = trained / "runs"
    place.joinpath("mine").rename(place / "one")
    shutil.copytree(place / "one", place / "two")
    edit(place / "two/plan.toml", optimizer={"lr": 0.0001})
    events = (place / "two/events.jsonl").read_text().replace('"loss": 0.', '"loss": 1.')
    (place / "two/events.jsonl").write_text(events)
    return trained


def test_a_run_that_is_killed_has_a_report_that_says_so(folder, home):
    """SIGKILL in the third epoch or later; the report was begun at the first evaluation."""
    edit(folder / "plan.toml", train={"epochs": 5000}, early_stop={"patience": None})
    env = os.environ | {"AUTOTRAIN_REPORTS": "on"}
    words = [sys.executable, "-m", "autotrain", "run", "plan.toml"]
    with open(folder / "log", "wb") as log:
        run = subprocess.Popen(words, cwd=folder, env=env, stdout=log, stderr=log)
        events = folder / "runs/mine/events.jsonl"
        wait_for(lambda: events.is_file() and events.read_text().count('"evaluated"') >= 3, run)
        run.send_signal(signal.SIGKILL)
        run.wait()
    place = folder / "runs/mine"
    wait_for((place / "report.png").is_file)
    report = json.loads((place / "report.json").read_text())
    assert report["stopped"] is None
    assert report["evaluations"]
    assert "<svg" in (place / "report.html").read_text()
    wait_for(lambda: not [*place.glob(".report*")])


def wait_for(holds, process=None, seconds=90):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        assert process is None or process.poll() is None
        time.sleep(0.05)


class Process:
    """What stands for a report that is being written."""

    def __init__(self):
        self.code = None

    def poll(self):
        return self.code


def test_the_first_evaluation_is_reported_at_once_and_others_when_the_pause_is_over(
    tmp_path, monkeypatch
):
    """One that comes meanwhile is not forgotten: the next event begins its report. A report that
    took long, on cores that the run uses, is followed by a longer pause.
    """
    begun, now = [], [0.0]
    monkeypatch.setenv("AUTOTRAIN_REPORTS", "on")
    monkeypatch.setattr(reporting, "start", lambda _: begun.append(Process()) or begun[-1])
    reports = Reports(tmp_path, clock=lambda: now[0])
    written = 12.0  # the first one took ten seconds
    due = 2.0 + PAUSES * 10.0
    for time_, event, count in (
        (1.0, a_start(), 0), (2.0, evaluated(), 1), (3.0, evaluated(), 1),
        (written - 1.0, a_start(), 1), (written, a_start(), 1), (due - 1.0, evaluated(), 1),
        (due, a_start(), 2), (due + 1.0, evaluated(), 2), (due + PAUSE_SECONDS - 1, a_start(), 2),
        (due + PAUSE_SECONDS, a_start(), 3), (due + 3 * PAUSE_SECONDS, a_start(), 3),
        (due + PAUSE_SECONDS + MOST_SECONDS, evaluated(), 4),  # seen late, whenever it ended
    ):  # fmt: skip
        now[0] = time_
        if time_ >= written:
            begun[0].code = 0
        if time_ >= due + 1.0:
            begun[1].code = 0
        if time_ >= due + 3 * PAUSE_SECONDS + 1.0:
            begun[2].code = 0
        reports.see(event)
        assert len(begun) == count, time_


def a_start():
    return Started(
        step=0, epoch=0, total_steps=4, epochs=1, steps_per_epoch=4, device="cpu", monitor="loss",
        better="lower", train_count=8, valid_count=0,
    )  # fmt: skip


def evaluated():
    return Evaluated(step=1, epoch=1, loss=1.0, metrics={}, best=True, bad_evaluations=0, seconds=0)


def test_a_report_that_cannot_be_begun_troubles_no_run(tmp_path, monkeypatch):
    def none(_):
        raise OSError("no more processes")

    monkeypatch.setenv("AUTOTRAIN_REPORTS", "on")
    monkeypatch.setattr(reporting, "start", none)
    reports = Reports(tmp_path)
    reports.see(evaluated())
    reports.see(evaluated())
    reports.close()


def test_one_that_is_under_way_at_the_end_is_ended_and_leaves_nothing_half_written(two_runs):
    place = two_runs / "runs/one"
    before = {path.name for path in place.iterdir()}
    os.environ["AUTOTRAIN_REPORTS"] = "on"
    try:
        reports = Reports(place)
    finally:
        os.environ["AUTOTRAIN_REPORTS"] = "off"
    reports.see(evaluated())
    time.sleep(0.8)
    reports.close()
    assert {path.name for path in place.iterdir()} == before


@pytest.mark.slow
def test_what_is_advised_is_typed_as_it_stands_there_and_makes_a_plan(folder, home):
    """A rate that is far too low; the report written by the run and by hand says the same."""
    edit(folder / "plan.toml", optimizer={"lr": 1e-6}, train={"epochs": 6})
    done = cli("run", "plan.toml", cwd=folder)
    assert done.returncode == 0, done.stderr
    place = folder / "runs/mine"
    first = json.loads((place / "report.json").read_text())
    for name in ("report.json", "report.html", "report.png"):
        (place / name).unlink()
    done = cli("report", "runs/mine", cwd=folder)
    assert done.returncode == 0, done.stderr
    report = json.loads((place / "report.json").read_text())
    assert report["evaluations"] == first["evaluations"]
    assert (place / "report.png").stat().st_size > 10_000
    assert "Content-Security-Policy" in (place / "report.html").read_text()
    found = report["diagnosis"]["findings"][0]
    assert found["kind"] == "underfitting"
    assert found["command"] in done.stdout
    again = cli(*found["command"].split()[1:-1], "next.toml", "--no-calibrate", cwd=folder)
    assert again.returncode == 0, again.stderr
    made = tomllib.loads((folder / "next.toml").read_text())
    assert made["optimizer"]["lr"] == pytest.approx(3e-6)


def test_runs_are_compared_by_what_they_came_to_and_what_differs(two_runs, at):
    before = (two_runs / "runs/one/report.json").read_bytes()
    said = at("report", "runs/one", "runs/two", "-o", "both.html")
    assert said.code == 0
    assert "runs/one" in said.out
    differs = next(line for line in said.out.splitlines() if line.startswith("optimizer.lr"))
    assert differs.split()[-1] == "0.0001"
    assert "best        runs/one" in said.out
    assert said.err.strip() == "next        autotrain report runs/one"
    assert (two_runs / "both.html").read_text().count("<figure") == 6
    assert (two_runs / "runs/one/report.json").read_bytes() == before
    data = json.loads(at("report", "runs/one", "runs/two", "--json").out)
    assert data["best"] == "runs/one"
    assert [*data["differences"]] == ["optimizer.lr"]
    assert data["differences"]["optimizer.lr"][1] == 0.0001


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["runs/one", "-o", "x.html"], "-o is for a page that compares runs"),
        (["runs/one", "runs/one"], "runs/one: is named twice"),
        (["runs/one", "runs/none"], "runs/none: holds no run"),
    ],
)
def test_what_cannot_be_compared_is_one_clear_error(two_runs, at, arguments, says):
    assert at("report", *arguments).error == f"error: {says}"


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("cp1252", "?????"),
        ("ascii:surrogateescape", "?????"),
        ("ascii:backslashreplace", r"\u0995\u09cd\u09b2\u09bf\u09aa"),
        ("utf-8", "\u0995\u09cd\u09b2\u09bf\u09aa"),
    ],
)
def test_a_name_that_the_output_cannot_hold_is_no_bug(encoding, shown, two_runs):
    """A folder in Bengali, and a stdout of Western Europe."""
    (two_runs / "runs/two").rename(two_runs / "runs/\u0995\u09cd\u09b2\u09bf\u09aa")
    names = ["runs/\u0995\u09cd\u09b2\u09bf\u09aa", "runs/one"]
    env = os.environ | {"PYTHONIOENCODING": encoding}
    for asked in (names, names[:1]):
        done = cli("report", *asked, cwd=two_runs, env=env, encoding=encoding.partition(":")[0])
        assert done.returncode == 0, done.stderr
        assert f"runs/{shown}" in done.stdout


def test_a_tracker_that_is_none_or_not_there_is_named_before_anything_runs(folder, at):
    said = at("run", "plan.toml", "--track", "comet")
    assert (said.code, said.error) == (1, "error: --track comet: not known")
    assert "hint: one of wandb, mlflow" in said.err
    assert not (folder / "runs").exists()
