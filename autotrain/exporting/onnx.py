"""A model as ONNX, checked by onnxruntime.

torch has two exporters. The one by torch.export is tried first, but for models with recurrent
layers: it writes these out step by step, for one length (pytorch issues 191855 and 115092); the
one by tracing keeps them as they are, and loses to it elsewhere. What one of them made counts
if onnxruntime answers as the model does on batches of other sizes and lengths; where no such size
may vary, a narrower one is tried, and said.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autotrain.errors import AutotrainError
from autotrain.exporting.agreement import Agreement, DisagreementError, compared
from autotrain.exporting.calls import BATCH, Axes, Call, Flat, axes_of, fits, names_of, only
from autotrain.exporting.made import Made, Port, quiet, reason
from autotrain.prepare import attention_in_parts
from autotrain.units import bytes_text

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
INSTALL = "pip install 'autotrain[export]'"
MOST_BYTES = 2_000_000_000  # of one protobuf message, and so of a model in one file
Exporter = Callable[[nn.Module, Call, list[str], Axes, Path], None]


def write(model: nn.Module, calls: Sequence[Call], path: Path, notes: Mapping[str, str]) -> Made:
    """Write it to `path`. The first of `calls` is the one that is followed, the others check it.

    `notes` go into its metadata. Raises AutotrainError where nothing agrees with the model.
    """
    _insist_on_packages()
    _insist_on_size(model)
    names, every, refusals = names_of(model, calls[0]), axes_of(calls), list[str]()
    for axes in _narrower(every):
        those = [call for call in calls if fits(call, calls[0], axes)]
        if len(those) < 2:  # nothing but what it was made from
            continue
        for said, exporter in _in_turn(model):
            try:
                agreed = _made(exporter, model, those, names, axes, path)
            except DisagreementError as error:
                refusals.append(f"{said}: {error}")
                continue
            _note(path, notes)
            return Made(said, _ports(names, calls[0], axes), agreed, narrowed=axes != every)
    shown = "; ".join(dict.fromkeys(refusals))
    raise AutotrainError(
        f"no ONNX model answers as this one does: {shown}", "--to torchscript, or state-dict"
    )


def _narrower(every: Axes) -> Iterator[Axes]:
    """All sizes that vary, the batch alone, none; each once."""
    tried: list[Axes] = []
    for axes in (every, only(every, BATCH), only(every)):
        if axes not in tried:
            tried.append(axes)
            yield axes


def _made(
    exporter: Exporter, model: nn.Module, calls: Sequence[Call], names: list[str], axes: Axes,
    path: Path,
) -> Agreement:  # fmt: skip
    path.unlink(missing_ok=True)
    try:
        with quiet():
            exporter(Flat(model, calls[0]).eval(), calls[0], names, axes, path)
        answers = _asked(path, names)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # of torch, of onnx, of onnxruntime: of any type
        raise DisagreementError(reason(error)) from error
    return compared(calls, answers)


def _by_export(model: nn.Module, call: Call, names: list[str], axes: Axes, path: Path) -> None:
    shapes: Any = (tuple({**each} for each in axes),)
    program = torch.onnx.export(
        model, tuple(call.tensors), dynamo=True, input_names=names, dynamic_shapes=shapes,
        external_data=False, verbose=False,
    )  # fmt: skip
    assert program is not None
    program.save(str(path), external_data=False)


def _by_tracing(model: nn.Module, call: Call, names: list[str], axes: Axes, path: Path) -> None:
    made: Any = io.BytesIO()
    answers = [f"output_{n}" for n in range(len(call.answer))]
    vary = {name: {**each} for name, each in zip(names, axes, strict=True) if each}
    with attention_in_parts():  # ONNX has not the fused operator of eval mode
        torch.onnx.export(
            model, tuple(call.tensors), made, dynamo=False, input_names=names,
            output_names=answers, dynamic_axes=vary, verbose=False,
        )  # fmt: skip
    path.write_bytes(made.getbuffer())


EXPORTERS: dict[str, Exporter] = {"torch.export": _by_export, "tracing": _by_tracing}


def _in_turn(model: nn.Module) -> list[tuple[str, Exporter]]:
    """The exporters in the order in which they are tried."""
    recurrent = any(isinstance(each, nn.RNNBase) for each in model.modules())
    return [*EXPORTERS.items()][:: -1 if recurrent else 1]


def _asked(path: Path, names: list[str]) -> Callable[[Call], list[torch.Tensor]]:
    """What puts a call to the model in a file. An input that it has no use for is left out."""
    import onnx
    import onnxruntime

    onnx.checker.check_model(str(path))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    wanted = {given.name for given in session.get_inputs()}

    def answers(call: Call) -> list[torch.Tensor]:
        given = dict(zip(names, call.tensors, strict=True))
        feed = {name: tensor.numpy() for name, tensor in given.items() if name in wanted}
        return [torch.from_numpy(value) for value in session.run(None, feed)]

    return answers


def _note(path: Path, notes: Mapping[str, str]) -> None:
    import onnx

    model = onnx.load(str(path))
    for key, value in notes.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.save(model, str(path))


def _ports(names: list[str], call: Call, axes: Axes) -> list[Port]:
    return [
        Port.of(name, tensor, each)
        for name, tensor, each in zip(names, call.tensors, axes, strict=True)
    ]


def _insist_on_packages() -> None:
    import importlib.util

    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise AutotrainError(f"export to onnx needs {', '.join(missing)}", INSTALL)


def _insist_on_size(model: nn.Module) -> None:
    held = {tensor.data_ptr(): tensor.nbytes for tensor in model.state_dict().values()}
    if sum(held.values()) > MOST_BYTES:
        raise AutotrainError(
            f"its weights take {bytes_text(sum(held.values()))}, an ONNX file holds "
            f"{bytes_text(MOST_BYTES)}",
            "--to torchscript, or state-dict",
        )
