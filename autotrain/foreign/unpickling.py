"""A file that torch saved, opened in a process of its own and handed back as safetensors.

`python -m autotrain.foreign.unpickling`: a Wanted on stdin, Tensors on stdout. torch unpickles
with `weights_only`, which runs nothing; limits hold for what a pickle may do besides.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import torch

from autotrain.confine import confine
from autotrain.errors import one_line
from autotrain.files import open_regular
from autotrain.schema import Record
from autotrain.units import bytes_text

MODULE = "autotrain.foreign.unpickling"
WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "module", "net", "weights")
MARGIN_BYTES = 512 << 20
TENSOR_LIMIT = 1_000_000
DTYPES = frozenset(
    (
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
        *(torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2),
    )
)


class Wanted(Record):
    """A file of `bytes` (unpacked) to be written `into` another, within `seconds` of processor."""

    file: str
    into: str
    bytes: int
    seconds: float

    @property
    def most_bytes(self) -> int:
        """The RAM that this may take: the file's tensors, their copies, and torch itself."""
        return 4 * self.bytes + 4 * MARGIN_BYTES


class Tensors(Record):
    """Whether they are written; `problem` where not."""

    problem: str | None = None


class RefusedError(Exception):
    """Nothing is taken from a file; the text says why."""


def convert(wanted: Wanted) -> None:
    """Write the file's tensors as safetensors. Raises RefusedError."""
    from safetensors.torch import save_file

    with open_regular(Path(wanted.file)) as file:
        try:
            found = torch.load(file, map_location="cpu", weights_only=True)
        except MemoryError:
            raise
        except Exception as error:  # torch raises nearly anything on broken input
            raise RefusedError(_why(error)) from None
    named = {name: value.detach() for name, value in _state_dict(found).items()}
    for name, value in named.items():
        if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
            raise RefusedError(f"{name} is no ordinary tensor")
        if value.dtype not in DTYPES:
            raise RefusedError(f"{name} is of {value.dtype}")
    firsts: dict[tuple[object, ...], str] = {}
    for name, value in named.items():
        firsts.setdefault(_place(name, value), name)
    unpacked = sum(named[name].nbytes for name in firsts.values())
    if unpacked > 2 * wanted.bytes + MARGIN_BYTES // 8:
        raise RefusedError(
            f"a bomb: its tensors claim {bytes_text(unpacked)}, the file has "
            f"{bytes_text(wanted.bytes)}"
        )
    once = {name: named[name].contiguous().clone() for name in firsts.values()}
    ties = {name: firsts[_place(name, value)] for name, value in named.items() if name not in once}
    save_file(once, wanted.into, metadata=ties)


def _place(name: str, value: torch.Tensor) -> tuple[object, ...]:
    """The same for tied tensors; those without elements have no place."""
    return (value.data_ptr() or name, value.dtype, value.shape, value.stride())


def _state_dict(found: Any) -> dict[str, torch.Tensor]:
    """The tensors by name in what people save: bare, or beside an optimizer and an epoch."""
    for _ in range(3):
        if not isinstance(found, dict):
            break
        inner = next((found[k] for k in WRAPPERS if isinstance(found.get(k), dict)), None)
        if inner is None:
            break
        found = inner
    if not isinstance(found, dict):
        kind = type(found).__name__
        raise RefusedError(f"holds no state dict but a {kind}")
    named = {name: v for name, v in found.items() if type(name) is str and _is_tensor(v)}
    if not named:
        keys = ", ".join(str(key)[:40] for key in list(found)[:5] if type(key) in (str, int))
        raise RefusedError(f"no state dict of tensors in it; it holds {keys or 'nothing'}")
    if len(named) > TENSOR_LIMIT:
        raise RefusedError(f"it holds {len(named):,} tensors")
    return named


def _is_tensor(value: object) -> bool:
    return type(value) in (torch.Tensor, torch.nn.Parameter)


def _why(error: Exception) -> str:
    """One line of torch's many."""
    text = str(error)
    if named := re.search(r"GLOBAL ([\w.]+)", text):
        return f"it names code, {named[1]}, which is not run"
    if "Cannot use" in text and "weights_only" in text:
        return "TorchScript, or of an age when opening a file ran its code"
    if isinstance(error, EOFError):
        return "it ends too early"
    if said := re.search(r"WeightsUnpickler error:\s*(.+)", text):
        return f"no pickle of tensors: {said[1].strip()}"
    return one_line(text) or type(error).__name__


def main() -> None:
    """Do what stdin says."""
    wanted = Wanted.model_validate_json(sys.stdin.readline())
    largest = 2 * wanted.bytes + MARGIN_BYTES
    confine(3 * wanted.bytes + MARGIN_BYTES, wanted.seconds, largest)
    try:
        convert(wanted)
        said = Tensors()
    except RefusedError as refused:
        said = Tensors(problem=str(refused))
    except (MemoryError, RuntimeError) as error:  # torch's own allocator raises the latter
        said = Tensors(problem=f"opening it takes too much memory ({_why(error)})")
    except OSError as error:
        said = Tensors(problem=error.strerror or str(error))
    except Exception as error:
        said = Tensors(problem=_why(error))
    print(said.model_dump_json())


if __name__ == "__main__":
    main()
