"""Back to an older checkpoint before a run goes on: newer ones are set aside, not lost."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Sequence
from pathlib import Path

from autotrain import files
from autotrain.errors import AutotrainError
from autotrain.run.keeping import checkpoint
from autotrain.run.keeping.checkpoint import POINTERS
from autotrain.run.keeping.keeper import pointed

_STEP = re.compile(r"(?:step-)?0*([0-9]{1,18})")


def named(directory: Path, name: str, flag: str = "--from") -> int:
    """The step that a person means by `step-1200`, `1200` or `best`, said with that flag.

    Raises AutotrainError where no checkpoint there has that name, or it is torn.
    """
    known, points = checkpoint.steps(directory), pointed(directory)
    found = _STEP.fullmatch(name)
    step = int(found[1]) if found else points.get(name)
    if step not in known:
        there = [f"{each} (step-{points[each]})" for each in POINTERS if each in points]
        there += [f"step-{each}" for each in known]
        raise AutotrainError(
            f"{flag} {name}: no such checkpoint in {checkpoint.checkpoints(directory)}",
            f"there are {', '.join(there)}" if there else "there is none at all",
        )
    checkpoint.verify(checkpoint.folder(directory, step))
    return step


def go_back(directory: Path, name: str) -> str:
    """Make that checkpoint the newest; returns what was done, in words. Raises AutotrainError.

    What it sets aside counts no more: neither for the next resume nor for what is deleted.
    """
    step = named(directory, name)
    newer = [each for each in checkpoint.steps(directory) if each > step]
    if not newer:
        return f"step-{step} is the newest"
    place = set_aside(directory, newer)
    others = f" and {len(newer) - 1} more" if len(newer) > 1 else ""
    return f"back to step-{step}; step-{newer[0]}{others} are kept in {place}"


def set_aside(directory: Path, steps: Sequence[int]) -> Path:
    """Move these checkpoints to a new `checkpoints/aside-N`, which it returns, where they count no
    more and nothing deletes them. Raises AutotrainError.
    """
    checkpoint.insist_own(directory)
    numbered = (checkpoint.checkpoints(directory) / f"aside-{n}" for n in itertools.count(1))
    place = next(each for each in numbered if not os.path.lexists(each))
    try:
        place.mkdir()
        for each in sorted(steps):
            path = checkpoint.folder(directory, each)
            path.rename(place / path.name)
        files.sync_folder(place)
        files.sync_folder(place.parent)
    except OSError as error:
        raise AutotrainError(f"{place}: {error.strerror}") from None
    return place
