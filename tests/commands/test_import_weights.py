"""`autotrain run --import-weights FILE`: a run that begins with somebody else's weights."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from .house import cli, edit, tree
from .staged import PLAN as STAGED
from .staged import SMALL, STAGES, TASK, here

RUN = "runs/mine"


def net(width=8):
    """As in the task of these tests."""
    return nn.Sequential(nn.Linear(2, width), nn.Dropout(0.2), nn.ReLU(), nn.Linear(width, 2))


@pytest.fixture
def given(folder):
    """The weights of a file in the folder, as they should come in."""
    torch.manual_seed(99)
    state = net().state_dict()
    save_file({f"module.{name}": value for name, value in state.items()}, "friend.safetensors")
    return state


def first(path, name="started"):
    lines = (json.loads(line) for line in path.read_text().splitlines())
    return next(line for line in lines if line["event"] == name)


def same(checkpoint, state, file="model.safetensors"):
    found = load_file(checkpoint / file)
    return all(torch.equal(found[name], value) for name, value in state.items())


def test_a_run_begins_with_them_and_says_where_they_came_from(folder, given, at):
    edit(folder / "plan.toml", train={"ema_decay": 0.9}, checkpoint={"keep": 9})
    assert at("run", "plan.toml", "--import-weights", "friend.safetensors").code == 0
    started = first(folder / RUN / "events.jsonl")
    assert started["weights_from"] == "friend.safetensors"
    assert started["weights_taken"] == "0.*: 2 tensors taken over; 3.*: 2 taken over"
    assert len(started["weights_sha256"]) == 64
    report = json.loads((folder / RUN / "report.json").read_text())
    assert report["weights"]["sha256"] == started["weights_sha256"]
    zero = folder / RUN / "checkpoints" / "step-00000000"
    assert same(zero, given)
    assert same(zero, given, "ema.safetensors")
    assert not same(folder / RUN / "checkpoints" / "step-00000008", given)


def test_a_resume_needs_no_file_even_before_the_first_step(folder, given, at):
    """Killed right after the weights were saved, it goes on from those."""
    edit(folder / "plan.toml", checkpoint={"keep": 9})
    assert at("run", "plan.toml", "--import-weights", "friend.safetensors").code == 0
    whole = (folder / RUN / "checkpoints" / "step-00000016" / "model.safetensors").read_bytes()
    for later in (folder / RUN / "checkpoints").glob("step-*[1-9]*"):
        shutil.rmtree(later)
    (folder / "friend.safetensors").unlink()
    assert at("run", "plan.toml", "--resume").code == 0
    again = (folder / RUN / "checkpoints" / "step-00000016" / "model.safetensors").read_bytes()
    assert again == whole


def test_a_run_that_lost_them_does_not_go_on_with_others(folder, given, at):
    assert (
        at("run", "plan.toml", "--import-weights", "friend.safetensors", "--max-steps", 2).code == 0
    )
    shutil.rmtree(folder / RUN / "checkpoints")
    said = at("run", "plan.toml", "--resume")
    assert said.code == 1
    assert "it began with the weights of friend.safetensors" in said.error


def test_a_run_whose_mirror_has_them_goes_on_from_there(folder, given, at):
    edit(folder / "plan.toml", checkpoint={"mirror": "backup"})
    begins = ("run", "plan.toml", "--import-weights", "friend.safetensors")
    assert at(*begins, "--max-steps", 2).code == 0
    shutil.rmtree(folder / RUN / "checkpoints")
    said = at("run", "plan.toml", "--resume")
    assert said.code == 0, said.err
    assert "resuming from step-00000002" in said.err


def test_it_is_for_a_run_that_begins(folder, given, at):
    said = at("run", "plan.toml", "--resume", "--import-weights", "friend.safetensors")
    assert said.code == 2
    assert "--resume has the weights of its checkpoint" in said.error


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("absent.pt", "No such file"),
        ("torn.safetensors", "its header claims"),
        ("other.safetensors", "0 of the model's 4 tensors are in it: 0.*: 2 tensors new"),
        ("nan.safetensors", "holds values that are not finite"),
    ],
)
def test_weights_that_cannot_be_used_leave_everything_as_it_was(folder, given, at, name, says):
    (folder / "torn.safetensors").write_bytes(b"x" * 50)
    save_file({"x": torch.ones(3)}, "other.safetensors")
    save_file({n: v / 0 for n, v in given.items()}, "nan.safetensors")
    before = tree(folder)
    said = at("run", "plan.toml", "--import-weights", name)
    assert said.code == 1
    assert name in said.error
    assert says in said.error
    assert tree(folder) == before


def test_of_a_plan_with_stages_the_first_begins_with_them(tmp_path, monkeypatch, home):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "task.py").write_text(TASK)
    assert here(tmp_path, *STAGED, *STAGES, *SMALL) == 0
    save_file({"encoder.0.weight": torch.ones(8, 4), "encoder.0.bias": torch.ones(8),
               "decoder.weight": torch.ones(4, 8)}, "friend.safetensors")  # fmt: skip
    given = ("--import-weights", "friend.safetensors")
    assert here(tmp_path, "run", "plan.toml", "--max-steps", "1", *given) == 0
    stages = sorted(tmp_path.glob("runs/*/[1-9]-*"))
    sources = [first(place / "events.jsonl")["weights_from"] for place in stages]
    assert sources[0] == "friend.safetensors"
    assert all(str(stages[0]) in source for source in sources[1:2])
    second = stages[1].name.partition("-")[2]
    assert here(tmp_path, "run", "plan.toml", "--fresh", "--stage", second, *given) == 2


@pytest.mark.slow
def test_all_of_several_processes_begin_with_them(folder, given):
    torch.save({"state_dict": given}, "friend.pt")
    done = cli("run", "plan.toml", "--nproc", 2, "--import-weights", "friend.pt", "--max-steps", 1,
               cwd=folder)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert same(folder / RUN / "checkpoints" / "step-00000000", given)
    assert first(folder / RUN / "events.jsonl")["weights_from"] == "friend.pt"
