"""How the model is run: its memory format, compiled or not, activations kept or recomputed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from autotrain.plan.ledger import Ledger
from autotrain.plan.sizing import Sizing
from autotrain.schema import Dtype, ModelProfile, ModelSection
from autotrain.units import bytes_text

_AGAIN = "model.activation_checkpointing"
_SOURCE = "Chen 2016, arXiv:1604.06174"


def decide(ledger: Ledger, *, again: bool = False) -> ModelSection:
    """Settle the section `model`. `again`: nothing fits unless activations are computed again."""
    ledger.settle(
        "model.memory_format",
        "contiguous",
        formula="torch's own order of a tensor's dimensions",
        source="autotrain's rule",
    )
    ledger.settle(
        "model.compile",
        False,
        formula="compiling costs a minute or more, and is not always faster",
        source="autotrain's rule",
    )
    ledger.settle(
        "model.cuda_graphs",
        False,
        formula="recording takes memory that is not predicted, and has met no GPU here",
        source="autotrain's rule",
        would_change="--set model.compile=true --set model.cuda_graphs=true, on a CUDA device",
    )
    ledger.settle(
        _AGAIN,
        again,
        formula="activations are kept: computing them again costs a third more",
        source=_SOURCE,
    )
    return ModelSection.model_validate(ledger.values["model"])


def in_force(ledger: Ledger) -> ModelSection:
    """The form whose traces a plan needs, as far as the user, a recipe or a race gives it."""
    names = ("memory_format", "activation_checkpointing")
    raced = {key: value for key, (value, _) in ledger.raced.items()}
    keys = {name: f"model.{name}" for name in names}
    given = {name: ledger.fixed(key) or raced.get(key) for name, key in keys.items()}
    return ModelSection.model_validate({k: v for k, v in given.items() if v is not None})


def computed_again(form: ModelSection) -> ModelSection:
    """The same form with activation checkpointing."""
    return form.model_copy(update={"activation_checkpointing": True})


def traced_as(model: ModelProfile, form: ModelSection, dtype: Dtype) -> ModelProfile:
    """The model with the traces of a form, or else of what takes as much or more.

    A memory format moves bytes about; activation checkpointing only ever saves some.
    """
    plain = ModelSection()
    for each in (form, form.model_copy(update={"memory_format": plain.memory_format}), plain):
        seen = model.run_as(each)
        if seen.at(dtype):
            return seen
    return model


def untraced(model: ModelProfile) -> bool:
    """Whether the model has blocks to compute again and nobody looked at what that saves."""
    return model.blocks > 0 and not any(t.form.activation_checkpointing for t in model.traces)


def over(sizing: Sizing) -> bool:
    """Whether the step in force may take more than the budget: a size the user fixed can."""
    return sizing.device_peak(sizing.planned()).high + sizing.kept_bytes() > sizing.budget()


def explain(sizing: Sizing, model: ModelProfile) -> None:
    """Say of activations computed again what it saves and costs. `model`: with every trace."""
    ledger, setup = sizing.ledger, sizing.planned()
    kept = setup.form.model_copy(update={"activation_checkpointing": False})
    seen = traced_as(model, kept, setup.dtype)
    plain = replace(sizing, model=seen, seen={}, said={}, took={})
    without, within = plain.device_peak(setup._replace(form=kept)), sizing.device_peak(setup)
    budget, samples = sizing.budget(), setup.micro_batch
    what = "one sample needs" if samples == 1 else f"{samples} samples at once need"
    ledger.settle(
        _AGAIN,
        True,
        formula=f"with all activations kept, {what} {bytes_text(without.expected)} (up to "
        f"{bytes_text(without.high)}) of the budget of {bytes_text(budget)}; with {model.blocks} "
        f"blocks that keep their input alone, {bytes_text(within.expected)} (up to "
        f"{bytes_text(within.high)}), and {cost(seen, sizing.model, setup.dtype):.0%} more to "
        "compute",
        source=f"a traced training step; {_SOURCE}",
        kind="measured",
        limited_by="memory.budget_bytes",
        would_change="more free memory, a smaller model or input",
    )


def cost(plain: ModelProfile, again: ModelProfile, dtype: Dtype) -> float:
    """What a step computes more, as a share, at the largest size that both were traced at."""

    def flops(model: ModelProfile) -> dict[int, float]:
        return {t.micro_batch: t.matmul_flops + t.convolution_flops for t in model.at(dtype)}

    one, other = flops(plain), flops(again)
    both = max(one.keys() & other.keys(), default=0)
    return other[both] / one[both] - 1 if both and one[both] else 1 / 3


def unused(ledger: Ledger, model: ModelProfile) -> Iterator[tuple[str, str]]:
    """What of the section has no effect on this model, and why."""
    form = ModelSection.model_validate(ledger.values["model"])
    if form.activation_checkpointing and not model.blocks:
        yield _AGAIN, "the model has no repeated blocks to compute again"
    if form.activation_checkpointing and form.compile and model.blocks:
        yield "model.compile", "what is computed again is not compiled"
    if form.memory_format == "channels_last" and not model.convolutions:
        yield "model.memory_format", "the model has no convolution over pictures or volumes"
