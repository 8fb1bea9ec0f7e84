"""A run that has learned, of a task with all that comes after training: to be used by tests."""

import shutil

import pytest

from .house import PLAN, TASK
from .staged import here

LEARNS = (
    "--set", "train.epochs=4", "--set", "batch.micro_batch=8", "--set", "device.threads=1",
    "--set", "batch.accum_steps=1", "--set", "optimizer.lr=0.05", "--set", "checkpoint.keep=9",
)  # fmt: skip
AVERAGES = ("--set", "train.ema_decay=0.9")
WHOLE = TASK.replace(
    "def task(data",
    """
def predict(model, given, out):
    print("asked for", given)
    if given == "no dict":
        return [1]
    if given == "half":
        (out / "half.wav").write_text("half")
        raise ValueError("it broke")
    point = torch.tensor([float(word) for word in given.split()])
    if given == "0 0":
        (out / "drawn.txt").write_text(str(torch.rand(())))
        return {"file": str(out / "drawn.txt"), "eval": not model.training}
    return {"class": int(model(point[None]).argmax()), "left": float("nan")}


def task(data""",
).replace(
    "valid=Points(16, 2)\n",
    "valid=Points(16, 2), test=Points(12, 3), classes=['left', 'right'], predict=predict\n",
)


def learned(folder, home, source, *more):
    """A folder with that task, planned and run."""
    folder.mkdir()
    (folder / "task.py").write_text(source)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTOTRAIN_HOME", str(home))
        assert here(folder, *PLAN, *LEARNS, *more) == 0
        assert here(folder, "run", "plan.toml", "--json") == 0
    return folder


def copied(folder, tmp_path):
    """A copy of it, to spoil."""
    return shutil.copytree(folder, tmp_path / "copy")
