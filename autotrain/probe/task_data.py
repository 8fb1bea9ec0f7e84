"""What a task's own datasets are: nobody looks into the user's files but their code."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from autotrain.errors import AutotrainError
from autotrain.kept import keeping, reads
from autotrain.probe import reading
from autotrain.probe.findings import spread
from autotrain.probe.keeping import kept_of_each
from autotrain.probe.lengths import Lengths
from autotrain.probe.likeness import content, stack, steady
from autotrain.probe.loading import Loading, timed
from autotrain.probe.padding import sizes
from autotrain.probe.reading import Read, explained
from autotrain.schema import DatasetProfile
from autotrain.task import Task, map_tensors, user_error

_SAMPLES = 8
_OTHERS = 40  # looked at for what the dataset keeps, those of the first few left out
# Where samples differ in size and no `length` tells how.
_LOOKED_AT, _LOOKING_SECONDS = 256, 1.0

_log = logging.getLogger(__name__)


def task_dataset(task: Task, samples: list[Any], data: str | None) -> DatasetProfile:
    """Counts, and a fingerprint over the counts and the content of the samples given.

    Raises AutotrainError where a dataset cannot tell how many samples it holds.
    """
    where = Path(data or "the task")
    train, valid = sample_count(task.train, "training", where), valid_count(task, where)
    seen = hashlib.sha256(f"{train} {valid}".encode())
    for sample in samples:
        for part in content(sample):
            seen.update(part)
    return DatasetProfile(
        kind="task",
        root=data,
        took_for="the task's own dataset, of which some will validate"
        if task.valid is None
        else f"the task's own datasets, {train:,} to train on and {valid:,} to validate on",
        count=train + valid,
        fingerprint=seen.hexdigest(),
    )


class Opened(NamedTuple):
    """Samples to plan with, the median seconds to load one, those that tell the data from other
    data, and what a ModelProfile says of all of them."""

    samples: list[Any]
    seconds: float
    first: list[Any]
    traits: dict[str, Any]


def opened(task: Task, path: Path, lengths: Lengths | None) -> Opened:
    """A few samples: the longest, where lengths are known; the largest, where they differ in size.

    Raises AutotrainError, naming the task file's line, where loading one fails.
    """
    before = reads()
    few, loading = load_samples(task, path, lengths)
    first, read, seconds = few.kept, {*few.samples, *few.failed}, loading.seconds
    uneven = lengths is None and len({*map(_bytes, first)}) > 1
    known = {
        **traits(task, path, few.samples),
        **_kept_by_blocks(before, lengths, len(first)),
        "cached_bytes": _kept_by_itself(task, path, first, read, seconds),
        "uneven": uneven,
        "sizes": sizes(task, lengths, seconds) if uneven or lengths is not None else 0,
        "waiting_seconds": loading.waiting,
    }
    samples = _largest(task, first, read, seconds) if uneven else first
    return Opened(samples, seconds, first, known)


def load_samples(task: Task, path: Path, lengths: Lengths | None = None) -> tuple[Read, Loading]:
    """A few samples (the longest, where lengths are known) and what loading one takes.

    Raises AutotrainError, naming the task file's line, where that fails.
    """
    total = sample_count(task.train, "training", path)
    if total == 0:
        raise AutotrainError(
            f"{path}: the training dataset is empty", "check the data it was given"
        )
    few = loaded(task, path, _first_read(task, lengths))
    for line in few.told(path):
        _log.warning("training %s", line)
    try:
        return few, timed(task.train, [*few.samples])
    except Exception as error:
        raise explained(path, error) from error


def _first_read(task: Task, lengths: Lengths | None) -> list[int]:
    if lengths is None:
        return spread_indices(len(task.train))
    return lengths.up_to(math.inf, _SAMPLES)


def _largest(task: Task, first: list[Any], read: set[int], seconds: float) -> list[Any]:
    """As many as were read first, the largest of a few hundred or what a second allows."""
    many = min(_LOOKED_AT, int(_LOOKING_SECONDS / max(seconds, 1e-6)))
    found = [*first]
    for index in spread(range(len(task.train)), many):
        if index in read:
            continue
        with suppress(Exception):  # a run heals a bad sample
            found.append(task.train[index])
            found = sorted(found, key=_bytes, reverse=True)[: len(first)]
    return found


def traits(task: Task, path: Path, samples: Mapping[int, Any]) -> dict[str, Any]:
    """What a ModelProfile says of the task's data: counts, and whether its samples, by their index,
    are the same at each reading, and stack."""
    alike = steady(task.train, samples)
    plain = task.collate is None and task.length is None
    return {
        "train_count": sample_count(task.train, "training", path),
        "valid_count": valid_count(task, path),
        "valid_sorted": task.valid is None or task.valid_length is not None,
        "steady": alike,
        "stacks": alike and plain and stack([*samples.values()]),
    }


def _kept_by_blocks(
    before: Mapping[int, int], lengths: Lengths | None, many: int
) -> dict[str, int]:
    """Of samples that blocks keep once all were read, by the `many` that were read since `before`:
    the longest, where lengths are known."""
    found, share = keeping(before), 1.0
    if lengths is not None and lengths.longest > 0:
        share = float(lengths.values.mean() / lengths.values[:many].mean())
    return {"kept_bytes": round(share * found.all_read), "kept_most": found.at_most}


def _kept_by_itself(
    task: Task, path: Path, samples: list[Any], read: set[int], seconds: float
) -> int:
    """Bytes of samples that the dataset keeps once all were read, by some that nobody `read`."""
    unread = [index for index in spread(range(len(task.train)), _OTHERS) if index not in read]
    size = sum(map(_bytes, samples)) / len(samples)
    with suppress(Exception):  # a run heals a bad sample, and the plan's own readings went well
        return round(kept_of_each(task.train, unread, size, seconds) * total_count(task, path))
    return 0


def _bytes(sample: Any) -> int:
    """Of its tensors and arrays; of what else it may hold nothing is known."""
    if isinstance(sample, Mapping):
        return sum(map(_bytes, sample.values()))
    if isinstance(sample, list | tuple):
        return sum(map(_bytes, sample))
    return int(getattr(sample, "nbytes", 0))


def spread_indices(total: int) -> list[int]:
    """A few samples of so many, evenly spread."""
    return spread(range(total), _SAMPLES)


def loaded(task: Task, path: Path, indices: list[int]) -> Read:
    """Those training samples. Raises AutotrainError, naming the task file's line."""
    try:
        found = reading.read(task.train, indices)
    except Exception as error:
        raise explained(path, error) from error
    if found.hopeless is not None:
        raise explained(path, found.hopeless[1]) from found.hopeless[1]
    return found


def sample_count(dataset: Any, which: str, path: Path) -> int:
    """How many samples a dataset holds. Raises AutotrainError where it cannot tell."""
    try:
        return len(dataset)
    except Exception as error:
        raise AutotrainError(
            f"{path}: the {which} dataset has no length: {type(error).__name__}: {error}",
            "give it __len__ and __getitem__ (a map-style dataset)",
        ) from error


def total_count(task: Task, path: Path) -> int:
    """Samples of the task's own, to train on and held out."""
    return sample_count(task.train, "training", path) + valid_count(task, path)


def valid_count(task: Task, path: Path) -> int:
    """Samples of the task's own validation set; 0 where it has none."""
    return 0 if task.valid is None else sample_count(task.valid, "validation", path)


def collated(task: Task, path: Path, samples: list[Any], count: int) -> Any:
    """A batch of so many, the samples over and over. Raises AutotrainError, naming the line."""
    from torch import clone
    from torch.utils.data import default_collate

    collate = task.collate or default_collate
    try:
        # A copy: a collate may hand out the dataset's own tensors, which a step may change.
        return map_tensors(clone, collate([samples[i % len(samples)] for i in range(count)]))
    except Exception as error:
        raise user_error(path, error, "the collate refuses a batch: ") from error
