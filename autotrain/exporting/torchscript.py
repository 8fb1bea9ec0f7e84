"""A model as TorchScript: by tracing, or by compiling its code where a trace answers otherwise."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autotrain.batches import tensors_in
from autotrain.errors import AutotrainError
from autotrain.exporting.agreement import DisagreementError, compared
from autotrain.exporting.calls import Call, Flat, axes_of, names_of
from autotrain.exporting.made import Made, Port, quiet, reason


def write(model: nn.Module, calls: Sequence[Call], path: Path, notes: Mapping[str, str]) -> Made:
    """Write it to `path`; see `onnx.write`. `notes` are its extra files.

    Raises AutotrainError where nothing agrees with the model.
    """
    names, axes, refusals = names_of(model, calls[0]), axes_of(calls), list[str]()
    for said, make in (("tracing", _traced), ("scripting", _scripted)):
        try:
            with quiet():
                raw = _bytes(make(model, calls[0]), notes)
                agreed = compared(calls, _asked(raw))
        except (OSError, MemoryError):
            raise
        except DisagreementError as error:
            refusals.append(f"{said}: {error}")
        except Exception as error:  # of torch: of any type
            refusals.append(f"{said}: {reason(error)}")
        else:
            path.write_bytes(raw)
            given = zip(names, calls[0].tensors, axes, strict=True)
            return Made(said, [Port.of(*each) for each in given], agreed)
    raise AutotrainError(
        f"no TorchScript answers as the model does: {'; '.join(refusals)}",
        "--to onnx, or state-dict",
    )


def _traced(model: nn.Module, call: Call) -> Any:
    flat = Flat(model, call).eval()
    options = {"strict": False, "check_trace": False}
    return torch.jit.trace(flat, tuple(call.tensors), **options)  # type: ignore[no-untyped-call]


def _scripted(model: nn.Module, call: Call) -> Any:
    if call.kwargs or not all(isinstance(each, torch.Tensor) for each in call.args):
        raise DisagreementError("it is called with more than tensors")
    return torch.jit.script(model)


def _bytes(module: Any, notes: Mapping[str, str]) -> bytes:
    made = io.BytesIO()
    torch.jit.save(module, made, _extra_files=dict(notes))
    return made.getvalue()


def _asked(raw: bytes) -> Any:
    loaded = torch.jit.load(io.BytesIO(raw), map_location="cpu")  # type: ignore[no-untyped-call]

    def answers(call: Call) -> list[torch.Tensor]:
        return tensors_in(loaded(*(tensor.clone() for tensor in call.tensors)))

    return answers
