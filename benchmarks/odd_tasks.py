"""Tasks as people bring them, none of which anything was fitted on: planned, then run.

python benchmarks/odd_tasks.py [NAME ...] [--micro-batch 16]

Each is planned without a trial (nothing of it runs), then trained for two epochs. Printed: the peak
memory of the process, predicted and measured, and whether it lay in the interval. Beside other
programs too: memory does not mind.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import torchaudio
import torchvision
from torch import nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from autotrain import Loss, Task

AUTOTRAIN = [sys.executable, "-m", "autotrain"]
HERE = Path(__file__)
MIB = 1 << 20


class Drawn(torch.utils.data.Dataset):
    """`count` samples, each drawn by `draw(generator, index)`."""

    def __init__(self, count, draw):
        self.count, self.draw = count, draw

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return self.draw(torch.Generator().manual_seed(index), index)


def labelled(*shape, classes=10):
    return lambda g, index: (torch.rand(*shape, generator=g), index % classes)


def padded(samples):
    """Two columns of sequences, padded, and their lengths."""
    columns = list(zip(*samples, strict=True))
    lengths = [torch.tensor([len(each) for each in column]) for column in columns]
    return *(nn.utils.rnn.pad_sequence(column, True) for column in columns), *lengths


class Spectral(nn.Module):
    """A Fourier layer: weights of complex numbers for the lowest frequencies."""

    def __init__(self, width, modes=12):
        super().__init__()
        self.modes = modes
        self.weight = nn.Parameter(
            torch.randn(width, width, modes, modes, dtype=torch.cfloat) / width
        )
        self.local = nn.Conv2d(width, width, 1)

    def forward(self, x):
        waves, low = torch.fft.rfft2(x.float()), slice(0, self.modes)
        kept = torch.zeros_like(waves)
        kept[:, :, low, low] = torch.einsum("bixy,ioxy->boxy", waves[:, :, low, low], self.weight)
        return functional.gelu(torch.fft.irfft2(kept, s=x.shape[-2:]) + self.local(x))


def fourier():
    net = lambda: nn.Sequential(  # noqa: E731
        nn.Conv2d(1, 32, 1), *(Spectral(32) for _ in range(4)), nn.Conv2d(32, 1, 1)
    )
    field = lambda g: torch.randn(1, 64, 64, generator=g)  # noqa: E731
    return Task.regression(model=net, train=Drawn(128, lambda g, _: (field(g), field(g))))


class Deformed(nn.Module):
    """A deformable convolution: an operator of torchvision's own."""

    def __init__(self):
        super().__init__()
        self.stem, self.offset = nn.Conv2d(3, 32, 3, 2, 1), nn.Conv2d(32, 18, 3, padding=1)
        self.deformed = torchvision.ops.DeformConv2d(32, 64, 3, padding=1)
        self.out = nn.Linear(64, 10)

    def forward(self, x):
        x = self.stem(x).relu()
        return self.out(self.deformed(x, self.offset(x)).relu().mean((2, 3)))


class Edges(nn.Module):
    """Each point beside its nearest ones."""

    def __init__(self, width, out, near=12):
        super().__init__()
        self.near = near
        self.net = nn.Sequential(
            nn.Conv2d(2 * width, out, 1, bias=False), nn.BatchNorm2d(out), nn.LeakyReLU(0.2)
        )

    def forward(self, x):
        places = torch.cdist(x.float(), x.float()).topk(self.near, largest=False).indices
        rows = x[:, None].expand(-1, x.shape[1], -1, -1)
        others = rows.gather(2, places[..., None].expand(-1, -1, -1, x.shape[-1]))
        own = x[:, :, None].expand_as(others)
        return self.net(torch.cat([own, others - own], -1).permute(0, 3, 1, 2)).amax(-1).mT


class Cloud(nn.Module):
    def __init__(self):
        super().__init__()
        self.edges = nn.Sequential(Edges(3, 64), Edges(64, 64), Edges(64, 128))
        self.out = nn.Linear(128, 10)

    def forward(self, x):
        return self.out(self.edges(x).amax(1))


class Again(nn.Module):
    """A language model whose layers are computed again in the backward pass."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(1000, 256)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(256, 4, 1024, batch_first=True) for _ in range(6)
        )
        self.out = nn.Linear(256, 1000)

    def forward(self, x):
        x = self.words(x)
        for layer in self.layers:
            x = checkpoint(layer, x, use_reentrant=False)
        return self.out(x)


def next_word(model, batch):
    words, wanted = batch
    total = functional.cross_entropy(model(words).mT.float(), wanted, reduction="sum")
    return Loss(total=total, weight=wanted.numel())


def sentence(g, _, words=1000):
    text = torch.randint(words, (129,), generator=g)
    return text[:-1], text[1:]


class Adaptive(nn.Module):
    """A language model of many words, the rare ones in groups."""

    def __init__(self, words=20_000):
        super().__init__()
        self.words, self.rnn = nn.Embedding(words, 256), nn.LSTM(256, 256, 2, batch_first=True)
        self.out = nn.AdaptiveLogSoftmaxWithLoss(256, words, [500, 5000])

    def forward(self, x, wanted):
        return self.out(self.rnn(self.words(x))[0].flatten(0, 1), wanted.flatten()).output


def adaptive_loss(model, batch):
    return Loss(total=-model(*batch).sum(), weight=batch[1].numel())


class Transducer(nn.Module):
    """Frames against letters: a table of both, for each sample."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.LSTM(80, 192, 2, batch_first=True, bidirectional=True)
        self.letters, self.decoder = nn.Embedding(40, 128), nn.LSTM(128, 384, batch_first=True)
        self.out = nn.Linear(384, 40)

    def forward(self, frames, text):
        heard = self.encoder(frames)[0]
        said = self.decoder(functional.pad(self.letters(text), (0, 0, 1, 0)))[0]
        return self.out((heard[:, :, None] + said[:, None]).tanh()).float()


def transducer_loss(model, batch):
    frames, text, *lengths = batch
    total = torchaudio.functional.rnnt_loss(
        model(frames, text), text.int(), *(each.int() for each in lengths), 0, reduction="sum"
    )
    return Loss(total=total, weight=len(frames))


def clip(g, index):
    frames = torch.randn(60 + index % 60, 80, generator=g)
    return frames, torch.randint(1, 40, (5 + index % 9,), generator=g)


def contrasted(model, batch):
    """Two views of each picture, which must find one another."""
    views = functional.normalize(torch.cat([model(view) for view in batch]), dim=-1).float()
    count = len(batch[0])
    alike = (views @ views.T / 0.1).fill_diagonal_(-1e9)
    partner = torch.arange(2 * count).roll(count)
    total = functional.cross_entropy(alike, partner, reduction="sum")
    return Loss(total=total, weight=2 * count, mixes=True)


class Experts(nn.Module):
    """Each sample goes to two of eight."""

    def __init__(self):
        super().__init__()
        self.stem, self.gate, self.out = nn.Linear(32, 128), nn.Linear(128, 8), nn.Linear(128, 10)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(128, 512), nn.GELU(), nn.Linear(512, 128)) for _ in range(8)
        )

    def forward(self, x):
        x = self.stem(x)
        shares, chosen = self.gate(x).softmax(-1).topk(2, -1)
        total = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            rows, which = torch.where(chosen == number)
            total = total.index_add(0, rows, (expert(x[rows]) * shares[rows, which, None]).to(x))
        return self.out(x + total)


class Ensemble(nn.Module):
    """Four models as one, by torch.func."""

    def __init__(self):
        super().__init__()
        make = lambda: nn.Sequential(nn.Linear(20, 128), nn.Tanh(), nn.Linear(128, 1))  # noqa: E731
        self.base = [make() for _ in range(4)]  # a list: none of them is trained itself
        weights, _ = stack_module_state(self.base)
        self.names = [*weights]
        self.stacked = nn.ParameterList(each.detach() for each in weights.values())

    def forward(self, x):
        weights = dict(zip(self.names, self.stacked, strict=True))
        return vmap(lambda own: functional_call(self.base[0], own, (x,)))(weights).mean(0)


class Picked(nn.Module):
    """Few rows of a table that each sample sees whole."""

    def __init__(self):
        super().__init__()
        self.rows, self.out = nn.Parameter(torch.randn(30_000, 64) / 50), nn.Linear(64, 10)

    def forward(self, places):
        whole = self.rows[None].expand(len(places), -1, -1)
        return self.out(whole.gather(1, places[..., None].expand(-1, -1, 64)).mean(1))


class Frozen(nn.Module):
    """A large model that is not trained, and a head that is."""

    def __init__(self):
        super().__init__()
        self.body = torchvision.models.vit_b_16(weights=None, image_size=64).requires_grad_(False)
        self.head = nn.Linear(1000, 10)

    def forward(self, x):
        with torch.no_grad():
            seen = self.body(x)
        return self.head(seen)


def places(g, index):
    return torch.randint(30_000, (50,), generator=g), index % 10


def views(g, _):
    return torch.rand(3, 64, 64, generator=g), torch.rand(3, 64, 64, generator=g)


TASKS = {
    "fourier": fourier,
    "deformed": lambda: Task.classification(model=Deformed, train=Drawn(128, labelled(3, 64, 64))),
    "cloud": lambda: Task.classification(model=Cloud, train=Drawn(256, labelled(256, 3))),
    "again": lambda: Task(model=Again, train=Drawn(128, sentence), loss=next_word),
    "adaptive": lambda: Task(
        model=Adaptive, train=Drawn(256, lambda g, i: sentence(g, i, 20_000)), loss=adaptive_loss
    ),
    "transducer": lambda: Task(
        model=Transducer, train=Drawn(128, clip), loss=transducer_loss, collate=padded
    ),
    "contrast": lambda: Task(
        model=lambda: torchvision.models.resnet18(num_classes=64), train=Drawn(128, views),
        loss=contrasted,
    ),
    "experts": lambda: Task.classification(model=Experts, train=Drawn(2048, labelled(32))),
    "ensemble": lambda: Task.regression(
        model=Ensemble,
        train=Drawn(512, lambda g, _: (torch.randn(20, generator=g), torch.randn(1, generator=g))),
    ),
    "picked": lambda: Task.classification(model=Picked, train=Drawn(256, places)),
    "frozen": lambda: Task.classification(model=Frozen, train=Drawn(128, labelled(3, 64, 64))),
}  # fmt: skip


def task(data=None, name="cloud"):
    """What a plan's task file answers."""
    return TASKS[name]()


def measured(name, micro_batch, folder):
    """The prediction of the process's peak, with what it was; a line where a command failed."""
    settings = {
        "task.name": name, "batch.micro_batch": micro_batch, "batch.global_batch": 2 * micro_batch,
        "train.epochs": 2, "run.directory": folder / name,
    }  # fmt: skip
    sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    environ = {**os.environ, "AUTOTRAIN_BUSY": "ignore", "AUTOTRAIN_HOME": str(folder / "home")}
    plan = folder / f"{name}.toml"
    for command in (
        ["plan", "--task", HERE, "--no-trial", "--no-calibrate", *sets, "-o", plan],
        ["run", plan],
    ):
        done = subprocess.run(
            [*AUTOTRAIN, *map(str, command)],
            env=environ,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            return done.stderr.strip().splitlines()[-1]
    report = json.loads((folder / name / "report.json").read_text())
    return report["predictions"]["device_peak_bytes"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[*TASKS, []], default=[])
    parser.add_argument("--micro-batch", type=int, default=16)
    asked = parser.parse_args()
    errors, inside = [], 0
    print(f"{'MiB':12}{'from':>8}{'to':>8}{'expected':>10}{'measured':>10}{'error':>9}")
    with tempfile.TemporaryDirectory() as folder:
        for name in asked.names or TASKS:
            found = measured(name, asked.micro_batch, Path(folder))
            if isinstance(found, str):
                print(f"{name:12}{found}")
                continue
            low, high, expected, was = (
                found[key] / MIB for key in ("low", "high", "expected", "measured")
            )
            errors.append(expected / was - 1)
            inside += low <= was <= high
            outside = "" if low <= was <= high else "  outside"
            print(f"{name:12}{low:8.0f}{high:8.0f}{expected:10.0f}{was:10.0f}{errors[-1]:+9.1%}{outside}",
                  flush=True)  # fmt: skip
    far = sorted(abs(error) for error in errors)
    middle = statistics.median(far) if far else math.nan
    print(f"\n{len(far)} tasks: median {middle:.1%}, worst {max(far, default=math.nan):.1%}, "
          f"{inside} inside")  # fmt: skip


if __name__ == "__main__":
    main()
