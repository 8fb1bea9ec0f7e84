"""What an evaluation came to: figures with their bands, each class, and what is taken for what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autotrain.report.document import finite
from autotrain.report.text import clean, columns, labelled, literal, number, plural

SCHEMA = 1
MATRIX = 32  # classes; of more, what is confused most is told alone
MIXED_UP = 10  # pairs
Counts = Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True)
class ClassFigures:
    """Of one class: its `samples`, how many were `right`, and how many were `taken` for it.

    A share of nothing is None.
    """

    name: str
    samples: int
    right: int
    taken: int

    @property
    def recall(self) -> float | None:
        """Of its samples, those that were taken for it."""
        return self.right / self.samples if self.samples else None

    @property
    def precision(self) -> float | None:
        """Of what was taken for it, what it was."""
        return self.right / self.taken if self.taken else None

    @property
    def f1(self) -> float | None:
        """The harmonic mean of both."""
        both = self.samples + self.taken
        return 2 * self.right / both if both else None

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "class": self.name, "samples": self.samples, "right": self.right, "taken": self.taken,
            "precision": self.precision, "recall": self.recall, "f1": self.f1,
        }  # fmt: skip


@dataclass(frozen=True)
class Confusion:
    """`counts[i][j]`: how many samples of the class `names[i]` were taken for `names[j]`."""

    names: Sequence[str]
    counts: Counts

    def classes(self) -> list[ClassFigures]:
        """Each class, in their order."""
        taken = [sum(column) for column in zip(*self.counts, strict=True)]
        return [
            ClassFigures(name, sum(row), row[at], taken[at])
            for at, (name, row) in enumerate(zip(self.names, self.counts, strict=True))
        ]

    def mixed_up(self) -> list[tuple[str, str, int]]:
        """(class, what it was taken for, how often), the most frequent first."""
        found = [
            (self.names[i], self.names[j], count)
            for i, row in enumerate(self.counts)
            for j, count in enumerate(row)
            if i != j and count
        ]
        return sorted(found, key=lambda each: -each[2])


@dataclass(frozen=True)
class Evaluation:
    """A checkpoint's figures over one split. `bands`: what a metric's value means, and advice.

    `steps`, as `weights_sha256`, say which checkpoint; `best`: it is the best one.
    """

    name: str
    step: int
    best: bool
    averaged: bool
    weights_sha256: str
    split: str
    samples: int
    device: str
    dtype: str
    seconds: float
    loss: float
    metrics: Mapping[str, float]
    bands: Mapping[str, tuple[str, str]]
    monitor: str
    confusion: Confusion | None = None

    def record(self) -> dict[str, Any]:
        """As JSON: null where a figure is not a number."""
        plain = (
            "name", "step", "best", "averaged", "weights_sha256", "split", "samples", "device",
            "dtype", "seconds", "loss", "monitor",
        )  # fmt: skip
        found: dict[str, Any] = {"schema": SCHEMA, **{key: getattr(self, key) for key in plain}}
        found["metrics"] = {**self.metrics}
        found["bands"] = {
            key: {"name": name, "advice": advice} for key, (name, advice) in self.bands.items()
        }
        if self.confusion is not None:
            found["classes"] = [each.record() for each in self.confusion.classes()]
            found["confusion"] = [[*row] for row in self.confusion.counts]
        cleaned: dict[str, Any] = finite(found)
        return cleaned

    def text(self, written: Sequence[str], following: str) -> str:
        """For a person. `written`: files; `following`: the next command."""
        which = f"step-{self.step:08d}{', the best' if self.best else ''}"
        averaged = ", averaged weights" if self.averaged else ""
        what = f"{plural(self.samples, 'sample')} of {self.split} on {self.device}, {self.dtype}"
        lines = [labelled("evaluated", f"{self.name} at {which}{averaged}: {what}")]
        lines += [
            self._figure(key, value) for key, value in {"loss": self.loss, **self.metrics}.items()
        ]
        blocks = [lines]
        if self.confusion is not None:
            blocks += [_class_table(self.confusion), *_matrix(self.confusion)]
        blocks.append([literal("" if n else "written", each) for n, each in enumerate(written)])
        blocks[-1].append(literal("next", following))
        return "\n\n".join("\n".join(block) for block in blocks)

    def _figure(self, key: str, value: float) -> str:
        band = self.bands.get(key)
        shown = number(value) if band is None else f"{100 * value:.1f} %: {band[0]} ({band[1]})"
        return labelled(clean(key), shown)


def _class_table(confusion: Confusion) -> list[str]:
    rows = [["class", "samples", "right", "precision", "recall", "f1", ""]]
    for each in confusion.classes():
        shares = [_share(value) for value in (each.precision, each.recall, each.f1)]
        note = "" if each.samples else "no sample here"
        rows.append([clean(each.name), f"{each.samples:,}", f"{each.right:,}", *shares, note])
    return columns(rows)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _matrix(confusion: Confusion) -> list[list[str]]:
    """The matrix where a person can read it, then what is confused most."""
    blocks = []
    if len(confusion.names) <= MATRIX:
        heads = [clean(name)[:4] for name in confusion.names]
        rows = [["is \\ taken for", *heads]]
        for name, row in zip(confusion.names, confusion.counts, strict=True):
            rows.append([clean(name)[:14], *(f"{count}" if count else "." for count in row)])
        blocks.append(_square(rows))
    pairs = confusion.mixed_up()
    if not pairs:
        return [*blocks, [labelled("confused", "nothing")]]
    shown = [f"{a} taken for {b}: {plural(n, 'time')}" for a, b, n in pairs[:MIXED_UP]]
    if len(pairs) > MIXED_UP:
        shown.append(f"and {len(pairs) - MIXED_UP} more pairs")
    return [*blocks, [labelled("" if n else "confused", each) for n, each in enumerate(shown)]]


def _square(rows: Sequence[Sequence[str]]) -> list[str]:
    """The first column left, the others right and as narrow as they may be."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        " ".join(
            cell.rjust(width) if at else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
