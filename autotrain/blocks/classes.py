"""Classes of very different size, and those that have nothing."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from autotrain.errors import AutotrainError

NAMED = 5  # classes that a message lists

_log = logging.getLogger(__name__)


def balanced_weights(labels: Sequence[int], classes: int) -> list[float]:
    """What a sample of each class counts, so that all classes count the same together.

    samples / (classes x samples of the class), so that the mean over the samples is 1.
    """
    counts = Counter(labels)
    return [
        len(labels) / (classes * counts[each]) if counts[each] else 0.0 for each in range(classes)
    ]


def insist_on_samples(names: Sequence[str], labels: Sequence[int]) -> None:
    """Raise AutotrainError where a class, by its place in `names`, has no sample left."""
    there = set(labels)
    gone = [name for label, name in enumerate(names) if label not in there]
    if gone:
        raise AutotrainError(
            f"no image that can be read in {_listed(gone)}",
            "restore its images, or remove the folder: then it is no class",
        )


def insist_on_validation(valid: Sequence[object]) -> None:
    """Raise AutotrainError where no image is there to validate on."""
    if not valid:
        raise AutotrainError(
            "no image is left to validate on",
            "add images: one of each class is for training; or a folder `valid` beside `train`",
        )


def say_empty_folders(classes: Mapping[str, Sequence[Path]]) -> None:
    """Name the folders beside those of the classes that hold no image: they are no class."""
    name, first = next((name, paths[0]) for name, paths in classes.items() if paths)
    top = next((place.parent for place in first.parents if place.name == name), None)
    if top is None:
        return
    empty = sorted(
        place.name
        for place in top.iterdir()
        if place.is_dir() and place.name not in classes and not place.name.startswith(".")
    )
    if empty:
        _log.warning("%s: no image in %s: not a class", top, _listed(empty))


def of_known(classes: Mapping[str, list[Path]], names: Sequence[str]) -> dict[str, list[Path]]:
    """Those that a model knows; others, of which it was never told, are named and left out."""
    strange = sorted(name for name, paths in classes.items() if paths and name not in names)
    if strange:
        _log.warning("left out: %s: not among the classes of the model", _listed(strange))
    return {name: paths for name, paths in classes.items() if name in names}


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{more}"
