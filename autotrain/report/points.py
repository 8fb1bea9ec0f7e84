"""Log points as columns: of a run of 100,000 of them, the report takes a second or two."""

from __future__ import annotations

import math
import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from operator import attrgetter, mul
from typing import TYPE_CHECKING, TypeAlias

from autotrain.events import Event, Step, from_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FIGURES = (
    "step", "time", "loss", "lr", "grad_norm", "samples", "weight", "step_seconds", "wait_seconds",
    "device_bytes", "peak_bytes",
)  # fmt: skip
SENSED = ("gpu_utilisation", "gpu_celsius", "gpu_watts", "others_cpu")
# A log point: its figures in the order of FIGURES, then of SENSED; what no sensor told is NaN.
Row = tuple[float, ...]
# Many of them, one below the other.
Block: TypeAlias = "NDArray[np.float64]"

_of_step, _sensed = attrgetter(*FIGURES), attrgetter(*SENSED)
# So many lines are turned into numbers at once.
_AT_ONCE = 4096


def row_of(event: Step) -> Row:
    """The log point of an event."""
    figures: Row = _of_step(event)
    return (*figures, *(math.nan if told is None else told for told in _sensed(event)))


def _pattern() -> re.Pattern[str]:
    """Of the line that `to_json` makes of a Step of plain numbers, and no GPU slowed down; with
    spaces in it or without."""
    number = r"-?\d{1,20}(?:\.\d{1,20})?(?:e[+-]?\d{1,3})?"
    kinds = {"step": r"(\d{1,15})", "epoch": r"\d{1,15}", "gpu_slowed": "null"}
    kinds["parts"] = rf'\{{(?:"[^"\\]*": ?{number}(?:, ?)?)*\}}'
    kinds |= dict.fromkeys(SENSED, rf"(null|{number})")
    said = [rf'"{each.name}": ?{kinds.get(each.name, f"({number})")}' for each in fields(Step)]
    return re.compile(r'\{"event": ?"step", ?' + ", ?".join(said) + r"\}\s*")


_LINE = _pattern()


def read(lines: Iterable[str]) -> Iterator[Event | Block]:
    """What lines of `events.jsonl` say, in their order; what is torn, or no event, is left out.

    Most lines are Steps as runs write them: they are taken at a glance and turned into numbers many
    at once. Whatever looks otherwise is looked at closely.
    """
    held: list[tuple[str, ...]] = []
    for line in lines:
        found = _LINE.fullmatch(line)
        if found is not None:
            held.append(found.groups())
            if len(held) < _AT_ONCE:
                continue
        if held:
            yield _block(held)
            held = []
        if found is None:
            try:
                yield from_json(line)
            except ValueError:
                continue
    if held:
        yield _block(held)


def _block(texts: Sequence[tuple[str, ...]]) -> Block:
    import numpy as np

    joined = ",".join(map(",".join, texts)).replace("null", "nan")
    found: Block = np.fromstring(joined, sep=",").reshape(len(texts), -1)
    return found


class Points:
    """One array a figure, in the order of steps.

    `window`: the number of steps that a point is the mean of. `slowed`: why the GPU held its clock
    down, by step.
    """

    def __init__(self) -> None:
        self._columns = {name: array("d") for name in (*FIGURES, *SENSED, "window")}
        self.slowed: dict[float, str] = {}

    def __len__(self) -> int:
        return len(self._columns["step"])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Points) and self._content() == other._content()

    __hash__ = None  # type: ignore[assignment]

    def _content(self) -> list[object]:
        return [*(column.tobytes() for column in self._columns.values()), self.slowed]

    def column(self, name: str) -> array[float]:
        """All values of a figure of FIGURES or SENSED, or of `window`."""
        return self._columns[name]

    def add(self, row: Row, window: int) -> None:
        """Append a point; those of the same steps, and later ones, are dropped."""
        if self.last > row[0] - window:
            self.forget(row[0] - window)
        for column, value in zip(self._columns.values(), (*row, window), strict=True):
            column.append(value)

    def extend(self, block: Block, log_every_steps: int) -> None:
        """Append points, each the mean of the steps since the last planned one before it."""
        steps = block[:, 0]
        windows = (steps - 1) % log_every_steps + 1
        begins = steps - windows
        if begins[0] < self.last or (begins[1:] < steps[:-1]).any():
            for row, window in zip(block.tolist(), windows.tolist(), strict=True):
                self.add(tuple(row), int(window))
            return
        for column, values in zip(self._columns.values(), (*block.T, windows), strict=True):
            column.frombytes(values.tobytes())

    @property
    def last(self) -> float:
        """The newest step; before there is one, none is so early."""
        steps = self._columns["step"]
        return steps[-1] if steps else -math.inf

    def forget(self, step: float) -> None:
        """Drop what lies after `step`."""
        kept = bisect_right(self._columns["step"], step)
        for column in self._columns.values():
            del column[kept:]
        self.slowed = {at: why for at, why in self.slowed.items() if at <= step}

    def between(self, name: str, first: float, last: float) -> array[float]:
        """The values of a figure at steps from `first` to `last`."""
        steps = self.column("step")
        return self.column(name)[bisect_left(steps, first) : bisect_right(steps, last)]

    def total(self, name: str) -> float:
        """The sum over all steps of a figure that is a mean per step."""
        return math.fsum(map(mul, self.column(name), self.column("window")))

    def mean(self, name: str) -> float | None:
        """Of the points that have it, each weighed by its steps; None where none has."""
        pairs = zip(self.column(name), self.column("window"), strict=True)
        known = [(value, steps) for value, steps in pairs if math.isfinite(value)]
        weight = sum(n for _, n in known)
        return sum(v * n for v, n in known) / weight if weight > 0 else None

    def slowed_shares(self) -> dict[str, float]:
        """Why the GPU held its clock down -> the share of the steps."""
        steps: dict[str, float] = {}
        for at, why in self.slowed.items():
            steps[why] = steps.get(why, 0.0) + sum(self.between("window", at, at))
        total = sum(self.column("window"))
        return {why: count / total for why, count in steps.items()}


def finite(values: Iterable[float]) -> list[float]:
    """Those that are neither NaN nor infinite."""
    return [value for value in values if math.isfinite(value)]
