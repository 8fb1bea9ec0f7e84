"""What happened since the last log point, kept on the device and read once, there."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

Number = torch.Tensor | float
FOLD = 1000


@dataclass
class Tally:
    """Sums by name, as rows of scalars that nobody reads before `read`.

    A row costs no kernel and no host sync; adding up waits for the log point, or for the
    thousandth row, which bounds the memory.
    """

    rows: list[dict[str, Number]] = field(default_factory=list)

    def add(self, row: dict[str, Number]) -> None:
        """Count one more scalar into each sum that the row names; no gradients, please."""
        self.rows.append(row)
        if len(self.rows) >= FOLD:
            self.rows = [{**self.read()}]

    def read(self) -> dict[str, float]:
        """The sums, in float64: one transfer from the device however many there are."""
        sums: dict[str, list[float]] = {}
        for row in self.values():
            for name, value in row.items():
                sums.setdefault(name, []).append(value)
        return {name: _sum(values) for name, values in sums.items()}

    def values(self) -> list[dict[str, float]]:
        """Every row, on the host."""
        read = iter(_to_host([v for row in self.rows for v in row.values() if torch.is_tensor(v)]))
        return [
            {name: next(read) if torch.is_tensor(v) else float(v) for name, v in row.items()}
            for row in self.rows
        ]


def detached(value: Number) -> Number:
    """A scalar without its history; on a CPU a number, read where it lies."""
    if not isinstance(value, torch.Tensor):
        return value
    bare = value.detach()
    if bare.device.type != "cpu":
        return bare
    try:
        return float(bare.numpy())
    except TypeError:  # numpy has no bfloat16
        return float(bare.float().numpy())


def _sum(values: list[float]) -> float:
    """Exact to one rounding, so that the order does not matter; not so with infinities."""
    try:
        return math.fsum(values)
    except (ValueError, OverflowError):
        return sum(values)


def _to_host(scalars: Sequence[torch.Tensor]) -> list[float]:
    """Scalars of any dtype and device, in order; one transfer per dtype and device."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for place, scalar in enumerate(scalars):
        groups.setdefault((scalar.dtype, scalar.device), []).append(place)
    found = [0.0] * len(scalars)
    for places in groups.values():
        values = torch.stack([scalars[place].reshape(()) for place in places]).tolist()
        for place, value in zip(places, values, strict=True):
            found[place] = float(value)
    return found


class Taken(NamedTuple):
    """A step as the host sees it: its loss per weight, the most that it might have been then,
    and whether it counted.
    """

    step: int
    loss: float
    bad: bool
    limit: float = math.inf

    @property
    def spikes(self) -> bool:
        """Whether the loss was finite, and more than was to be expected."""
        return math.isfinite(self.loss) and self.loss > self.limit


class _Unread(NamedTuple):
    step: int
    rows: list[dict[str, Number]]
    bad: Number
    limit: float


@dataclass
class Meter:
    """What the steps since the last log point left, a row of sums for each micro-batch.

    What a step that was not committed left counts in `taken` alone. `unseen`: steps that healing
    has not looked at, also from before that log point. `untimed` steps, in which something was
    compiled, are not in `seconds`.
    """

    sums: Tally = field(default_factory=Tally)
    steps: int = 0
    samples: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    grad_norm: Number = math.nan
    untimed: int = 0
    taken: list[Taken] = field(default_factory=list)
    unseen: list[Taken] = field(default_factory=list)
    unread: list[_Unread] = field(default_factory=list, repr=False)

    def add(
        self, step: int, rows: list[dict[str, Number]], bad: Number, samples: int,
        seconds: float, waited: float, limit: float = math.inf,
    ) -> None:  # fmt: skip
        """Count one more step, of a row per micro-batch."""
        self.unread.append(_Unread(step, rows, bad, limit))
        self.steps += 1
        self.samples += samples
        self.seconds += seconds
        self.waited += waited
        if len(self.unread) >= FOLD:
            self.read()

    def read(self) -> None:
        """Bring what the steps left to the host."""
        unread, self.unread = self.unread, []
        rows = iter(Tally([row for each in unread for row in each.rows]).values())
        flags = Tally([{"bad": each.bad} for each in unread]).values()
        for each, flag in zip(unread, flags, strict=True):
            mine = [next(rows) for _ in each.rows]
            loss, weight = (_sum([row[name] for row in mine]) for name in ("loss", "weight"))
            taken = Taken(each.step, loss / (weight or 1.0), flag["bad"] > 0, each.limit)
            self.taken.append(taken)
            self.unseen.append(taken)
            if not flag["bad"]:
                for row in mine:
                    self.sums.add({**row})

    def step_seconds(self, more: float = 0.0) -> float:
        """Of a step, on average; `more` seconds were spent on all of them. 0: none was timed."""
        timed = self.steps - self.untimed
        return (self.seconds + more) / timed if timed else 0.0

    def state(self) -> dict[str, Any]:
        """As JSON, so that a log point after a resume reads as if nothing had happened."""
        self.read()
        return {
            "sums": self.sums.values(),
            "steps": self.steps,
            "samples": self.samples,
            "seconds": self.seconds,
            "waited": self.waited,
            "grad_norm": float(self.grad_norm),
            "untimed": self.untimed,
            "taken": [[*each] for each in self.taken],
            "unseen": [[*each] for each in self.unseen],
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Meter:
        """The inverse of `state`."""
        sums = Tally([*state["sums"]])
        rest = {key: state[key] for key in ("steps", "samples", "seconds", "waited", "grad_norm")}
        taken, unseen = (
            [Taken(*each) for each in state.get(key, [])] for key in ("taken", "unseen")
        )
        untimed = state.get("untimed", 0)
        return cls(sums, **rest, untimed=untimed, taken=taken, unseen=unseen)
