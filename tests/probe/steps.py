"""Tasks to trace: small models of every sort, each with the path of this file as its own."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from autotrain import Loss, Task
from autotrain.probe.model import ModelTracer

HERE = Path(__file__)


class Rows(torch.utils.data.Dataset):
    """`count` samples of random (input, class)."""

    def __init__(self, *shape, count=64, classes=10, integers=0):
        generator = torch.Generator().manual_seed(0)
        self.inputs = (
            torch.randint(integers, (count, *shape), generator=generator)
            if integers
            else torch.randn(count, *shape, generator=generator)
        )
        self.labels = torch.randint(classes, (count,), generator=generator)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.inputs[index], self.labels[index]


def classifier(make, *shape, **data):
    return Task.classification(model=make, train=Rows(*shape, **data))


def mlp(width=256):
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
        nn.Linear(width, 10),
    )  # fmt: skip


def cnn(width=16):
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 10),
    )  # fmt: skip


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(40, 64, num_layers=2, batch_first=True)
        self.head = nn.Linear(64, 10)

    def forward(self, frames):
        return self.head(self.lstm(frames)[0][:, -1])


class Tied(nn.Module):
    """A transformer whose output shares the embedding's weights."""

    def __init__(self, words=500, width=64):
        super().__init__()
        self.embed = nn.Embedding(words, width)
        layer = nn.TransformerEncoderLayer(width, 4, 128, dropout=0.1, batch_first=True)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, words, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, words):
        return self.head(self.body(self.embed(words)))


def tied_task():
    def loss(model, batch):
        words = batch[0]
        logits = model(words)
        total = functional.cross_entropy(logits.flatten(0, 1), words.flatten(), reduction="sum")
        return Loss(total=total, weight=words.numel())

    return Task(model=Tied, train=Rows(32, integers=500), loss=loss)


def ctc_task():
    def loss(model, batch):
        frames, labels = batch
        log_probs = model(frames).log_softmax(-1).transpose(0, 1)
        steps, size = log_probs.shape[:2]
        targets = (labels[:, None] % 9 + 1).expand(size, 6)
        lengths = torch.full((size,), steps), torch.full((size,), 6)
        total = functional.ctc_loss(log_probs, targets, *lengths, reduction="sum")
        return Loss(total=total, weight=size)

    return Task(model=lambda: nn.Linear(40, 12), train=Rows(50, 40), loss=loss)


class Asks(nn.Module):
    """Looks at a value in forward, and does more or less work for it."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, inputs):
        out = self.layer(inputs)
        return out * out.exp() if inputs.mean().item() > 0.5 else out


class Reads(nn.Module):
    """Its initialisation reads what it has just drawn."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)
        with torch.no_grad():
            self.scale = 1.0 / float(self.layer.weight.std())

    def forward(self, inputs):
        return self.layer(inputs) * self.scale


TASKS = {
    "mlp": lambda: classifier(mlp, 64),
    "cnn": lambda: classifier(cnn, 3, 16, 16),
    "lstm": lambda: classifier(Recurrent, 50, 40),
    "tied transformer": tied_task,
    "ctc": ctc_task,
    "reads values when built": lambda: classifier(Reads, 64),
}
NEED_DATA = {
    "item": lambda: classifier(Asks, 64),
}


def opened(task: Task) -> ModelTracer:
    return ModelTracer.open(task, HERE)
