"""Runs that are kept: what comes back, what is bounded, what cannot harm."""

import json
import multiprocessing
import sys

import pytest

from autotrain.probe import history
from autotrain.probe.history import RunRecord
from autotrain.schema import Trial

MACHINE = "a" * 64


def run(number: int = 0, key: str = "model") -> RunRecord:
    measured = Trial(
        outcome="ok",
        device="cpu",
        threads=2,
        micro_batch=4,
        accum_steps=1,
        dtype="fp32",
        optimizer="adamw",
        implementation="fused",
        of_run=True,
        step_seconds=0.01,
        micro_batches=1.0,
    )
    return RunRecord(key=key, model="net", ended=1.0 + number, steps=100, trial=measured)


def test_what_is_kept_comes_back_the_last_one_at_the_end():
    assert history.recall(MACHINE) == ((), "")
    assert history.keep(MACHINE, run(1)) == ""
    history.keep(MACHINE, run(2, "other"))
    assert history.recall(MACHINE) == ((run(1), run(2, "other")), "")
    assert history.recall("b" * 64) == ((), "")


def test_the_file_stays_small(monkeypatch):
    monkeypatch.setattr(history, "RUNS", 5)
    monkeypatch.setattr(history, "EACH", 2)
    for number in range(8):
        history.keep(MACHINE, run(number, "model" if number >= 4 else f"model {number}"))
    kept = [(r.ended, r.key) for r in history.recall(MACHINE)[0]]
    assert kept == [
        (2.0, "model 1"), (3.0, "model 2"), (4.0, "model 3"), (7.0, "model"), (8.0, "model"),
    ]  # fmt: skip


@pytest.mark.parametrize("content", ["", "{", "[]", '{"runs": [{"key": 3}]}', "\x00\xff"])
def test_a_torn_or_foreign_file_is_ignored_said_once_and_replaced(content):
    path = history.path(MACHINE)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    found, fault = history.recall(MACHINE)
    assert found == ()
    assert str(path) in fault
    assert history.keep(MACHINE, run()) == fault
    assert history.keep(MACHINE, run(1)) == ""
    assert history.recall(MACHINE) == ((run(), run(1)), "")


def test_where_nothing_can_be_written_nothing_is_kept(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AUTOTRAIN_HOME", str(tmp_path / "file" / "below"))
    assert history.keep(MACHINE, run()) == ""
    assert history.recall(MACHINE) == ((), "")


def _keep_one(number):
    history.keep(MACHINE, run(number, f"model {number}"))


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_runs_that_end_at_the_same_time_lose_nothing():
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_keep_one, args=(number,)) for number in range(6)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    kept = json.loads(history.path(MACHINE).read_text())["runs"]
    assert sorted(r["key"] for r in kept) == [f"model {number}" for number in range(6)]
