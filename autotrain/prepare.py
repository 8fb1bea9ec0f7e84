"""How a plan's model is run: its memory format, its blocks computed again, compiled or not.

A run, a trial and a trace all do it here, so that what was predicted is what runs.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import torch
from torch import nn
from torch.nn import utils

from autotrain import recompute, repeats
from autotrain.batches import map_tensors
from autotrain.errors import AutotrainError
from autotrain.schema import ModelSection
from autotrain.task import Task

_CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d, nn.Conv3d, nn.ConvTranspose3d)
_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


@dataclass
class Prepared:
    """What was made of a model. `notes`: what could not be done, for whoever trains it to read.

    `compiled` counts the graphs that were compiled so far, `seconds` what that took, and one was
    refused where it `gave_up`.
    """

    section: ModelSection
    notes: list[str] = field(default_factory=list)
    compiled: int = 0
    seconds: float = 0.0
    gave_up: bool = False

    def batch(self, batch: Any) -> Any:
        """A batch as the model is to see it, which is about to be computed with."""
        if self.section.cuda_graphs:  # what was computed before may be overwritten
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        return laid_out(batch, self.section)

    def hold(self, parameters: Iterable[torch.Tensor]) -> None:
        """Copy gradients out of a recorded graph's memory, before others are added to them.

        torch leaves the first ones there, and a replay overwrites them: the sum is silently
        another (pytorch issues 96693 and 169545).
        """
        if not self.section.cuda_graphs:
            return
        mine = [parameter for parameter in parameters if parameter.grad is not None]
        copies = torch._foreach_mul([p.grad for p in mine if p.grad is not None], 1.0)
        for parameter, copy in zip(mine, copies, strict=True):
            parameter.grad = copy


def varies(task: Task) -> bool:
    """Whether batches may come in many shapes: torch's own collate wants one for all samples."""
    return task.collate is not None or task.length is not None


def prepare(model: nn.Module, section: ModelSection, *, varying: bool = False) -> Prepared:
    """Have the model run as a plan says; names and shapes of its parameters stay.

    `varying`: batches come in many shapes, and what is compiled should suit all of them.
    Raises AutotrainError where the plan wants graphs recorded and that cannot be.
    """
    made = Prepared(section)
    if section.cuda_graphs:
        _insist_on_graphs(model, section, varying=varying)
    if section.memory_format == "channels_last":
        _lay_out(model, *_FORMATS.values())
    found = repeats.blocks(model) if section.activation_checkpointing else ()
    if section.activation_checkpointing and not found:
        made.notes.append("the model has no repeated blocks: all activations are kept")
    recompute.install(found)
    if section.compile and not found:
        _compile(model, made, varying=varying)
    elif section.compile:  # torch keeps its compiler out of what it checkpoints
        made.notes.append("not compiled: with model.activation_checkpointing it runs as it is")
    return made


@contextmanager
def run_as(model: nn.Module, section: ModelSection) -> Iterator[None]:
    """While it lasts, the model runs in that form; nothing is compiled."""
    found = repeats.blocks(model) if section.activation_checkpointing else ()
    if section.memory_format == "channels_last":
        _lay_out(model, *_FORMATS.values())
    recompute.install(found)
    try:
        yield
    finally:
        recompute.remove(found)
        if section.memory_format == "channels_last":
            _lay_out(model, torch.contiguous_format, torch.contiguous_format)


@contextmanager
def attention_in_parts() -> Iterator[None]:
    """Within, torch's transformer layers are in eval mode what they are in training: their parts,
    not the one fused operator that knows neither a fake tensor nor autocast."""
    known = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(known)


def laid_out(batch: Any, section: ModelSection) -> Any:
    """A batch with its pictures and volumes in the memory format; labels stay as they are."""
    if section.memory_format == "contiguous":
        return batch

    def converted(tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.is_floating_point() or tensor.dim() not in _FORMATS:
            return tensor
        return tensor.contiguous(memory_format=_FORMATS[tensor.dim()])

    return map_tensors(converted, batch)


def convolutions(model: nn.Module) -> int:
    """How many of a model's layers a memory format makes a difference to."""
    return sum(isinstance(module, _CONVOLUTIONS) for module in model.modules())


def _lay_out(model: nn.Module, pictures: torch.memory_format, volumes: torch.memory_format) -> None:
    """The weights of convolutions in these formats, by what they are convolved with."""
    utils.convert_conv2d_weight_memory_format(model, pictures)
    utils.convert_conv3d_weight_memory_format(model, volumes)


def _insist_on_graphs(model: nn.Module, section: ModelSection, *, varying: bool) -> None:
    """Raise AutotrainError with all that stands in the way of recording CUDA graphs."""
    device = next((p.device.type for p in model.parameters()), "cpu")
    why = {
        f"the device is {device}": device != "cuda",
        "model.compile is false, and what is compiled is recorded": not section.compile,
        "with model.activation_checkpointing nothing is compiled": section.activation_checkpointing,
        "batches come in many shapes (a collate or a length of the task's own)": varying,
    }
    if any(why.values()):
        said = "; ".join(reason for reason, holds in why.items() if holds)
        raise AutotrainError(f"model.cuda_graphs: {said}", "--set model.cuda_graphs=false")


def _compile(model: nn.Module, made: Prepared, *, varying: bool) -> None:
    """Compile the model's forward, in place, so that no name changes.

    What the compiler refuses (no C++ compiler on a CPU, say) runs as it is, with one note. Of
    a shape that changes too often torch itself goes back to what is not compiled.
    """
    kind = type(model)

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        # A frame of our own: torch does not compile those of its own modules.
        return kind.forward(self, *args, **kwargs)

    def copying(self: Any, *args: Any, **kwargs: Any) -> Any:
        # What a replay overwrites does not get out.
        return map_tensors(torch.clone, compiled(self, *args, **kwargs))

    try:
        import torch._dynamo

        torch._dynamo.config.suppress_errors = True
        dynamic = None if varying else False
        compiled = torch.compile(forward, backend=_backend(made), dynamic=dynamic)
    except Exception as error:
        return _give_up(made, error)
    # A class and not an attribute: a copy of the model has itself for self.
    chosen = copying if made.section.cuda_graphs else compiled
    own = {**recompute.named_like(kind), "forward": chosen}
    model.__class__ = type(kind.__name__, (kind,), own)
    return None


def _backend(made: Prepared) -> Callable[..., Any]:
    def compiled(graph: Any, inputs: Any) -> Any:
        begun = perf_counter()
        try:
            with warnings.catch_warnings():  # of torch about torch
                warnings.simplefilter("ignore")
                from torch._inductor.compile_fx import compile_fx

                recorded = {"triton.cudagraphs": made.section.cuda_graphs}
                return compile_fx(graph, inputs, config_patches=recorded)
        except Exception as error:
            _give_up(made, error)
            return graph.forward
        finally:
            made.compiled += 1
            made.seconds += perf_counter() - begun

    return compiled


def _give_up(made: Prepared, error: Exception) -> None:
    why = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    if not made.gave_up:
        made.notes.append(f"not compiled, and run as it is: {why}")
    made.gave_up = True
