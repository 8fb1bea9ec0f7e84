"""What a task's own datasets are: nobody looks into the user's files but their code."""

from __future__ import annotations

import hashlib
import logging
import math
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

from autotrain.errors import AutotrainError
from autotrain.kept import keeping, reads
from autotrain.probe import reading
from autotrain.probe.findings import spread
from autotrain.probe.keeping import kept_of_each
from autotrain.probe.lengths import Lengths
from autotrain.probe.reading import Read, explained
from autotrain.schema import DatasetProfile
from autotrain.task import Task, map_tensors, user_error

_SAMPLES = 8
_OTHERS = 40  # looked at for what the dataset keeps, those of the first few left out
# Where samples differ in size and no `length` tells how.
_LOOKED_AT, _LOOKING_SECONDS = 256, 1.0
_TIMING_SECONDS = 0.5

_log = logging.getLogger(__name__)


def task_dataset(task: Task, samples: list[Any], data: str | None) -> DatasetProfile:
    """Counts, and a fingerprint over the counts and the content of the samples given.

    Raises AutotrainError where a dataset cannot tell how many samples it holds.
    """
    where = Path(data or "the task")
    train, valid = sample_count(task.train, "training", where), valid_count(task, where)
    seen = hashlib.sha256(f"{train} {valid}".encode())
    for sample in samples:
        for part in _content(sample):
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


def _content(item: Any) -> Iterator[bytes]:
    """What a sample holds, as bytes; of an object that we do not know, its type."""
    import numpy as np
    import torch

    yield type(item).__name__.encode()
    if isinstance(item, torch.Tensor):
        yield f"{tuple(item.shape)} {item.dtype}".encode()
        yield item.detach().cpu().flatten().view(torch.uint8).numpy().tobytes()
    elif isinstance(item, np.ndarray) and not item.dtype.hasobject:
        yield f"{item.shape} {item.dtype}".encode()
        yield item.tobytes()
    elif isinstance(item, bool | int | float | str | bytes):
        yield repr(item).encode()
    elif isinstance(item, Mapping):
        yield from _content([*item.items()])
    elif isinstance(item, list | tuple):
        for part in item:
            yield from _content(part)
    elif is_dataclass(item):
        yield from _content([getattr(item, field.name) for field in fields(item)])


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
    few, seconds = load_samples(task, path, lengths)
    first, read = few.kept, {*few.samples, *few.failed}
    uneven = lengths is None and len({*map(_bytes, first)}) > 1
    known = {
        **traits(task, path, first),
        **_kept_by_blocks(before, lengths, len(first)),
        "cached_bytes": _kept_by_itself(task, path, first, read, seconds),
        "uneven": uneven,
    }
    samples = _largest(task, first, read, seconds) if uneven else first
    return Opened(samples, seconds, first, known)


def load_samples(task: Task, path: Path, lengths: Lengths | None = None) -> tuple[Read, float]:
    """A few samples (the longest, where lengths are known) and the median seconds to load one.

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
        return few, _loading_seconds(task.train, [*few.samples])
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


def traits(task: Task, path: Path, samples: list[Any]) -> dict[str, Any]:
    """What a ModelProfile says of the task's data: counts, and whether its samples stack."""
    return {
        "train_count": sample_count(task.train, "training", path),
        "valid_count": valid_count(task, path),
        "stacks": task.collate is None and task.length is None and _stack(task, samples),
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


def _stack(task: Task, samples: list[Any]) -> bool:
    """Whether torch's collate makes tensors alone of them, and they are the same at each reading.

    Two are read again, as far as that can be seen: without random numbers, to the same content.
    """
    from torch.utils.data import default_collate

    try:
        if not _only_tensors(default_collate(samples)):
            return False
        before = _generators()
        again = [task.train[index] for index in spread_indices(len(task.train))[:2]]
    except Exception:  # of sizes that differ, or of a kind that torch does not stack
        return False
    same = all([*_content(a)] == [*_content(b)] for a, b in zip(again, samples, strict=False))
    return same and _generators() == before


def _only_tensors(batch: Any) -> bool:
    import torch

    parts = batch.values() if isinstance(batch, Mapping) else batch
    if isinstance(batch, torch.Tensor) or not isinstance(batch, Mapping | list | tuple):
        return isinstance(batch, torch.Tensor)
    return all(_only_tensors(part) for part in parts)


def _generators() -> list[Any]:
    """Where the generators stand that a dataset may draw from."""
    import random

    import numpy as np
    import torch

    numpy = np.random.get_state(legacy=False)
    return [torch.get_rng_state().tolist(), random.getstate(), str(numpy)]


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


def _loading_seconds(dataset: Any, indices: list[int]) -> float:
    """The median over samples of each one's fastest of up to three loads.

    They have been loaded once before: a dataset that keeps what it has loaded pays once. The
    fastest, because a busy moment of the machine would otherwise decide about workers.
    """
    fastest = [math.inf] * len(indices)
    begun = time.perf_counter()
    for _ in range(3):
        for place, index in enumerate(indices):
            started = time.perf_counter()
            dataset[index]
            fastest[place] = min(fastest[place], time.perf_counter() - started)
        if time.perf_counter() - begun > _TIMING_SECONDS:
            break
    return statistics.median(fastest)


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
