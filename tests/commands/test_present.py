"""`autotrain run` says what is no longer as it was when the plan was made."""

import dataclasses
import json

import pytest

from autotrain import planfile
from autotrain.commands import present
from autotrain.errors import AutotrainError
from autotrain.probe.dataset import data_now, probe_dataset
from autotrain.task import load_task

from .house import PLAN, SMALL, edit

SHORT = ("run", "plan.toml", "--max-steps", "1")


def warnings(said):
    return [x for x in said.err.splitlines() if x.startswith("warning: ")]


def test_what_is_as_it_was_is_not_said(folder, at):
    said = at(*SHORT)
    assert said.code == 0
    assert warnings(said) == []


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"cores": 99}, "cores: 99 when planned, "),
        ({"ram_bytes": 1 << 40}, "RAM: 1 TiB when planned, "),
        ({"versions": {"torch": "1.0"}}, "torch: 1.0 when planned, 2."),
        ({"parameters": 5}, "model: 5 parameters when planned, 42 now"),
        ({"train_samples": 60}, "data: 60 samples to train on when planned, 64 now"),
        ({"dataset": "0" * 64}, "data: other content in as many samples when planned"),
    ],
)
def test_each_change_is_a_line_with_the_way_out_and_the_run_goes_on(folder, at, inputs, says):
    edit(folder / "plan.toml", inputs=inputs)
    said = at(*SHORT)
    assert said.code == 0
    (line,) = warnings(said)
    assert line.startswith(f"warning: {says}")
    assert "(`autotrain plan --refresh plan.toml` makes the plan for what is here)" in line


def test_the_warnings_stand_in_the_run_s_own_record(folder, at):
    edit(folder / "plan.toml", inputs={"cores": 99})
    assert at(*SHORT).code == 0
    events = [json.loads(x) for x in (folder / "runs/mine/events.jsonl").read_text().splitlines()]
    assert [e["event"] for e in events[:2]] == ["started", "warned"]
    report = json.loads((folder / "runs/mine/report.json").read_text())
    assert "cores: 99 when planned" in report["warnings"][0]["message"]


def test_changed_code_that_is_trusted_is_said_once_and_not_by_the_run_s_own_plan(folder, at):
    with open(folder / "task.py", "a") as file:
        file.write("\n# more\n")
    said = at(*SHORT, "--trust")
    assert any("task code: sha256" in line for line in warnings(said))
    said = at("run", "runs/mine/plan.toml", "--resume", "--max-steps", "2")
    assert warnings(said) == []


def test_more_memory_than_is_free_is_said(folder, at):
    high = {"low": 1e15, "expected": 2e15, "high": 3e15}
    edit(
        folder / "plan.toml", memory={"budget_bytes": 10**15}, predicted={"device_peak_bytes": high}
    )
    said = at(*SHORT)
    assert said.code == 0
    at_all, now = warnings(said)
    assert "may be killed" in at_all  # said before anything large is loaded
    assert "will hardly fit" in now


def test_looking_that_fails_harms_no_run(folder, at, monkeypatch):
    monkeypatch.setattr(present, "look", lambda *_: 1 / 0)
    said = at(*SHORT)
    assert said.code == 0
    assert "not compared with what the plan was made from: division by zero" in said.err


RANDOM = """
import torch
from torch import nn
from autotrain import Task

class Noise(torch.utils.data.Dataset):
    def __len__(self):
        return 32
    def __getitem__(self, index):
        return torch.rand(4), index % 2

def task(data):
    return Task.classification(
        model=lambda: nn.Linear(4, 2), train=Noise(), valid=Noise()
    )
"""


def test_samples_that_are_never_twice_the_same_are_not_compared(folder, at):
    (folder / "task.py").write_text(RANDOM)
    assert at(*PLAN, *SMALL).code == 0
    said = at(*SHORT)
    assert said.code == 0
    assert warnings(said) == []


def test_data_that_the_task_cannot_count_is_left_to_the_run(folder):
    class Odd:
        def __len__(self):
            raise OSError("gone")

    plan = planfile.load(folder / "plan.toml")
    task = load_task(folder / "task.py", None, {})
    broken = dataclasses.replace(task, train=Odd())
    assert all(
        c.what != "data" for c in present.look(plan, broken, folder / "task.py", None).changes
    )


@pytest.mark.parametrize("kind", ["images", "speech", "features", "table"])
def test_the_quick_fingerprint_is_the_probe_s(tmp_path, kind):
    _write(tmp_path, kind)
    profile = probe_dataset(tmp_path)
    assert profile.kind == kind
    assert data_now(tmp_path) == (profile.fingerprint, profile.bytes)
    first = next(p for p in sorted(tmp_path.rglob("*")) if p.is_file())
    first.write_bytes(first.read_bytes() + b"\n")
    assert data_now(tmp_path)[0] != profile.fingerprint


def test_data_that_is_gone_is_an_error_of_its_own(tmp_path):
    with pytest.raises(AutotrainError):
        data_now(tmp_path / "nowhere")


def _write(folder, kind):
    """Six samples of a kind."""
    import numpy as np

    if kind == "table":
        (folder / "rows.csv").write_text("a,b\n" + "1,2\n" * 6)
        return
    if kind == "images":
        from PIL import Image

        for number in range(6):
            place = folder / f"class{number % 2}" / f"{number}.png"
            place.parent.mkdir(exist_ok=True)
            Image.new("RGB", (8, 8), (number, 0, 0)).save(place)
        return
    if kind == "features":
        rows = ["file,gloss"]
        for number in range(6):
            np.savez(folder / f"{number}.npz", features=np.ones((9, 4), "f4") * number)
            rows.append(f"{number}.npz,HELLO YOU")
        (folder / "glosses.csv").write_text("\n".join(rows) + "\n")
        return
    import soundfile

    rows = ["file,text"]
    for number in range(6):
        noise = np.random.default_rng(number).normal(size=8000) / 10
        soundfile.write(folder / f"{number}.wav", noise, 16000)
        rows.append(f"{number}.wav,hello")
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")


def test_a_resume_with_other_samples_says_so_though_the_plan_was_made_for_them(folder, at):
    """Of what the run's own copy of the plan says that it was; the copy is of this place then."""
    assert at(*SHORT).code == 0
    other = {"dataset": "0" * 64}
    edit(folder / "runs/mine/plan.toml", inputs=other)
    said = at("run", "plan.toml", "--max-steps", "2", "--resume")
    (line,) = warnings(said)
    assert line.startswith(
        "warning: data: other content in as many samples in the run's plan so far, "
    )
    assert line.endswith("if it ran with the former, it is not to the bit what it would have been")
    assert warnings(at("run", "plan.toml", "--max-steps", "3", "--resume")) == []
    edit(folder / "plan.toml", inputs=other)
    edit(folder / "runs/mine/plan.toml", inputs=other)
    first, last = warnings(at("run", "plan.toml", "--max-steps", "4", "--resume"))
    assert "when planned" in first
    assert "so far" in last
