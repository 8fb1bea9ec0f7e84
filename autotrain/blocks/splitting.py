"""Which samples are for training, and which for validation: by the table, or by who made them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from autotrain.blocks.samples import of_split, split_by_name
from autotrain.errors import AutotrainError

PARTS = {
    "train": "train", "training": "train", "": "", "test": "test", "testing": "test",
    "valid": "valid", "validation": "valid", "val": "valid", "dev": "valid",
}  # fmt: skip

_log = logging.getLogger(__name__)


class Row(Protocol):
    """A file with the split that its table names; empty where it names none."""

    @property
    def path(self) -> Path:
        """The sample's file."""

    @property
    def split(self) -> str:
        """As in the table, in small letters."""


Sample = TypeVar("Sample", bound=Row)


def split_samples(
    rows: Sequence[Sample], valid_share: float, person: Callable[[Sample], str], who: str
) -> tuple[list[Sample], list[Sample]]:
    """(train, valid). A split `valid` of the table counts; `test` is in neither part.

    Where there is none, persons are held out whole, by the hash of their names, until about
    `valid_share` of them are; of one person only, samples are, and that is said. `who`: what a
    person is called there (signer, speaker). Raises AutotrainError, naming the file, for a split
    that is not known, and where nothing is left to train on.
    """
    for row in rows:
        if row.split not in PARTS:
            known = ", ".join(name for name in PARTS if name)
            raise AutotrainError(f"{row.path}: split {row.split!r}", f"one of: {known}")
    train = [row for row in rows if PARTS[row.split] in ("", "train")]
    valid = [row for row in rows if PARTS[row.split] == "valid"]
    if not train:
        raise AutotrainError("no sample is for training: the table says so of each", "split: train")
    if valid:
        return train, valid
    persons = sorted({person(row) for row in train})
    if len(persons) > 1:
        held = {persons[i] for i in split_by_name(persons, valid_share)[1]}
        kept = [row for row in train if person(row) not in held]
        return kept, [row for row in train if person(row) in held]
    _log.warning(
        "one %s only: samples are held out, so the figures say nothing of another %s", who, who
    )
    if len(train) < 2:
        raise AutotrainError(f"{train[0].path}: one sample, 2 are the least to train on")
    first, held_out = split_by_name([row.path.name for row in train], valid_share)
    return [train[i] for i in first], [train[i] for i in held_out]


def kept_for_testing(rows: Sequence[Sample]) -> list[Sample]:
    """Those that the table keeps out of training and validation."""
    return [row for row in rows if PARTS.get(row.split) == "test"]


def samples_of(
    rows: Sequence[Sample], split: str, valid_share: float, person: Callable[[Sample], str],
    who: str, look: Callable[[list[Sample]], list[Sample]],
) -> list[Sample]:  # fmt: skip
    """Those of one split, as `split_samples` and `kept_for_testing` have them. `look`: as in
    `of_split`."""
    return of_split(
        rows, split, lambda row: PARTS.get(row.split) or "train", look,
        lambda usable: split_samples(usable, valid_share, person, who),
    )  # fmt: skip
