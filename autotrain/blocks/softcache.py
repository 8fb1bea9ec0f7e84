"""A teacher's answers on disk, one tensor a sample, in safetensors files.

Each is named `<index>.<digest of the sample>`: after a change of the data, what no longer fits
is not found, and a sample that is augmented anew each epoch is noticed.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from autotrain.batches import tensors_in
from autotrain.errors import AutotrainError
from autotrain.files import write_atomic

_LOOKED_AT = 6  # samples that are read before a cache is begun
SHARD_BYTES = 64 << 20  # written at the next evaluation, or at once when so much has come
_log = logging.getLogger(__name__)


class Known(NamedTuple):
    """A sample, or a batch of them, with the name of each."""

    names: Any
    held: Any


class Named(torch.utils.data.Dataset[Known]):
    """A dataset that gives each sample with its name."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Known:
        sample = self.dataset[index]
        return Known(f"{index}.{digest(sample)}", sample)


class NamedCollate:
    """A collate of samples with names; a validation set's, without, it leaves as they are."""

    def __init__(self, collate: Callable[[list[Any]], Any] | None) -> None:
        self.collate = collate or torch.utils.data.default_collate

    def __call__(self, samples: list[Any]) -> Any:
        """The batch, in Known where the samples are."""
        if not isinstance(samples[0], Known):
            return self.collate(samples)
        held = self.collate([sample.held for sample in samples])
        return Known(tuple(sample.names for sample in samples), held)


def digest(item: Any) -> str:
    """24 hexadecimal digits of what a sample holds."""
    seen = hashlib.blake2b(digest_size=12)
    for part in _content(item):
        seen.update(part)
    return seen.hexdigest()


def _content(item: Any) -> Iterator[bytes]:
    if isinstance(item, torch.Tensor):
        item = item.detach().cpu().contiguous()
        yield f"{tuple(item.shape)} {item.dtype}".encode()
        yield item.reshape(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(item, np.ndarray) and not item.dtype.hasobject:
        yield f"{item.shape} {item.dtype}".encode()
        yield item.tobytes()
    elif isinstance(item, Mapping):
        yield from _content([*item.items()])
    elif isinstance(item, list | tuple):
        yield f"{len(item)} parts".encode()
        for part in item:
            yield from _content(part)
    elif is_dataclass(item) and not isinstance(item, type):
        yield from _content([getattr(item, field.name) for field in fields(item)])
    elif item is None or isinstance(item, bool | int | float | str | bytes | np.generic):
        yield repr(item).encode() + b";"
    else:
        raise AutotrainError(
            f"cache: a sample holds {type(item).__name__}, which cannot be told from another",
            "samples of tensors, arrays, numbers and text; or leave `cache` out",
        )


def refuse_unfit(dataset: Any, collate: Callable[[list[Any]], Any] | None) -> None:
    """Raise AutotrainError where samples differ from one reading to the next, or are reordered."""
    count = len(dataset)
    chosen = sorted({i * count // _LOOKED_AT for i in range(_LOOKED_AT)}) if count else []
    with torch.random.fork_rng(devices=[]):
        samples = [*_readable(dataset, chosen)]
        if [digest(s) for s in samples] != [digest(s) for s in _readable(dataset, chosen)]:
            raise AutotrainError(
                "cache: training samples are augmented: each reading gives another",
                "leave `cache` out: the teacher then answers to what the student sees",
            )
        if any(_reordered(collate, *pair) for pair in itertools.pairwise(samples)):
            raise AutotrainError(
                "cache: the collate puts the samples into an order of its own",
                "keep their order, or leave `cache` out",
            )


def _readable(dataset: Any, indices: Sequence[int]) -> Iterator[Any]:
    """What is damaged is named, and put aside, by whoever trains on it."""
    for index in indices:
        with suppress(Exception):
            yield dataset[index]


def _reordered(collate: Callable[[list[Any]], Any] | None, one: Any, two: Any) -> bool:
    """Whether two samples make the same batch in either order."""
    made = collate or torch.utils.data.default_collate
    with suppress(Exception):
        return digest(one) != digest(two) and _same(made([one, two]), made([two, one]))
    return False


def _same(one: Any, two: Any) -> bool:
    return [*map(digest, tensors_in(one))] == [*map(digest, tensors_in(two))]


class SoftCache:
    """Answers by name: those in the files of a folder, and new ones until they are written.

    `count`: samples that there are. A file that is torn, or another's, is passed over.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.count = folder, count
        self.places: dict[str, Any] = {}  # name -> the open file
        self.fresh: dict[str, torch.Tensor] = {}
        self.fresh_bytes = 0
        self.own: dict[str, str] = {}  # index -> name, of what this process has seen
        self.off = ""  # why nothing more is kept
        for path in sorted(folder.glob("*.safetensors")) if folder.is_dir() else []:
            self._read(path)

    @property
    def complete(self) -> bool:
        """Whether every sample has an answer."""
        return len({name.partition(".")[0] for name in self.places}) >= self.count

    def get(self, names: Sequence[str]) -> list[torch.Tensor] | None:
        """The answers of these samples, on the CPU; None where one is missing."""
        if not all(name in self.fresh or name in self.places for name in names):
            return None
        return [
            self.fresh[name] if name in self.fresh else self.places[name].get_tensor(name)
            for name in names
        ]

    def put(self, names: Sequence[str], answers: Sequence[torch.Tensor]) -> None:
        """Keep new answers, from any device."""
        if self.off:
            return
        for name, answer in zip(names, answers, strict=True):
            index = name.partition(".")[0]
            if self.own.setdefault(index, name) != name:
                self._stop("training samples are augmented: the teacher answers anew")
                return
            if name not in self.fresh and name not in self.places:
                self.fresh[name] = answer.detach().to("cpu", copy=True).contiguous()
                self.fresh_bytes += self.fresh[name].nbytes
        if self.fresh_bytes >= SHARD_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what is new. A disk that is full, or may not be written, is said once."""
        if not self.fresh or self.off:
            return
        content = save(self.fresh)
        path = self.folder / f"{hashlib.sha256(content).hexdigest()[:16]}.safetensors"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomic(path, content)
        except (OSError, AutotrainError) as error:
            why = error.strerror if isinstance(error, OSError) else error.message
            # What has been computed goes on to serve from memory.
            self._stop(f"not written, {why}: the teacher answers anew")
            return
        self._read(path)
        if all(name in self.places for name in self.fresh):
            self.fresh, self.fresh_bytes = {}, 0

    def _read(self, path: Path) -> None:
        try:
            file = safe_open(path, framework="pt")
            names: list[str] = file.keys()  # type: ignore[no-untyped-call]
            self.places.update(dict.fromkeys(names, file))
        except (OSError, SafetensorError) as error:
            _log.warning("teacher's answers: passed over %s: %s", path, error)

    def _stop(self, why: str) -> None:
        self.off = why
        _log.warning("teacher's answers in %s: %s", self.folder, why)
