"""`autotrain export`: each format answers as the model does; where it cannot, nothing is left."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from .house import TASK, edit, tree
from .used import copied, learned

PARTS = (
    TASK.replace("Task.classification(", "parts(")
    .replace(
        "def task(data",
        '''
class Tied(nn.Module):
    """Called by its parts; its two tables are one."""

    def __init__(self, width):
        super().__init__()
        self.first, self.last = nn.Linear(2, width), nn.Linear(2, width)
        self.last.weight = self.first.weight


def summed(model, batch):
    x, y = batch
    logits = model.first(x)[:, :2] + model.last(x)[:, :2]
    total = nn.functional.cross_entropy(logits, y, reduction="sum")
    return Loss(total=total, weight=len(y))


def parts(model, **more):
    return Task(loss=summed, model=lambda: Tied(8), **more)


def task(data''',
    )
    .replace("import Task", "import Loss, Task")
)


@pytest.fixture(scope="module")
def in_parts(tmp_path_factory, home):
    """A run whose loss never calls the model itself, and whose weights are tied."""
    return learned(tmp_path_factory.mktemp("parts") / "mine", home, PARTS)


@pytest.fixture(scope="module")
def called(tmp_path_factory, home):
    return learned(tmp_path_factory.mktemp("called") / "mine", home, TASK)


@pytest.fixture
def trained(called, tmp_path, monkeypatch):
    """A copy of it, to spoil; the test works in it."""
    folder = copied(called, tmp_path)
    monkeypatch.chdir(folder)
    return folder


def exported(at, *arguments):
    said = at("export", *arguments, "--json")
    assert said.code == 0
    return json.loads(said.out)


def weights(run, pointer="best"):
    name = (run / "checkpoints" / pointer).read_text().strip()
    return load_file(run / "checkpoints" / name / "model.safetensors")


def test_onnx_is_checked_on_real_batches_of_several_sizes(trained, at):
    onnxruntime = pytest.importorskip("onnxruntime")
    found = exported(at, "runs/mine", "--to", "onnx")
    assert found["inputs"] == [{"name": "input", "dtype": "float32", "shape": ["batch", 2]}]
    assert found["checked"]["batches"] == [3, 5, 3, 3, 3, 2, 1, 4]
    assert found["checked"]["most_difference"] < 1e-5
    raw = (trained / "runs/mine/model.onnx").read_bytes()
    assert hashlib.sha256(raw).hexdigest() == found["sha256"]
    session = onnxruntime.InferenceSession("runs/mine/model.onnx")
    assert session.run(None, {"input": torch.randn(7, 2).numpy()})[0].shape == (7, 2)


@pytest.mark.slow
def test_torchscript_runs_without_the_tasks_code(trained, at, tmp_path):
    exported(at, "runs/mine", "--to", "torchscript", "-o", str(tmp_path / "new/model.ts"))
    code = "import torch; print(list(torch.jit.load('model.ts')(torch.ones(6, 2)).shape))"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=tmp_path / "new",
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert done.stdout.strip() == "[6, 2]"


def test_a_state_dict_is_the_checkpoints_weights_under_every_name(in_parts, at, tmp_path):
    run = in_parts / "runs/mine"
    found = exported(at, run, "--to", "state-dict", "-o", tmp_path / "a.safetensors")
    mine, kept = load_file(tmp_path / "a.safetensors"), weights(run)
    assert mine.keys() - kept.keys() == {"last.weight"}
    assert torch.equal(mine["last.weight"], mine["first.weight"])
    assert all(torch.equal(mine[name], kept[name]) for name in kept)
    assert found["checked"]["most_difference"] == 0
    exported(at, run, "--to", "state-dict", "-o", tmp_path / "a.pt")
    again = torch.load(tmp_path / "a.pt", weights_only=True)
    assert again.keys() == mine.keys()


@pytest.mark.parametrize("to", ["onnx", "torchscript"])
def test_a_model_that_is_never_called_is_refused_and_nothing_is_left(in_parts, at, to):
    pytest.importorskip("onnxruntime")
    before = tree(in_parts / "runs/mine")
    said = at("export", in_parts / "runs/mine", "--to", to)
    assert said.code == 1
    assert "never calls the model itself (Tied)" in said.error
    assert "--to state-dict" in said.err
    assert tree(in_parts / "runs/mine") == before


def test_another_checkpoint_has_other_weights(trained, at, tmp_path):
    run = trained / "runs/mine"
    for which in ("best", "step-8"):
        exported(
            at, run, "--to", "state-dict", "--checkpoint", which, "-o", tmp_path / f"{which}.pt"
        )
    one, other = (torch.load(tmp_path / f"{n}.pt", weights_only=True) for n in ("best", "step-8"))
    assert not torch.equal(one["0.weight"], other["0.weight"])


def test_the_text_says_what_it_is_given_and_how_it_was_checked(trained, at):
    said = at("export", "runs/mine", "--to", "torchscript")
    assert "exported    mine at step-" in said.out
    assert "given       input [batch, 2] float32" in said.out
    assert "real batches of 1, 2, 3, 4, 5 samples" in said.out
    assert said.out.splitlines()[-1].startswith("next        python -c")
    assert "the task got" not in said.out


@pytest.mark.parametrize(
    "words",
    [["--to", "tflite"], ["--to", "state-dict", "-o", "x.bin"], ["--to", "onnx", "-o", "."]],
)
def test_wrong_words_are_wrong_usage(trained, at, words):
    assert at("export", "runs/mine", *words).code == 2


@pytest.mark.root
@pytest.mark.parametrize("to", ["torchscript", "state-dict"])
def test_a_full_disk_leaves_what_was_there(trained, at, small_disk, tmp_path, to):
    place = tmp_path / "small"
    place.mkdir()
    small_disk(place, "64k")
    (place / "model.pt").write_text("of before")
    (place / "filler").write_bytes(b"x" * 60_000)
    said = at("export", "runs/mine", "--to", to, "-o", place / "model.pt")
    assert said.code == 1
    assert "No space left on device" in said.error
    assert (place / "model.pt").read_text() == "of before"
    assert sorted(os.listdir(place)) == ["filler", "model.pt"]


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_signal_leaves_nothing_half_made(trained, number):
    """The task takes its time as soon as the export is under way."""
    slow = TASK.replace(
        "def net(width):",
        """
import os, time
class Slow(nn.Linear):
    def forward(self, x):
        if os.environ.get("SLOW"):
            print("under way", flush=True)
            time.sleep(60)
        return super().forward(x)


def net(width):""",
    ).replace("nn.Sequential(nn.Linear(2", "nn.Sequential(Slow(2")
    (trained / "task.py").write_text(slow)
    edit(trained / "runs/mine/plan.toml", task={"file": str(trained / "task.py")})
    before = tree(trained / "runs/mine")
    command = [
        sys.executable,
        "-m",
        "autotrain",
        "export",
        "runs/mine",
        "--to",
        "torchscript",
        "--trust",
    ]
    going = subprocess.Popen(command, cwd=trained, stderr=subprocess.PIPE, text=True,
                             env={**os.environ, "SLOW": "1"})  # fmt: skip
    for line in going.stderr:
        if "under way" in line:
            break
    assert any(each.name.startswith(".model.ts") for each in (trained / "runs/mine").iterdir())
    time.sleep(0.2)
    going.send_signal(number)
    assert going.wait(timeout=60) == {signal.SIGINT: 130, signal.SIGTERM: 143}[number]
    going.stderr.close()
    assert tree(trained / "runs/mine") == before
