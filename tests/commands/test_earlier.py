"""A stage that is taught by an earlier one: planned before that has run, run with its best."""

import json
import shutil
import tomllib

import pytest

from autotrain.blocks.teacher import weights_file

from .house import POINTS
from .staged import digest, here

TASK = (
    """
import torch
from torch import nn

from autotrain import Task
from autotrain.blocks.distilling import distilled

"""
    + POINTS
    + """

def net(width):
    return nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 2))


def task(data, width=16, teacher=""):
    made = Task.classification(
        model=lambda: net(width), train=Points(64, 1, 4), valid=Points(16, 2, 4)
    )
    with open("told.txt", "a") as file:
        file.write(f"{teacher}\\n")
    return distilled(made, lambda: net(16), teacher) if teacher else made
"""
)
PLAN = ("plan", "--task", "task.py", "--no-calibrate", "--no-trial")
SMALL = ("--set", "batch.micro_batch=8", "--set", "device.threads=1", "--set", "train.epochs=2")
BIG, TAUGHT = "big", "small:weights=none,task.width=4,task.teacher=stage:big"


@pytest.fixture(scope="module")
def done(home, tmp_path_factory):
    folder = tmp_path_factory.mktemp("taught") / "mine"
    folder.mkdir()
    (folder / "task.py").write_text(TASK)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTOTRAIN_HOME", str(home))
        assert here(folder, *PLAN, "--stage", BIG, "--stage", TAUGHT, *SMALL) == 0
        (folder / "told-plan.txt").write_text((folder / "told.txt").read_text())
        (folder / "told.txt").unlink()
        assert here(folder, "run", "plan.toml") == 0
    return folder


@pytest.fixture
def folder(done, tmp_path, monkeypatch):
    copy = tmp_path / "mine"
    shutil.copytree(done, copy)
    monkeypatch.chdir(copy)
    return copy


def told(folder):
    return (folder / "told.txt").read_text().splitlines()


def test_a_plan_is_made_with_the_words_and_a_run_with_the_best_checkpoint(done):
    assert set((done / "told-plan.txt").read_text().splitlines()) == {"", "stage:big"}
    best = (done / "runs/mine/1-big/checkpoints/best").read_text().strip()
    there = (done / "runs/mine/1-big/checkpoints" / best).resolve()
    assert told(done) == ["", str(there)]
    assert weights_file(there).is_file()
    kept = tomllib.loads((done / "runs/mine/2-small/plan.toml").read_text())
    assert kept["task"]["options"]["teacher"] == "stage:big"
    events = (done / "runs/mine/2-small/events.jsonl").read_text().splitlines()
    assert any("soft" in json.loads(line).get("parts", {}) for line in events)


def test_a_stage_that_is_resumed_finds_its_teacher_again(folder):
    run = folder / "runs/mine"
    whole = digest(run / "2-small")
    shutil.rmtree(run / "2-small")
    assert here(folder, "run", "plan.toml", "--stage", "small", "--max-steps", "3") == 0
    assert here(folder, "run", "plan.toml", "--resume") == 0
    assert digest(run / "2-small") == whole


def test_a_stage_whose_teacher_was_trained_again_begins_anew(folder, capsys):
    assert here(folder, "run", "plan.toml", "--stage", "big", "--fresh", "--max-steps", "1") == 0
    assert here(folder, "run", "plan.toml", "--stage", "small", "--resume") == 0
    assert "the stage before has other weights now" in capsys.readouterr().err
    assert told(folder)[-1].endswith("step-00000001")


def test_without_its_teacher_a_stage_does_not_begin(folder, capsys):
    shutil.rmtree(folder / "runs")
    assert here(folder, "run", "plan.toml", "--stage", "small") == 1
    assert "weights of big, which has not finished" in capsys.readouterr().err
    assert not (folder / "runs/mine/2-small").exists()


def test_a_stage_that_is_not_before_is_refused_when_planned_and_when_run(folder, capsys):
    swapped = ("--stage", TAUGHT, "--stage", BIG)
    assert here(folder, *PLAN, *swapped, *SMALL) == 2
    assert "stage.small.task.options.teacher: no stage 'big' before" in capsys.readouterr().err
    assert here(folder, *PLAN, "--set", "task.teacher=stage:big") == 2
    assert "task.options.teacher: no stage 'big' before" in capsys.readouterr().err
    text = (folder / "plan.toml").read_text()
    (folder / "plan.toml").write_text(text.replace("stage:big", "stage:bug"))
    assert here(folder, "run", "plan.toml", "--fresh") == 2
    assert "plan.toml: stage.small.task.options.teacher: no stage 'bug'" in capsys.readouterr().err


def test_the_copy_of_a_stages_plan_goes_on_by_itself(folder):
    shutil.rmtree(folder / "runs/mine/2-small/checkpoints")
    assert here(folder, "run", "runs/mine/2-small/plan.toml", "--resume") == 0
    assert (folder / "runs/mine/2-small/checkpoints/latest").is_file()
