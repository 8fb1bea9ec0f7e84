"""Trials that are kept: what comes back, and what does not."""

import json
import multiprocessing
import sys

import pytest

from autotrain import files
from autotrain.probe import trials
from autotrain.schema import TaskSection, Trial

MACHINE = "a" * 64
TASK = TaskSection(file="task.py", sha256="0" * 64, options={"width": 8})


def trial(micro=4, **more) -> Trial:
    fields = {
        "outcome": "ok",
        "device": "cpu",
        "threads": 2,
        "micro_batch": micro,
        "accum_steps": 1,
        "dtype": "fp32",
        "optimizer": "adamw",
        "implementation": "fused",
        "device_peak_bytes": 1 << 30,
        "losses": [1.5, 0.5],
    }
    return Trial.model_validate(fields | more)


def test_what_is_kept_comes_back():
    assert trials.recall(MACHINE, "model") == ((), "")
    trials.keep(MACHINE, "model", [trial(), trial(8, buckets=[[10.0, 8]])])
    assert trials.recall(MACHINE, "model") == ((trial(), trial(8, buckets=[[10.0, 8]])), "")
    assert trials.recall(MACHINE, "other") == ((), "")
    assert trials.recall("b" * 64, "model") == ((), "")


def test_a_later_list_takes_the_place_of_an_earlier_one():
    trials.keep(MACHINE, "model", [trial()])
    trials.keep(MACHINE, "other", [trial(2)])
    trials.keep(MACHINE, "model", [trial(16)])
    assert trials.recall(MACHINE, "model")[0] == (trial(16),)
    assert trials.recall(MACHINE, "other")[0] == (trial(2),)


def test_the_file_stays_small(monkeypatch):
    monkeypatch.setattr(trials, "MODELS", 3)
    for number in range(5):
        trials.keep(MACHINE, f"model {number}", [trial(size) for size in range(1, 12)])
    kept = json.loads(trials.path(MACHINE).read_text())["models"]
    assert list(kept) == ["model 2", "model 3", "model 4"]
    last = [t.micro_batch for t in trials.recall(MACHINE, "model 4")[0]]
    assert last == [4, 5, 6, 7, 8, 9, 10, 11]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"models": {"model": [{"outcome": "great"}]}}', "\x00\xff"]
)
def test_a_torn_file_is_ignored_said_and_replaced(content):
    path = trials.path(MACHINE)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    found, fault = trials.recall(MACHINE, "model")
    assert found == ()
    assert str(path) in fault
    trials.keep(MACHINE, "model", [trial()])
    assert trials.recall(MACHINE, "model") == ((trial(),), "")


def test_where_nothing_can_be_written_nothing_is_kept(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AUTOTRAIN_HOME", str(tmp_path / "file" / "below"))
    trials.keep(MACHINE, "model", [trial()])
    assert trials.recall(MACHINE, "model") == ((), "")


def test_a_trial_is_void_when_model_data_code_options_or_torch_change(monkeypatch):
    key = trials.key("model", "data", TASK)
    assert key == trials.key("model", "data", TASK.model_copy(update={"data": "elsewhere"}))
    others = [
        trials.key("other", "data", TASK),
        trials.key("model", "other", TASK),
        trials.key("model", "data", TASK.model_copy(update={"sha256": "1" * 64})),
        trials.key("model", "data", TASK.model_copy(update={"options": {"width": 9}})),
    ]
    monkeypatch.setattr(trials, "version", lambda name: "9.9")
    others.append(trials.key("model", "data", TASK))
    assert len({key, *others}) == 6


def _keep_one(number):
    trials.keep(MACHINE, f"model {number}", [trial()])


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_writers_at_the_same_time_lose_nothing():
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_keep_one, args=(number,)) for number in range(6)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    kept = json.loads(trials.path(MACHINE).read_text())["models"]
    assert sorted(kept) == [f"model {number}" for number in range(6)]
    assert trials.path(MACHINE).parent == files.cache_directory()
