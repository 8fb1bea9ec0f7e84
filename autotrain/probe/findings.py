"""What is wrong with a dataset, file by file, and when it is too much to train on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from autotrain.blocks.layouts.listing import FAULTY_SHARE, Absent, Listing
from autotrain.errors import AutotrainError
from autotrain.schema import Fault, Percentiles

KEPT_FAULTS = 200
NAME_ERRORS = "surrogatepass" if os.name == "nt" else "surrogateescape"
T = TypeVar("T")


def printable(name: str) -> str:
    """A file name as text, also where its bytes are not UTF-8."""
    return name.encode("utf-8", NAME_ERRORS).decode("utf-8", "backslashreplace")


def spread(items: Sequence[T], count: int) -> list[T]:
    """At most `count` items, evenly from first to last, always the same ones."""
    return (
        [items[i * len(items) // count] for i in range(count)] if len(items) > count else [*items]
    )


def percentiles(unit: str, values: Sequence[float]) -> Percentiles | None:
    """Nearest-rank percentiles of what was sampled; None of nothing."""
    if not values:
        return None
    ranked = sorted(values)
    at = [ranked[max(-(-q * len(ranked) // 100) - 1, 0)] for q in (50, 95)]
    return Percentiles(unit=unit, minimum=ranked[0], p50=at[0], p95=at[1], maximum=ranked[-1])


def _fault(name: str, problem: str) -> Fault:
    return Fault(path=printable(name), problem=printable(problem))


class Findings:
    """Faults of a dataset. `absent` and `unreadable` files count towards a refusal."""

    def __init__(self, root: Path, noun: str) -> None:
        self.root = root
        self.noun = noun
        self.absent: list[Fault] = []
        self.unreadable: list[Fault] = []
        self.notes: list[Fault] = []

    @property
    def faults(self) -> tuple[Fault, ...]:
        """The gravest first, at most `KEPT_FAULTS` of them."""
        return tuple([*self.absent, *self.unreadable, *self.notes][:KEPT_FAULTS])

    def note(self, name: str, problem: str) -> None:
        """Worth knowing, and no reason to stop."""
        self.notes.append(_fault(name, problem))

    def lacks(self, absent: Sequence[Absent]) -> None:
        """Files that are listed and cannot be there for training."""
        self.absent += [_fault(a.name, a.problem) for a in absent]

    def cannot_read(self, name: str, problem: str) -> None:
        """A sampled file that cannot be decoded."""
        self.unreadable.append(_fault(name, problem))

    @property
    def total(self) -> int:
        """How many faults there are, kept or not."""
        return len(self.absent) + len(self.unreadable) + len(self.notes)

    def passed_over(self, listing: Listing, suffixes: frozenset[str]) -> None:
        """What the listing left unopened: absent where its name says it is data."""
        for name, problem in listing.skipped:
            if Path(name).suffix.lower() in suffixes:
                self.lacks([Absent(name, problem)])
            else:
                self.note(name, problem)

    def refuse_absent(self, present: int) -> None:
        """Raises AutotrainError where over a tenth of the listed files are missing or empty."""
        self._refuse(
            self.absent, present + len(self.absent), "listed", "are missing, empty or named twice"
        )

    def refuse_unreadable(self, sampled: int) -> None:
        """Raises AutotrainError where over a tenth of the sampled files cannot be read."""
        self._refuse(self.unreadable, sampled, "sampled", "cannot be read")

    def _refuse(self, faults: list[Fault], among: int, how: str, what: str) -> None:
        if not faults or len(faults) <= FAULTY_SHARE * among:
            return
        first = ", ".join(f"{fault.path} ({fault.problem})" for fault in faults[:3])
        count = f"all {among}" if len(faults) == among else f"{len(faults)} of {among}"
        raise AutotrainError(
            f"{self.root}: {count} {how} {self.noun} {what}: {first}"
            + (", ..." if len(faults) > 3 else ""),
            f"restore or remove them; up to {FAULTY_SHARE:.0%} are skipped",
        )
