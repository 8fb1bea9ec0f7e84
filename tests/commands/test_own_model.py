"""A model of one's own, outside the repository: a transformer on text, by the front door."""

import json

import pytest

from autotrain.events import from_json

from .house import cli

TEXT_TASK = '''
"""Next-character prediction: a causal transformer, padded batches, a loss by token."""

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from autotrain import Loss, Task

PAD = 0


class Lines(torch.utils.data.Dataset):
    """Sample i: one line of the file as character numbers [length]; 0 is padding."""

    def __init__(self, lines, alphabet):
        number = {c: i + 1 for i, c in enumerate(alphabet)}
        self.lines = [torch.tensor([number[c] for c in line]) for line in lines]

    def __len__(self):
        return len(self.lines)

    def __getitem__(self, index):
        return self.lines[index]


class Model(nn.Module):
    """[batch, length] character numbers -> [batch, length, alphabet] logits."""

    def __init__(self, size, width):
        super().__init__()
        self.embed = nn.Embedding(size, width, padding_idx=PAD)
        self.place = nn.Embedding(64, width)
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2)
        self.out = nn.Linear(width, size)

    def forward(self, x_bt):
        length = x_bt.shape[1]
        places = torch.arange(length, device=x_bt.device)
        ahead = torch.ones(length, length, dtype=torch.bool, device=x_bt.device).triu(1)
        x_btd = self.embed(x_bt) + self.place(places)
        return self.out(self.layers(x_btd, mask=ahead, src_key_padding_mask=x_bt == PAD))


def loss(model, x_bt):
    logits, target = model(x_bt[:, :-1]), x_bt[:, 1:]
    kept = target != PAD
    total = nn.functional.cross_entropy(
        logits.float().flatten(0, 1), target.flatten(), ignore_index=PAD, reduction="sum"
    )
    return Loss(total=total, weight=kept.sum())


def measure(model, x_bt):
    right = (model(x_bt[:, :-1]).argmax(-1) == x_bt[:, 1:]) & (x_bt[:, 1:] != PAD)
    return {"token_accuracy": (right.sum(), (x_bt[:, 1:] != PAD).sum())}


def pad(samples):
    return pad_sequence(samples, batch_first=True, padding_value=PAD)


def task(data, width=32):
    lines = data.read_text().splitlines()
    alphabet = sorted(set("".join(lines)))
    train = Lines(lines, alphabet)
    return Task(
        model=lambda: Model(len(alphabet) + 1, width),
        train=train,
        collate=pad,
        loss=loss,
        measure=measure,
        length=lambda index: len(lines[index]),
        monitor="token_accuracy",
        better="higher",
    )
'''
SETTINGS = ("train.epochs=6", "device.threads=1", "batch.global_batch=16", "optimizer.lr=0.003")


@pytest.fixture
def text(tmp_path, monkeypatch):
    """A folder with the task and 160 lines of one to seven words, each the alphabet's run."""
    words = [f"{'abcdefghijklmnopqrstuvwxyz'[i : i + 5]}" for i in range(0, 20)]
    lines = [" ".join(words[(i + k) % 20] for k in range(1 + i % 7)) for i in range(160)]
    (tmp_path / "corpus.txt").write_text("\n".join(lines))
    (tmp_path / "my_text.py").write_text(TEXT_TASK)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_transformer_on_text_plans_runs_and_learns(text, at):
    chosen = [part for pair in SETTINGS for part in ("--set", pair)]
    said = at("plan", "corpus.txt", "--task", "my_text.py", "--no-calibrate", "--json", *chosen)
    assert said.code == 0
    assert said.err == ""
    printed = json.loads(said.out)
    assert printed["run"]["name"] == "my_text"
    assert printed["batch"]["global_batch"] == 16
    said = at("run", "plan.toml", "--json")
    assert said.code == 0
    events = [from_json(line) for line in said.out.splitlines()]
    steps = [e for e in events if e.name == "step"]
    tokens = sum(e.weight for e in steps if e.epoch == 1)
    lines = (text / "corpus.txt").read_text().splitlines()
    assert 0.7 * sum(map(len, lines)) < tokens < sum(map(len, lines))
    evaluated = [e for e in events if e.name == "evaluated"]
    assert evaluated[-1].metrics["token_accuracy"] > 0.6
    assert evaluated[-1].loss < evaluated[0].loss / 2


@pytest.mark.slow
def test_its_workers_may_start_by_spawn(text):
    chosen = [part for pair in SETTINGS for part in ("--set", pair)]
    chosen += ["--set", "loader.workers=2", "--set", "loader.start_method=spawn"]
    done = cli("plan", "corpus.txt", "--task", "my_text.py", "--no-calibrate", *chosen, cwd=text)
    assert done.returncode == 0, done.stderr
    done = cli("run", "plan.toml", cwd=text)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
