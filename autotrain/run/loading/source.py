"""Makes micro-batches, in the training process or in a loader worker.

A sample that fails is tried once more, then left out: the loss is a sum with its weight, so the
gradient is exact for what is left.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, MutableSequence, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import torch
from torch.utils.data import Subset, TensorDataset, default_collate

from autotrain.run.loading import calm, pipes
from autotrain.run.loading.blame import fitting
from autotrain.run.loading.data import Split
from autotrain.run.loading.itinerary import Request
from autotrain.run.loading.kept import Kept
from autotrain.run.seeds import COLLATE, TRAIN_SAMPLE, VALID_SAMPLE, mixed, seed_cpu
from autotrain.task import Portable, Task

# What a maker is at, where it is not reading the sample of an index.
COLLATING, HANDING_OVER, IDLE = -1, -2, -3
JURY = 8


@dataclass(frozen=True, slots=True)
class BadSample:
    """A sample that could not be used, by its index in its half of the split.

    `fatal`: it ended or stopped the process that read it.
    """

    valid: bool
    index: int
    error: str
    seconds: float = 0.0
    fatal: bool = False


class Fault(NamedTuple):
    """Why a micro-batch could not be made. `lost`: by no sample's fault, but for want of files,
    threads or shared memory; or it was made, and did not get through.
    """

    what: str
    error: str
    memory: bool = False
    lost: bool = False


class Made(NamedTuple):
    """A micro-batch of the `left` samples that could be used; none: `batch` is None.

    `drawn`: reading such samples was seen to draw random numbers.
    """

    batch: Any
    left: int
    bad: tuple[BadSample, ...] = ()
    fault: Fault | None = None
    drawn: bool = False


Read = tuple[list[tuple[int, Any]], list[BadSample]] | Fault


class Source:
    """Makes micro-batches; this is what travels to the workers.

    What comes from the task file travels in a Portable, so that a spawned worker can load it.
    `shunned`: samples (valid, index) that are never read again. `draws`: whether reading a
    training or a validation sample was seen to draw random numbers: seeding takes 6 us each.
    `follows`: the training set has `set_epoch`; its samples may differ from epoch to epoch.
    """

    def __init__(self, parts: Split, task: Task, seed: int, task_file: Path) -> None:
        carried = (parts.train, parts.valid, task.collate or default_collate)
        self.carried = Portable(carried, task_file)
        self.seed = seed
        self.shunned: set[tuple[bool, int]] = set()
        self.follows = hasattr(_own(parts.train), "set_epoch")
        self.draws = [self.follows, False]
        self.kept: Kept | None = None

    def made(self, request: Request, at: MutableSequence[int]) -> Made:
        """The micro-batch. `at[0]` always tells what is being done: an index, or COLLATING."""
        valid = request.epoch is None
        if self.carried.value[2] is default_collate and not self.shunned:
            rows = _rows(self.carried.value[valid], request.indices)
            if rows is not None:
                return Made(rows, len(request.indices))
        read = self._read(request, at)
        if isinstance(read, Fault):
            return Made(None, 0, fault=read)
        samples, bad = read
        at[0] = COLLATING
        made = self._collated(request, samples) if samples else Made(None, 0)
        if bad or self.draws[valid]:
            made = made._replace(bad=(*bad, *made.bad), drawn=self.draws[valid])
        return made

    def _read(self, request: Request, at: MutableSequence[int]) -> Read:
        """The samples, each with the draws of its place; seeded only where reading draws."""
        valid = request.epoch is None
        if not self.draws[valid]:
            calm.settle()
            read = self._each(request, at)
            if not calm.disturbed():
                return read
            self.draws[valid] = True
            if self.kept is not None:
                self.kept.forget(valid)
        return self._each(request, at)

    def _each(self, request: Request, at: MutableSequence[int]) -> Read:
        valid = request.epoch is None
        dataset, draws = self.carried.value[valid], self.draws[valid]
        if self.follows and request.epoch is not None:
            _own(dataset).set_epoch(request.epoch)
        kept = None if draws else self.kept
        samples: list[tuple[int, Any]] = []
        bad: list[BadSample] = []
        for index in request.indices:
            if self.shunned and (valid, index) in self.shunned:
                continue
            if kept is not None and (known := kept.find(valid, index)) is not None:
                samples.append((index, known))
                continue
            at[0] = index
            if draws:
                self._seed(request, index)
            try:
                samples.append((index, dataset[index]))
                if kept is not None:
                    kept.offer(valid, index, samples[-1][1], dataset.__getitem__)
            except Exception as error:
                again = self._again(request, index, error)
                if isinstance(again, Fault):
                    return again
                if isinstance(again, BadSample):
                    bad.append(again)
                else:
                    samples.append(again)
        return samples, bad

    def named(self, index: int, *, valid: bool) -> str:
        """A sample as the task's author knows it."""
        dataset = self.carried.value[valid]
        original = dataset.indices[index] if type(dataset) is Subset else index
        return f"sample {original} of the {'validation' if valid else 'training'} set"

    def _seed(self, request: Request, index: int) -> None:
        purpose = VALID_SAMPLE if request.epoch is None else TRAIN_SAMPLE
        seed_cpu(mixed(self.seed, purpose, request.epoch or 0, index))

    def _seed_collate(self, request: Request) -> None:
        if self.carried.value[2] is not default_collate:  # torch's own draws nothing
            seed_cpu(mixed(self.seed, COLLATE, request.epoch or 0, request.indices[0]))

    def _again(
        self, request: Request, index: int, error: Exception
    ) -> tuple[int, Any] | BadSample | Fault:
        """A second try: a file on a network may fail once."""
        begun, valid = perf_counter(), request.epoch is None
        try:
            if not isinstance(error, MemoryError):
                if self.draws[valid]:
                    self._seed(request, index)
                return index, self.carried.value[valid][index]
        except Exception as second:
            error = second
        if isinstance(error, MemoryError):
            return Fault(self.named(index, valid=valid), described(error), memory=True)
        if pipes.too_narrow(error):
            return Fault(self.named(index, valid=valid), described(error), lost=True)
        return BadSample(valid, index, described(error), perf_counter() - begun)

    def _collated(self, request: Request, samples: list[tuple[int, Any]]) -> Made:
        self._seed_collate(request)
        try:
            return Made(self.carried.value[2]([sample for _, sample in samples]), len(samples))
        except MemoryError as error:
            return Made(None, 0, fault=_of_collate(samples, error))
        except Exception as error:
            if pipes.too_narrow(error):  # for all workers together
                fault = _of_collate(samples, error)._replace(lost=True)
                return Made(None, 0, fault=fault)
            return self._without_culprits(request, samples, error)

    def _without_culprits(
        self, request: Request, samples: list[tuple[int, Any]], error: Exception
    ) -> Made:
        """What is left without those that do not collate with the rest, if such can be found."""
        begun, collate = perf_counter(), self.carried.value[2]
        alone = [sample for _, sample in samples]
        kept = fitting(alone, self._jury(request, len(samples)), _tried(collate))
        if not kept:
            return Made(None, 0, fault=_of_collate(samples, error))
        self._seed_collate(request)
        try:
            batch = collate([alone[place] for place in kept])
        except Exception as second:
            return Made(None, 0, fault=_of_collate(samples, second))
        said = f"it does not collate with the others: {described(error)}"
        seconds, valid = perf_counter() - begun, request.epoch is None
        left_out = [index for place, (index, _) in enumerate(samples) if place not in kept]
        bad = tuple(BadSample(valid, index, said, seconds) for index in left_out)
        return Made(batch, len(kept), bad)

    def _jury(self, request: Request, present: int) -> list[Any]:
        """Other samples of the set, from all over it, so that there are a handful to compare."""
        valid = request.epoch is None
        dataset, jury = self.carried.value[valid], list[Any]()
        count = len(dataset)
        for index in range(0, count, max(count // JURY, 1)):
            known = index in request.indices or (valid, index) in self.shunned
            if present + len(jury) < JURY and not known:
                self._seed(request, index)
                try:
                    jury.append(dataset[index])
                except Exception:
                    continue
        return jury


def _own(dataset: Any) -> Any:
    """The task's dataset, of which this may be one half."""
    return dataset.dataset if type(dataset) is Subset else dataset


def _tried(collate: Callable[[list[Any]], Any]) -> Callable[[list[Any]], bool]:
    def collates(samples: list[Any]) -> bool:
        try:
            collate(samples)
        except Exception:
            return False
        return True

    return collates


def _of_collate(samples: list[tuple[int, Any]], error: Exception) -> Fault:
    what = f"collate of {len(samples)} samples"
    return Fault(what, described(error), memory=isinstance(error, MemoryError))


def _rows(dataset: Any, indices: Sequence[int]) -> list[torch.Tensor] | None:
    """What default_collate makes of a TensorDataset's samples, in one go; None: it is none."""
    inner = dataset
    if type(dataset) is Subset:
        inner, indices = dataset.dataset, [dataset.indices[index] for index in indices]
    if type(inner) is not TensorDataset or not all(t.is_contiguous() for t in inner.tensors):
        return None
    places = torch.tensor(indices)
    return [tensor[places] for tensor in inner.tensors]


def described(error: BaseException) -> str:
    """`ValueError: what it says (file.py:12)`, with the line that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"
