"""A task that learns in two stages: to rebuild points from an encoder, then to classify them."""

import hashlib
import sys
from pathlib import Path

import pytest

from autotrain.__main__ import main

from .house import POINTS

TASK = (
    """
import os
import signal

import torch
from torch import nn

from autotrain import Loss, Task

CALLS = {}

"""
    + POINTS
    + """

class Net(nn.Module):
    def __init__(self, goal, width):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(4, width), nn.Dropout(0.2), nn.Tanh())
        if goal == "rebuild":
            self.decoder = nn.Linear(width, 4)
        else:
            self.head = nn.Linear(width, 2)


def killed(at):
    if os.environ.get("KILL_AT") == at:
        os.kill(os.getpid(), signal.SIGKILL)


def counted(goal):
    CALLS[goal] = CALLS.get(goal, 0) + 1
    killed(f"{goal}:{CALLS[goal]}")


def rebuild(model, batch):
    counted("rebuild")
    x, _ = batch
    total = (model.decoder(model.encoder(x)) - x).square().sum()
    return Loss(total=total, weight=x.numel())


def classify(model, batch):
    counted("classify")
    x, y = batch
    total = nn.functional.cross_entropy(model.head(model.encoder(x)), y, reduction="sum")
    return Loss(total=total, weight=len(y))


def task(data, goal="rebuild", width=8):
    killed(f"{goal}:task")
    return Task(
        model=lambda: Net(goal, width), train=Points(64, 1, 4), valid=Points(16, 2, 4),
        loss=rebuild if goal == "rebuild" else classify,
    )
"""
)
ENCODER = "encoder:train.epochs=2"
HEAD = "head:task.goal=classify,train.epochs=2,optimizer.lr=0.01"
STAGES = ("--stage", ENCODER, "--stage", HEAD)
PLAN = ("plan", "--task", "task.py", "--no-calibrate")
SMALL = (
    "--set", "batch.micro_batch=8", "--set", "device.threads=1",
    "--set", "checkpoint.every_steps=3", "--set", "stage.head.batch.accum_steps=2",
)  # fmt: skip


def here(folder: Path, *arguments: str) -> int:
    """The command line in this process and in a folder; its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["autotrain", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
    return end.value.code


def digest(run: Path, pointer: str = "latest") -> str:
    """SHA-256 of the weights of a run's checkpoint."""
    name = (run / "checkpoints" / pointer).read_text().strip()
    raw = (run / "checkpoints" / name / "model.safetensors").read_bytes()
    return hashlib.sha256(raw).hexdigest()
