"""Micro-batches as plain bytes through a worker's pipe: slower than shared memory, always there.

A container's /dev/shm may be small, `ulimit -n` too: torch hands each tensor over in a file of its
own there.
"""

from __future__ import annotations

import errno
import io
import pickle
import re
from typing import Any

import torch

# What torch, multiprocessing and the system say where there is no more of these.
_NARROW = re.compile(r"shared memory|</torch_\d+_|[Tt]oo many open files|can't start new thread")
_FILES = (errno.EMFILE, errno.ENFILE)


def too_narrow(error: BaseException) -> bool:
    """Whether a limit on files, threads or shared memory is behind it: no sample's fault."""
    if isinstance(error, OSError) and error.errno in _FILES:
        return True
    return isinstance(error, RuntimeError) and _NARROW.search(str(error)) is not None


def packed(made: Any) -> bytes:
    """A micro-batch as bytes; `multiprocessing`'s own `recv` unpacks them."""
    file = io.BytesIO()
    _Pickler(file, pickle.HIGHEST_PROTOCOL).dump(made)
    return file.getvalue()


def share_nothing() -> None:
    """From here on collating makes tensors in this process's own memory, as it does elsewhere."""

    def own(size: int, *, device: Any = "cpu") -> torch.UntypedStorage:
        return torch.UntypedStorage(size, device=device)  # type: ignore[no-untyped-call]

    torch.UntypedStorage._new_shared = own  # type: ignore[method-assign]


class _Pickler(pickle.Pickler):
    def reducer_override(self, each: Any) -> Any:
        """Of a view only what it shows; what is no plain tensor goes its own way."""
        plain = type(each) is torch.Tensor and each.layout is torch.strided
        if not plain or each.device.type != "cpu" or each.requires_grad or each.is_quantized:
            return NotImplemented
        raw = each.resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8)
        return _unpacked, (raw.numpy(), each.dtype, each.shape)


def _unpacked(raw: Any, dtype: torch.dtype, shape: torch.Size) -> torch.Tensor:
    return torch.from_numpy(raw).view(dtype).reshape(shape)
