"""Tasks for tests: one with all that makes a resume hard, one of padded sequences."""

import random

import numpy
import torch
from torch import nn

from autotrain.task import Loss, Task


class Noisy(torch.utils.data.Dataset):
    """Samples augmented from all three generators, so that a wrong seed shows."""

    def __init__(self, count):
        self.x = torch.randn(count, 6, generator=torch.Generator().manual_seed(1))
        self.y = (self.x.sum(dim=1) > 0).long()

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        noise = 0.1 * (torch.randn(6) + random.random() + float(numpy.random.rand()))
        return self.x[index] + noise, self.y[index]


class NoisyNet(nn.Module):
    """Dropout and BatchNorm."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 16)
        self.norm = nn.BatchNorm1d(16)
        self.drop = nn.Dropout(0.3)
        self.last = nn.Linear(16, 2)

    def forward(self, x):
        return self.last(self.drop(torch.relu(self.norm(self.first(x)))))


def noisy_task(count=45, **more):
    """45 samples, of which a fifth is held out: 36, so 5 steps of 8 an epoch, the last ragged."""
    return Task.classification(model=NoisyNet, train=Noisy(count), **more)


class Sequences(torch.utils.data.Dataset):
    """Float64 sequences of 1 to 9 frames, some of them masked."""

    def __init__(self, count):
        generator = torch.Generator().manual_seed(3)
        lengths = torch.randint(1, 10, (count,), generator=generator).tolist()
        self.frames = [torch.randn(n, 3, generator=generator).double() for n in lengths]
        self.keep = [torch.rand(n, generator=generator) > 0.2 for n in lengths]
        for keep in self.keep:
            keep[0] = True

    def __len__(self):
        return len(self.frames)

    def __getitem__(self, index):
        return self.frames[index], self.keep[index]


def pad(samples):
    frames, keep = zip(*samples, strict=True)
    padded = nn.utils.rnn.pad_sequence
    return padded(list(frames), batch_first=True), padded(list(keep), batch_first=True)


def next_frame(model, batch):
    """Squared error over the frames that count; the weight is a tensor, as in real tasks."""
    frames, keep = batch
    error = (model(frames) - frames.flip(-1)).square().sum(dim=-1)
    weight = keep.sum()
    total = (error * keep).sum()
    return Loss(total=total, weight=weight, parts={"double": 2 * total})


def count_frames(model, batch):
    frames, keep = batch
    near = (model(frames) - frames.flip(-1)).abs().sum(dim=-1) < 2
    return {"near": ((near & keep).sum(), keep.sum())}


def sequence_net():
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def sequence_task(count=40, **more):
    return Task(
        model=sequence_net,
        train=Sequences(count),
        valid=Sequences(13),
        collate=pad,
        loss=next_frame,
        measure=count_frames,
        **more,
    )
