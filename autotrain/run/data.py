"""Micro-batches in the order in which the loop takes them, fetched ahead by loader workers.

One loader serves the whole run. Its sampler walks the same itinerary as the loop: the windows
of training steps, and the validation set where an evaluation is due. So the end of an epoch
makes nobody wait, and no second set of workers sits in memory for the validation.
"""

from __future__ import annotations

import pickle
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch.utils.data import DataLoader, Subset, TensorDataset, default_collate

from autotrain.errors import AutotrainError
from autotrain.run.bucketed import BucketedOrder
from autotrain.run.cadence import Cadence
from autotrain.run.order import Order
from autotrain.run.seeds import COLLATE, TRAIN_SAMPLE, VALID_SAMPLE, mixed, seed_cpu
from autotrain.run.signals import leave_to_parent
from autotrain.schema import VALID_SHARE, LoaderSection, Plan
from autotrain.task import Portable, Task, hold_out, map_tensors, subset


class LoaderDiedError(AutotrainError):
    """The loader itself failed, most often because a worker was killed."""

    @classmethod
    def of(cls, error: BaseException) -> LoaderDiedError:
        """With what torch or the system says, and the usual reason."""
        return cls(
            f"the data loader failed: {type(error).__name__}: {error}",
            "a worker that is killed often lacked memory: fewer loader.workers, or more room"
            " in /dev/shm",
        )


@dataclass(frozen=True)
class Split:
    """What is trained on and what is held out, as map-style datasets, and each one's size.

    `length` is the task's, by index into `train`; `valid_length` by index into `valid`, where
    that was held out of the training samples.
    """

    train: Any
    valid: Any
    train_count: int
    valid_count: int
    length: Callable[[int], float] | None
    valid_length: Callable[[int], float] | None = None


def split(task: Task, plan: Plan) -> Split:
    """The task's own split, or one made by the plan's share and seed.

    Raises AutotrainError for a dataset that is empty or has no length.
    """
    if task.valid is not None:
        sizes = _count(task.train, "train"), _count(task.valid, "valid")
        return Split(task.train, task.valid, *sizes, task.length)
    share = plan.data.valid_share or VALID_SHARE
    train, valid = hold_out(_count(task.train, "train"), share, plan.run.seed)
    parts = subset(task.train, train), subset(task.train, valid)
    costs, sizes = task.length, (len(train), len(valid))
    if costs is None:
        return Split(*parts, *sizes, None)
    return Split(*parts, *sizes, lambda i: costs(train[i]), lambda i: costs(valid[i]))


def _count(dataset: Any, name: str) -> int:
    try:
        count = len(dataset)
    except TypeError:
        raise AutotrainError(
            f"the task's {name} dataset ({type(dataset).__name__}) has no length",
            "give it __len__ and __getitem__ (a map-style dataset)",
        ) from None
    if count == 0:
        raise AutotrainError(f"the task's {name} dataset is empty", "check the data's path")
    return int(count)


def lengths_of(parts: Split) -> torch.Tensor | None:
    """float64 [train_count]: what each training sample costs; None: the task does not say."""
    return _costs(parts.length, parts.train_count)


def valid_lengths_of(parts: Split) -> torch.Tensor | None:
    """float64 [valid_count]: what each validation sample costs; None: nobody says."""
    return _costs(parts.valid_length, parts.valid_count)


def _costs(length: Callable[[int], float] | None, count: int) -> torch.Tensor | None:
    if length is None:
        return None
    return torch.tensor([float(length(index)) for index in range(count)], dtype=torch.float64)


@dataclass(frozen=True)
class Request:
    """Samples of one micro-batch: of `epoch` of the training set, or (None) for validation."""

    epoch: int | None
    indices: Sequence[int]


@dataclass(frozen=True)
class Failed:
    """A micro-batch that could not be made, as a worker reports it."""

    what: str
    error: str
    memory: bool


class Source:
    """Makes micro-batches; this is what travels to the workers.

    What comes from the task file travels in a Portable, so that a spawned worker can load it.
    """

    def __init__(self, parts: Split, task: Task, seed: int, task_file: Path) -> None:
        carried = (parts.train, parts.valid, task.collate or default_collate)
        self.carried = Portable(carried, task_file)
        self.seed = seed

    def __getitem__(self, request: Request) -> tuple[int | None, Any]:
        """Which epoch it is for, and the batch or Failed.

        An exception raised in a worker would arrive as a wall of text.
        """
        return request.epoch, self._made(request)

    def _made(self, request: Request) -> Any:
        train, valid, collate = self.carried.value
        dataset, purpose = (valid, VALID_SAMPLE) if request.epoch is None else (train, TRAIN_SAMPLE)
        epoch, draws, samples = request.epoch or 0, not _is_still(dataset), []
        what = "a micro-batch"
        try:
            for index in request.indices:
                what = _named(dataset, index, valid=request.epoch is None)
                if draws:
                    seed_cpu(mixed(self.seed, purpose, epoch, index))
                samples.append(dataset[index])
            what = f"collate of {len(samples)} samples"
            seed_cpu(mixed(self.seed, COLLATE, epoch, request.indices[0]))
            return collate(samples)
        except Exception as error:
            return Failed(what, described(error), isinstance(error, MemoryError))


def _is_still(dataset: Any) -> bool:
    """Whether reading it surely draws no random number: seeding takes 6 us a sample."""
    inner = dataset.dataset if type(dataset) is Subset else dataset
    return type(inner) in (TensorDataset, list, tuple)


def _named(dataset: Any, index: int, *, valid: bool) -> str:
    original = dataset.indices[index] if type(dataset) is Subset else index
    return f"sample {original} of the {'validation' if valid else 'training'} set"


def described(error: BaseException) -> str:
    """`ValueError: what it says (file.py:12)`, with the line that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"


@dataclass
class Itinerary:
    """What the loop will ask for, from `step` on, up to and including `last`.

    `evaluated` is the step of the last evaluation made, so that none is repeated or left out.
    `valid` is the validation set in micro-batches, always in the same order.
    """

    order: Order | BucketedOrder
    cadence: Cadence
    valid: list[Sequence[int]]
    last: int
    step: int = 0
    evaluated: int = 0

    def __iter__(self) -> Iterator[Request]:
        """The requests of every evaluation that is due and every window, in turn."""
        for step in range(self.step, self.last + 1):
            if step != self.evaluated and (self.cadence.evaluates(step) or step == self.last):
                yield from (Request(None, indices) for indices in self.validation())
            if step < self.last:
                epoch = step // self.cadence.steps_per_epoch
                yield from (Request(epoch, indices) for indices in self.order.window(step))

    def validation(self) -> list[Sequence[int]]:
        """The validation set's micro-batches."""
        return self.valid


class Feed:
    """Hands out the itinerary's micro-batches, on the device. `waited` adds up seconds."""

    def __init__(
        self, source: Source, itinerary: Itinerary, section: LoaderSection, device: torch.device
    ) -> None:
        self.source, self.itinerary, self.section, self.device = source, itinerary, section, device
        self.waited = 0.0
        self._batches: Iterator[Any] | None = None

    def take(self, epoch: int | None) -> Any:
        """The next micro-batch, which is of that epoch (counted from 0; None: validation).

        Raises AutotrainError with the sample or the worker named.
        """
        begun = perf_counter()
        if self._batches is None:
            self._batches = self._start()
        try:
            made_for, batch = next(self._batches)
        except (RuntimeError, OSError, EOFError) as error:
            raise LoaderDiedError.of(error) from error
        self.waited += perf_counter() - begun
        assert made_for == epoch, "the loop left the itinerary"
        if isinstance(batch, Failed):
            if batch.memory:
                raise MemoryError(f"{batch.what}: {batch.error}")
            raise AutotrainError(f"{batch.what}: {batch.error}", "mend or remove it, then --resume")
        if self.device.type == "cpu":
            return batch
        return map_tensors(lambda tensor: tensor.to(self.device, non_blocking=True), batch)

    def close(self) -> None:
        """End the workers."""
        self._batches = None

    def restart(self, itinerary: Itinerary) -> None:
        """Go on along another itinerary, with new workers."""
        self.close()
        self.itinerary = itinerary

    def _start(self) -> Iterator[Any]:
        workers, method = self.section.workers, self.section.start_method
        try:
            loader: DataLoader[Any] = DataLoader(
                self.source,  # type: ignore[arg-type]
                batch_size=None,
                sampler=self.itinerary,
                collate_fn=_as_it_is,
                num_workers=workers,
                prefetch_factor=self.section.prefetch if workers else None,
                multiprocessing_context=method if workers else None,
                worker_init_fn=leave_to_parent,
                pin_memory=self.section.pin_memory and self.device.type == "cuda",
                # Its own generator: the loader draws a base seed that nothing here uses.
                generator=torch.Generator(),
            )
            with warnings.catch_warnings():
                # torch's advice on a pickling error; ours comes with the exception below.
                warnings.filterwarnings("ignore", "Got pickle error")
                return iter(loader)
        except (pickle.PicklingError, AttributeError, TypeError, ValueError) as error:
            raise AutotrainError(
                f"loader workers cannot start by {method}: {error}",
                "define datasets and collate at the top level of the task file, or set"
                " loader.workers = 0",
            ) from error


def _as_it_is(batch: Any) -> Any:
    return batch
