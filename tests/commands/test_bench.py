"""`autotrain bench memory`: predicted beside measured, by real steps."""

import json

import pytest

from autotrain.files import shipped_names
from autotrain.probe import child
from autotrain.schema import Trial

from .house import TASK

MIB = 2**20


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "task.py").write_text(TASK)
    return tmp_path


@pytest.fixture
def steps(monkeypatch):
    """In place of the child: every trial takes 800 MiB; what was tried is noted."""
    asked = []

    def take_steps(request, *, seconds, most_bytes=None):
        asked.append(request)
        fields = {"outcome": "ok", "steps": 3, "device_peak_bytes": 800 * MIB}
        return Trial.model_validate(child.setup_of(request.plan) | fields)

    monkeypatch.setattr(child, "take_steps", take_steps)
    return asked


def test_a_task_is_measured_at_one_sample_as_planned_and_at_four_times_as_many(here, at, steps):
    said = at("bench", "memory", "--task", "task.py", "--set", "task.width=16", "--json")
    assert said.code == 0
    printed = json.loads(said.out)
    assert [row["micro_batch"] for row in printed["rows"]] == [1, 8, 32]
    assert [row["accum_steps"] for row in printed["rows"]] == [1, 1, 1]
    assert {row["model"] for row in printed["rows"]} == {"task.py"}
    (figure,) = printed["figures"]
    assert (figure["what"], figure["cases"]) == ("device peak", 3)
    # A trial has none, whatever a plan would choose.
    assert {request.plan.because["loader"]["workers"].kind for request in steps} == {"user"}
    assert {request.plan.loader.workers for request in steps} == {0}
    assert {request.plan.task.options["width"] for request in steps} == {16}
    assert not (here / "plan.toml").exists()


def test_a_size_of_the_users_own_is_the_only_one(here, at, steps):
    said = at("bench", "memory", "--task", "task.py", "--set", "batch.micro_batch=4")
    assert [request.plan.batch.micro_batch for request in steps] == [4]
    assert "device peak" in said.out
    assert "1 cases: median" in said.out


@pytest.mark.slow
def test_every_template_is_measured_by_default(here, at, steps):
    """Those that bring no data get noise, or the clips that come along; none of it is left."""
    said = at("bench", "memory", "--json")
    assert said.code == 0, said.err
    models = [row["model"] for row in json.loads(said.out)["rows"]]
    assert set(models) == set(shipped_names("templates"))
    assert sorted(p.name for p in here.iterdir()) == ["task.py"]


def test_data_without_a_model_is_asked_about(here, at, steps):
    said = at("bench", "memory", "data")
    assert said.code == 1
    assert "data for what?" in said.error


@pytest.mark.slow
def test_the_starter_by_the_real_thing(here, at):
    said = at("bench", "memory", "--template", "starter", "--tensors", "--json")
    assert said.code == 0, said.err
    printed = json.loads(said.out)
    assert all(row["outcome"] == "ok" for row in printed["rows"])
    tensors = next(f for f in printed["figures"] if f["what"] == "tensor peak")
    assert tensors["worst"] < 0.03
