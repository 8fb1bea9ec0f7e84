"""A task whose samples differ in length, by the command line: planned, run, stopped, resumed."""

import hashlib
import json
import math
import signal
import subprocess
import sys

import pytest

from autotrain import planfile

from .house import cli

TASK = """
import time

import torch
from torch import nn
from torch.nn import functional

from autotrain import Loss, Task


class Spoken(torch.utils.data.Dataset):
    def __init__(self, count, seed, pause):
        generator = torch.Generator().manual_seed(seed)
        self.frames = (torch.randn(count, generator=generator) * 0.6 + 2.6).exp().clamp(6, 60)
        self.frames, self.pause = self.frames.long().tolist(), pause

    def __len__(self):
        return len(self.frames)

    def __getitem__(self, index):
        time.sleep(self.pause)
        labels = torch.arange(self.frames[index] // 3) % 5 + 1
        frames = functional.one_hot(labels.repeat_interleave(3), 8).float()
        return frames + 0.1 * torch.randn(frames.shape), labels


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.memory, self.out = nn.LSTM(8, 16, batch_first=True), nn.Linear(16, 6)

    def forward(self, frames):
        return self.out(self.memory(frames)[0]).log_softmax(-1)


def pad(samples):
    frames, labels = zip(*samples)
    sizes = [torch.tensor([len(x) for x in part]) for part in (frames, labels)]
    padded = [nn.utils.rnn.pad_sequence(list(part), batch_first=True) for part in (frames, labels)]
    return (*padded, *sizes)


def loss(model, batch):
    frames, labels, *sizes = batch
    scores = model(frames).transpose(0, 1)
    total = functional.ctc_loss(scores, labels, *sizes, reduction="sum", zero_infinity=True)
    return Loss(total=total, weight=sizes[1].sum())


def task(data, pause=0.0):
    train = Spoken(240, 1, pause)
    return Task(
        model=Net, train=train, valid=Spoken(20, 2, 0.0), collate=pad, loss=loss,
        length=train.frames.__getitem__,
    )
"""
PLAN = (
    "plan", "--task", "task.py", "--no-calibrate", "--no-trial",
    "--set", "train.epochs=2", "--set", "device.threads=1", "--set", "loader.workers=0",
    "--set", "run.log_every_steps=1",
)  # fmt: skip


@pytest.fixture
def spoken(tmp_path, monkeypatch):
    """A folder with that task."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "task.py").write_text(TASK)
    monkeypatch.chdir(folder)
    return folder


def test_a_task_with_lengths_is_planned_with_buckets_and_run_as_planned(spoken, at):
    said = at(*PLAN, "--json")
    assert said.code == 0
    made = json.loads(said.out)["batch"]
    sizes = [size for _, size in made["buckets"]]
    assert len(sizes) >= 2
    assert sizes == sorted(sizes, reverse=True)
    assert made["micro_batch"] == sizes[-1]
    assert at("explain", "plan.toml", "batch.buckets").code == 0
    assert at("run", "plan.toml").code == 0
    lines = (spoken / "runs/mine/events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    plan = planfile.load(spoken / "plan.toml")
    started = events[0]
    items = plan.batch.target_items / plan.batch.global_batch * 240
    assert started["steps_per_epoch"] == round(items / plan.batch.target_items)
    steps = [event for event in events if event["event"] == "step"]
    assert sum(event["samples"] for event in steps) == 2 * 240
    # Frames, not samples, are what a step takes alike.
    samples = [event["samples"] for event in steps]
    assert max(samples) > 1.5 * min(samples)
    assert not [event for event in events if event["event"] == "warned"]


def test_buckets_off_is_as_it_was(spoken, at):
    assert at(*PLAN, "--set", "batch.buckets=off").code == 0
    batch = planfile.load(spoken / "plan.toml").batch
    assert (batch.buckets, batch.target_items) == (None, None)
    assert math.prod((batch.micro_batch, batch.accum_steps)) == batch.global_batch
    assert "buckets" not in (spoken / "plan.toml").read_text().partition("[because")[0]


def weights(folder) -> str:
    points = folder / "runs/mine/checkpoints"
    model = points / (points / "latest").read_text().strip() / "model.safetensors"
    return hashlib.sha256(model.read_bytes()).hexdigest()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_bucketed_run_that_was_stopped_by_hand_ends_as_if_it_never_was(spoken, at):
    assert at(*PLAN, "--set", "task.pause=0.01").code == 0
    command = [sys.executable, "-m", "autotrain", "run", "plan.toml", "--json"]
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen(command, cwd=spoken, **quiet) as process:
        for line in process.stdout:
            found = json.loads(line)
            if found["event"] == "step" and found["step"] >= 4:
                process.send_signal(signal.SIGINT)
                break
        process.stdout.read()
    assert process.wait() == 130
    assert cli("run", "plan.toml", "--resume", cwd=spoken).returncode == 0
    stopped = weights(spoken)
    assert cli("run", "plan.toml", "--fresh", cwd=spoken).returncode == 0
    assert weights(spoken) == stopped
