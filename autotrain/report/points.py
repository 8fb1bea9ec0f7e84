"""Log points as columns: of a run of 100,000 of them, the report takes a second or two."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from functools import cache
from itertools import chain
from operator import attrgetter, itemgetter, mul
from typing import TYPE_CHECKING, Any, TypeAlias, get_type_hints

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
# How lines of Steps begin, with spaces or without. So many of them are turned into numbers at once.
_BEGINS = ('{"event": "step"', '{"event":"step"')
_AT_ONCE = 1024
# A run may write any number; beyond this one they are all the same to a report.
MOST = 1e100
# A whole number beyond it is none of ours.
_LARGEST = 2.0**63


def row_of(event: Step) -> Row:
    """The log point of an event."""
    figures: Row = _of_step(event)
    told = (*figures, *(math.nan if told is None else told for told in _sensed(event)))
    return tuple(map(bounded, told)) if any(abs(each) > MOST for each in figures) else told


def bounded(value: float) -> float:
    """The same, or so much of it that sums and squares of many are still numbers."""
    return math.copysign(MOST, value) if MOST < abs(value) < math.inf else value


def read(lines: Iterable[str]) -> Iterator[Event | Block]:
    """What lines of `events.jsonl` say, in their order; what is torn, or no event, is left out.

    Most lines are Steps as runs write them: they are turned into numbers many at once. Where one
    of these looks otherwise, each of them is looked at closely.
    """
    held: list[str] = []
    for line in lines:
        is_step = line.startswith(_BEGINS)
        if is_step:
            held.append(line)
            if len(held) < _AT_ONCE:
                continue
        yield from _steps(held)
        held = []
        if not is_step:
            yield from _closely([line])
    yield from _steps(held)


def _steps(lines: Sequence[str]) -> Iterator[Event | Block]:
    if lines:
        found = _block(lines)
        yield from _closely(lines) if found is None else [found]


def _closely(lines: Iterable[str]) -> Iterator[Event]:
    for line in lines:
        try:
            yield from_json(line)
        except ValueError:
            continue


def _block(lines: Sequence[str]) -> Block | None:
    """The log points of these lines; None where not all are Steps of plain numbers, or where a
    GPU was slowed down."""
    import numpy as np
    from pydantic_core import from_json as values_of

    try:
        steps = values_of(f"[{','.join(lines)}]", allow_inf_nan=False, cache_strings="keys")
        if len(steps) != len(lines) or {*map(len, steps)} != {len(_KEYS)}:
            return None
        columns = dict(zip(_KEYS, zip(*map(_of_keys, steps), strict=True), strict=True))
    except (ValueError, KeyError, TypeError):
        return None
    if not _are_plain(columns):
        return None
    found = np.empty((len(lines), len(FIGURES) + len(SENSED)))
    try:
        for place, name in enumerate((*FIGURES, *SENSED)):
            found[:, place] = columns[name]  # None becomes NaN
    except OverflowError:
        return None
    return None if (np.abs(found) >= _LARGEST).any() else found


def _are_plain(columns: Mapping[str, Sequence[Any]]) -> bool:
    """Whether each value is of a type that it may have in a log; of many the same at once."""
    parts = columns["parts"]
    if not _DICTS.issuperset(map(type, parts)):
        return False
    told = chain.from_iterable(map(dict.values, parts))
    return _NUMBERS.issuperset(map(type, told)) and all(
        kinds.issuperset(map(type, columns[name])) for name, kinds in _kinds().items()
    )


_KEYS = ("event", *(each.name for each in fields(Step)))
_of_keys = itemgetter(*_KEYS)
_NUMBERS, _NOTHING, _DICTS = frozenset([int, float]), frozenset([type(None)]), frozenset([dict])


@cache
def _kinds() -> dict[str, frozenset[type]]:
    """Of each key but `parts` the types that it may have in a log."""
    told = {int: frozenset([int]), float: _NUMBERS, float | None: _NUMBERS | _NOTHING}
    hints = get_type_hints(Step)
    plain = {name: told[hints[name]] for name in ("epoch", *FIGURES, *SENSED)}
    return plain | {"gpu_slowed": _NOTHING}


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
        import numpy as np

        values, windows = map(np.asarray, (self.column(name), self.column("window")))
        known = np.isfinite(values)
        weight = math.fsum(windows[known])
        return math.fsum(values[known] * windows[known]) / weight if weight > 0 else None

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
