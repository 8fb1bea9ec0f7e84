"""What an earlier stage of the plan has learned, as the value of an option of the task.

`task.teacher = "stage:big"` in a stage means the best checkpoint of the stage `big`. A plan is made
before there is one, and the task is then given the words as they stand; a run puts the path there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autotrain.errors import AutotrainError

PREFIX = "stage:"
# Where a stage's plan keeps the paths, by the stage's name, and the digests of the weights there.
PATHS, DIGESTS = "checkpoints", "checkpoints_sha256"


def named(options: Mapping[str, Any]) -> dict[str, str]:
    """The options that mean a stage, each with its name."""
    return {
        key: value.removeprefix(PREFIX)
        for key, value in options.items()
        if isinstance(value, str) and value.startswith(PREFIX)
    }


def is_pending(place: Path | str) -> bool:
    """Whether these are the words of a plan, and not yet a path."""
    return str(place).startswith(PREFIX)


def faults(stages: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """Options of stages, in their order, that mean a stage which does not come before."""
    lines, before = [], list[str]()
    for name, options in stages:
        where = f"stage.{name}." if name else ""
        lines += [
            f"{where}task.options.{key}: no stage {wanted!r} before this one"
            for key, wanted in named(options).items()
            if wanted not in before
        ]
        before.append(name)
    return lines


def filled(options: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """The options with the paths that a plan's `inputs.asked` keeps of them.

    Raises AutotrainError for a stage of which there is none.
    """
    paths = asked.get(PATHS)
    known = paths if isinstance(paths, Mapping) else {}
    found = dict(options)
    for key, stage in named(options).items():
        if not isinstance(known.get(stage), str):
            raise AutotrainError(
                f"task.options.{key}: the plan has no stage {stage!r} before this one",
                "name an earlier stage, a run's folder, or a .safetensors file",
            )
        found[key] = known[stage]
    return found
