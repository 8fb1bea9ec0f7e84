"""Spikes that the guard would see in honest training: how often it is wrong, by its settings.

    python benchmarks/false_alarms.py [--seed 0] [--on-logs 0,1.2,2]

Eleven small trainings as they happen (a CNN on digits, one class a batch, single samples, wrong
labels learned by heart, a language model on its own source text, CTC, heavy-tailed targets, ...),
from three seeds in a row each; their losses are played through the guard's Guard as the loop does,
which learns every ten steps. Nothing goes wrong in any of them (`harder_data` rises for
good, once). Then the same losses, each step made worse by itself, which is to be seen. `hindsight`:
what would be seen of spikes x10 by whoever knew the whole run, and the one loss in it that lies
furthest above those around it: no rule on losses alone can well do better.

`--on-logs` plays another rule: logarithms of losses, around the median of the last 32 of them, with
the scale of the last 256. Its limit lies SCORE deviations above, at least BEYOND x the furthest of
the 256 and a FACTOR more. What came of it is in docs/healing.md.
"""

from __future__ import annotations

import argparse
import math
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import mean, median

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

from autotrain.run.healing import guard

SEEDS, LOG_EVERY = 3, 10
# Spikes are put in from this step on.
BEGIN, SPIKES = 100, (3.0, 10.0, 100.0, 1e4)
Losses = Iterator[float]


def _digits() -> tuple[torch.Tensor, torch.Tensor]:
    found = load_digits()
    return torch.tensor(found.images, dtype=torch.float32)[:, None] / 16, torch.tensor(found.target)


def _cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(32 * 16, 10),
    )  # fmt: skip


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


def _fit(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, order: list[torch.Tensor], lr: float,
    *, sgd: bool = False, warmup: int = 0,
) -> Losses:  # fmt: skip
    kind = torch.optim.SGD if sgd else torch.optim.AdamW
    optimizer = kind(model.parameters(), lr=lr)
    for number, rows in enumerate(order):
        optimizer.param_groups[0]["lr"] = lr * min(1.0, (number + 1) / (warmup or 1))
        loss = functional.cross_entropy(model(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


def _epochs(count: int, batch: int, steps: int) -> list[torch.Tensor]:
    made: list[torch.Tensor] = []
    while len(made) < steps:
        made += torch.randperm(count).split(batch)
    return made[:steps]


def digits_cnn() -> Losses:
    x, y = _digits()
    return _fit(_cnn(), x, y, _epochs(len(x), 32, 1500), 1e-3)


def single_samples() -> Losses:
    x, y = _digits()
    return _fit(_mlp(), x, y, _epochs(len(x), 1, 4000), 1e-3)


def wrong_labels() -> Losses:
    x, y = _digits()
    wrong = torch.rand(len(y)) < 0.1
    y = torch.where(wrong, torch.randint(10, y.shape), y)
    return _fit(_mlp(), x, y, _epochs(len(x), 4, 6000), 1e-3)


def few_wrong_labels() -> Losses:
    """Nearly everything is easy: what is hard comes once in an epoch."""
    x, y = _digits()
    y[torch.randperm(len(y))[:5]] = torch.randint(10, (5,))
    return _fit(_mlp(), x, y, _epochs(len(x), 8, 6000), 1e-3)


def class_by_class() -> Losses:
    x, y = _digits()
    groups = [rows.split(16) for rows in ((y == c).nonzero()[:, 0] for c in range(10))]
    parts = [part for group in groups for part in group]
    order = [parts[i] for _ in range(15) for i in torch.randperm(len(parts)).tolist()]
    return _fit(_mlp(), x, y, order, 1e-3)


def classes_in_turn() -> Losses:
    """Sorted data: what was learned is forgotten with each class that begins."""
    x, y = _digits()
    rows = [part for c in range(10) for part in (y == c).nonzero()[:, 0].split(8)]
    return _fit(_mlp(), x, y, rows * 8, 1e-3)


def steep_sgd() -> Losses:
    """At the edge of what is stable."""
    x, y = _digits()
    return _fit(_mlp(), x, y, _epochs(len(x), 16, 3000), 0.7, sgd=True, warmup=200)


def harder_data() -> Losses:
    """A curriculum: noise is added to the pictures from one step on."""
    x, y = _digits()
    order = _epochs(len(x), 32, 1500)
    both = torch.cat([x, x + 1.5 * torch.randn_like(x)])
    later = [rows + len(x) for rows in order]
    return _fit(_cnn(), both, torch.cat([y, y]), order[:800] + later[800:], 1e-3)


def heavy_tails() -> Losses:
    x = torch.randn(4000, 8)
    noise = torch.distributions.StudentT(2.5).sample((4000, 1))
    y, model = x.sin().sum(1, keepdim=True) + noise, nn.Linear(8, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for rows in _epochs(4000, 16, 3000):
        loss = functional.mse_loss(model(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


def language_model() -> Losses:
    folder = Path(guard.__file__).parent
    text = "".join(path.read_text() for path in sorted(folder.glob("*.py")))
    known = {c: i for i, c in enumerate(sorted({*text}))}
    codes = torch.tensor([known[c] for c in text])
    table, inner, out = nn.Embedding(len(known), 32), nn.LSTM(32, 64), nn.Linear(64, len(known))
    every = [*table.parameters(), *inner.parameters(), *out.parameters()]
    optimizer = torch.optim.AdamW(every, lr=1e-2)
    for step in range(1200):
        optimizer.param_groups[0]["lr"] = 1e-2 * min(1.0, (step + 1) / 100)
        starts = torch.randint(len(codes) - 33, (8,))
        batch = torch.stack([codes[i : i + 33] for i in starts], 1)
        logits = out(inner(table(batch[:-1]))[0])
        loss = functional.cross_entropy(logits.flatten(0, 1), batch[1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(every, 1.0)
        optimizer.step()
        yield loss.item()


def ctc() -> Losses:
    """Frames that hold a gloss each, some of them noise; the loss per sequence."""
    centres, count = torch.randn(8, 12), 200
    glosses = [torch.randint(1, 8, (int(torch.randint(1, 6, ())),)) for _ in range(count)]
    frames = [torch.repeat_interleave(centres[g], int(torch.randint(3, 9, ())), 0) for g in glosses]
    frames = [f + 0.7 * torch.randn_like(f) for f in frames]
    inner, out = nn.LSTM(12, 32, bidirectional=True), nn.Linear(64, 8)
    every = [*inner.parameters(), *out.parameters()]
    optimizer = torch.optim.AdamW(every, lr=3e-3)
    for rows in _epochs(count, 4, 1500):
        x = nn.utils.rnn.pad_sequence([frames[i] for i in rows])
        lengths = torch.tensor([len(frames[i]) for i in rows])
        sizes = torch.tensor([len(glosses[i]) for i in rows])
        scores = out(inner(x)[0]).log_softmax(-1)
        targets = torch.cat([glosses[i] for i in rows])
        loss = functional.ctc_loss(scores, targets, lengths, sizes, reduction="sum") / len(rows)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


HONEST: tuple[Callable[[], Losses], ...] = (
    digits_cnn, single_samples, wrong_labels, few_wrong_labels, class_by_class, classes_in_turn,
    steep_sgd, harder_data, heavy_tails, language_model, ctc,
)  # fmt: skip


class OnLogs:
    """As a Guard: a robust score of log losses whose scale adapts slowly. Wants positive losses."""

    def __init__(self, score: float, beyond: float, factor: float) -> None:
        self.score, self.beyond, self.factor = score, beyond, math.log(factor)
        self.last: deque[float] = deque(maxlen=32)
        self.rests: deque[float] = deque(maxlen=256)
        self.usual, self.most, self.limit = math.nan, math.inf, math.inf

    def learn(self, losses: list[float]) -> None:
        logs = [math.log(max(loss, 1e-12)) for loss in losses if loss <= self.most]
        if math.isfinite(self.usual):
            self.rests.extend(each - self.usual for each in logs)
        self.last.extend(logs)
        if len(self.last) < guard.LEAST:
            return
        self.usual = median(self.last)
        if not self.rests:
            self.most = guard.CAP * math.exp(self.usual)
            self.rests.extend(each - self.usual for each in self.last)
        centre = median(self.rests)
        scale = guard.NORMAL * median(abs(rest - centre) for rest in self.rests)
        above = max(self.beyond * max(*self.rests, 0.0) + self.factor, self.score * scale)
        self.limit = math.exp(min(self.usual + max(above, math.log(2)), 700.0))


Rule = Callable[[], guard.Guard | OnLogs]


def limits(losses: list[float], rule: Rule, every: int = LOG_EVERY) -> list[float]:
    """What each of these losses might have been at most, by a rule that has seen those before."""
    judge, found = rule(), []
    for step in range(0, len(losses), every):
        found += [judge.limit] * every
        judge.learn(losses[step : step + every])
    return found[: len(losses)]


def series(make: Callable[[], Losses], seed: int) -> list[float]:
    torch.manual_seed(seed)
    return list(make())


def seen(losses: list[float], most: list[float], times: float) -> float:
    """The share of steps that would be seen if each, by itself, were so many times worse."""
    pairs = [*zip(losses, most, strict=True)][BEGIN:]
    return sum(loss <= limit < times * loss for loss, limit in pairs) / len(pairs)


def hindsight(losses: list[float], times: float) -> float:
    """The same, by the largest honest distance from the median of the 33 steps around."""
    around = [median(losses[max(i - 16, 0) : i + 17]) for i in range(BEGIN, len(losses))]
    far = [loss / usual for loss, usual in zip(losses[BEGIN:], around, strict=True)]
    return sum(times * each > max(far) for each in far) / len(far)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--on-logs", metavar="SCORE,BEYOND,FACTOR")
    asked = parser.parse_args()
    rule: Rule = lambda: guard.Guard("host", 10.0)  # noqa: E731
    if asked.on_logs:
        score, beyond, factor = map(float, asked.on_logs.split(","))
        rule = lambda: OnLogs(score, beyond, factor)  # noqa: E731
    torch.set_num_threads(1)
    heads = "".join(f"{f'x{times:,.0f}':>9}" for times in SPIKES)
    print(f"{'training':18}{'steps':>8}{'alarms':>8}  {heads}{'hindsight':>12}")
    rows: list[list[float]] = []
    for make in HONEST:
        every = [series(make, seed) for seed in range(asked.seed, asked.seed + SEEDS)]
        most = [limits(losses, rule) for losses in every]
        alarms = sum(
            x > y for a, b in zip(every, most, strict=True) for x, y in zip(a, b, strict=True)
        )
        shares = [
            mean(seen(a, b, times) for a, b in zip(every, most, strict=True)) for times in SPIKES
        ]
        rows.append(
            [sum(map(len, every)), alarms, *shares, mean(hindsight(a, 10.0) for a in every)]
        )
        _show(make.__name__, rows[-1])
    sums, means = [sum(row[i] for row in rows) for i in (0, 1)], [*zip(*rows, strict=True)][2:]
    _show("all", [*sums, *map(mean, means)])


def _show(name: str, row: list[float]) -> None:
    steps, alarms, *shares, after = row
    shown = "".join(f"{share:9.1%}" for share in shares)
    print(f"{name:18}{steps:8,.0f}{alarms:8.0f}  {shown}{after:12.1%}", flush=True)


if __name__ == "__main__":
    main()
