"""A task of your own. It trains as it is; replace the data and the model by yours.

autotrain plan --task task.py      # sizes it for this machine, and says why
autotrain run plan.toml            # trains it
"""

import torch
from torch import nn

from autotrain import Task


class Spirals(torch.utils.data.Dataset):
    """Two spirals, noisy: sample i is (point [2], class 0 or 1). Put your dataset here."""

    def __init__(self, count, seed):
        random = torch.Generator().manual_seed(seed)
        self.labels = torch.arange(count) % 2
        turn = torch.rand(count, generator=random).sqrt() * 9
        angle = turn + self.labels * torch.pi
        points = torch.stack([angle.cos() * turn, angle.sin() * turn], dim=1)
        self.points = (points + 0.2 * torch.randn(count, 2, generator=random)) / 5

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.points[index], self.labels[index]


class Net(nn.Module):
    """[batch, 2] -> [batch, 2 classes]. Put your model here."""

    def __init__(self, width):
        super().__init__()
        hidden = [nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()]
        self.layers = nn.Sequential(nn.Linear(2, width), nn.ReLU(), *hidden, nn.Linear(width, 2))

    def forward(self, points):
        return self.layers(points)


def predict(model, given, out):
    """`autotrain predict runs/task "0.5 -1.2"`. Put how a file or a text becomes an answer here."""
    point = torch.tensor([float(word) for word in given.replace(",", " ").split()])
    chances = model(point[None].to(next(model.parameters()).device)).softmax(dim=-1)[0]
    return {"class": int(chances.argmax()), "probability": float(chances.max())}


def task(data, width=128):
    """`data` is what you name after `autotrain plan`; options come from `--set task.width=256`."""
    return Task.classification(  # a loss of your own: see Task(...) in the README
        model=lambda: Net(width),
        train=Spirals(4000, seed=1),
        valid=Spirals(1000, seed=2),
        predict=predict,
    )
