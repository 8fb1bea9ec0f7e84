"""Samples that come from files: damaged ones are named and skipped, small sets stay in memory."""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypedDict, TypeVar

import torch
from torch.utils.data import get_worker_info

from autotrain.blocks.layouts.listing import FAULTY_SHARE
from autotrain.errors import AutotrainError
from autotrain.kept import register

Item = TypeVar("Item")
CACHE_BYTES = 512 << 20  # of loaded samples, shared out among the loader's workers
BLOCK_BYTES, ALIGNED = 16 << 20, 64

_log = logging.getLogger(__name__)


class Leeway(TypedDict):
    """What `keep_readable` bears: how many are left at least, and what share may be damaged."""

    least: int
    bears: float


FEW: Leeway = {"least": 1, "bears": 0.5}  # of one split by itself


@functools.cache
def _told(problem: str) -> None:
    """Once: each stage of a plan reads the same files."""
    _log.warning("skipped: %s", problem)


def keep_readable(
    items: Sequence[Item], check: Callable[[Item], object], what: str, least: int = 2,
    bears: float = FAULTY_SHARE,
) -> list[Item]:  # fmt: skip
    """The items for which `check` raises no AutotrainError; the others are named and skipped.

    `what` names them in the plural. Raises AutotrainError where more than `bears` of them, a tenth,
    is damaged, or fewer than `least` are left.
    """
    kept, problems = [], []
    for item in items:
        try:
            check(item)
            kept.append(item)
        except AutotrainError as error:
            problems.append(error.message)
    _refuse_damaged(problems, len(items), what, bears)
    for problem in problems:
        _told(problem)
    if len(kept) < least:
        raise AutotrainError(
            f"{what} that can be read: {len(kept)}; {least} are the least to train on",
            f"add {what}",
        )
    return kept


def split_by_name(names: Sequence[str], valid_share: float) -> tuple[list[int], list[int]]:
    """Indices as (train, valid). A name's hash decides, so that the order, the machine and most
    files that come or go later do not change a sample's side.

    At least one of two or more samples is on each side; a single one is for training.
    """
    order = sorted(range(len(names)), key=lambda i: (_hashed(names[i]), i))
    held = min(max(round(len(names) * valid_share), 1), len(names) - 1) if names else 0
    return sorted(order[held:]), sorted(order[:held])


def of_split(
    items: Sequence[Item], split: str, named: Callable[[Item], str],
    look: Callable[[list[Item]], list[Item]],
    share_out: Callable[[list[Item]], Sequence[list[Item]]],
) -> list[Item]:  # fmt: skip
    """The items of one split, by itself. `named`: what split the data says an item is of.

    `look` -> those that can be used. It is asked of all, and `share_out` for (train, valid, ...) of
    them, only where the data names no validation: then all of them say which are held out.
    """
    if split == "test" or any(named(item) == "valid" for item in items):
        found = [item for item in items if named(item) == split]
        return look(found) if found else []
    train, valid, *_ = share_out(look([*items]))
    return train if split == "train" else valid


def _hashed(name: str) -> bytes:
    """Of any name that a file may have: one that is not UTF-8 has its bytes as surrogates."""
    return hashlib.sha256(name.encode(errors="surrogatepass")).digest()


class Loaded(Generic[Item]):
    """`loaded[i]` -> (index used, tensor): `load` of an item, kept while all kept fit the cache.

    An item whose `load` raises AutotrainError is named once, and the next one that loads takes
    its place: hence the index. Raises AutotrainError once over a tenth has turned out damaged.
    Pickled for a loader's worker, it leaves what it keeps behind.
    """

    def __init__(
        self,
        items: Sequence[Item],
        load: Callable[[Item], torch.Tensor],
        what: str,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.items = list(items)
        self.load = load
        self.what = what
        self.cache_bytes = cache_bytes
        self.kept: dict[int, torch.Tensor] = {}
        self.kept_bytes = 0
        self.room = _Room()
        self.problems: dict[int, str] = {}
        self.reads = 0
        register(self)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def kept_count(self) -> int:
        """How many items are kept."""
        return len(self.kept)

    def __getitem__(self, index: int) -> tuple[int, torch.Tensor]:
        if not 0 <= index < len(self.items):
            raise IndexError(index)
        self.reads += 1
        tensor = self._at(index)
        while tensor is None:
            index = (index + 1) % len(self.items)
            tensor = self._at(index)
        return index, tensor

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"kept": {}, "kept_bytes": 0, "room": _Room()}

    def _at(self, index: int) -> torch.Tensor | None:
        if index in self.problems:
            return None
        if index in self.kept:
            return self.kept[index]
        try:
            tensor = self.load(self.items[index])
        except AutotrainError as error:
            said = error.message in self.problems.values()  # of the same file, read otherwise
            self.problems[index] = error.message
            _refuse_damaged(list(self.problems.values()), len(self.items), self.what)
            if not said:
                _log.warning("skipped, another takes its place: %s", error.message)
            return None
        worker = get_worker_info()
        share = self.cache_bytes // (1 if worker is None else worker.num_workers)
        if self.kept_bytes + tensor.nbytes <= share:
            self.kept[index] = tensor = self.room.put(tensor)
            self.kept_bytes += tensor.nbytes
        return tensor


class _Room:
    """Keeps tensors one behind another, in a few large blocks.

    Each by itself would lie among what training frees, and cut that into pieces that no batch of
    another size can use again.
    """

    def __init__(self) -> None:
        self.block = torch.empty(0, dtype=torch.uint8)
        self.used = 0

    def put(self, tensor: torch.Tensor) -> torch.Tensor:
        """A copy of it."""
        size = tensor.nbytes
        if self.used + size > len(self.block):
            self.block = torch.empty(max(BLOCK_BYTES, size), dtype=torch.uint8)
            self.used = 0
        place = self.block[self.used : self.used + size]
        self.used += -(-size // ALIGNED) * ALIGNED
        return place.view(tensor.dtype).view(tensor.shape).copy_(tensor)


def _refuse_damaged(
    problems: Sequence[str], count: int, what: str, bears: float = FAULTY_SHARE
) -> None:
    if len(problems) > bears * count:
        more = ", ..." if len(problems) > 3 else ""
        raise AutotrainError(
            f"{len(problems)} of {count} {what} are damaged: {', '.join(problems[:3])}{more}",
            f"restore or remove them; up to {bears:.0%} are skipped",
        )
