"""What of the model is trained, and how: frozen parts, groups, rates by depth, averaged weights."""

from __future__ import annotations

from autotrain.plan.ledger import Ledger
from autotrain.schema import ModelProfile
from autotrain.units import bytes_text

_DECAYS, _DEPTH, _EMA, _FREEZE = (
    "optimizer.decays",
    "optimizer.layer_decay",
    "train.ema_decay",
    "train.freeze",
)


def freeze_in_force(ledger: Ledger) -> tuple[str, ...]:
    """The patterns that the user or a recipe freezes by: the traces that a plan needs follow."""
    return tuple(ledger.fixed(_FREEZE) or ())


def decide(ledger: Ledger, model: ModelProfile) -> None:
    """Settle all of it. `model`: as it was traced, with what is frozen."""
    _decays(ledger)
    ledger.settle(
        _DEPTH,
        None,
        formula="every layer learns at optimizer.lr; where the weights know something already, a "
        "lower rate at each level further from the output keeps more of it",
        source="Howard and Ruder 2018, arXiv:1801.06146; Clark 2020, arXiv:2003.10555",
        would_change="--recipe finetune, or --set optimizer.layer_decay=0.9",
    )
    still = model.parameter_bytes - model.trainable_bytes
    ledger.settle(
        _FREEZE,
        None,
        formula=f"{bytes_text(model.trainable_bytes)} of {bytes_text(model.parameter_bytes)} of "
        f"weights are trained{', the others are frozen' if still else ''}",
        source="the task, and --set train.freeze",
        would_change="--set 'train.freeze=[\"encoder.*\"]'",
    )
    ledger.settle(
        _EMA,
        None,
        formula="none: it takes the memory of the weights once more, and what it gains is found by "
        "trying",
        source="Polyak and Juditsky 1992; Tarvainen and Valpola 2017, arXiv:1703.01780",
        would_change="--set train.ema_decay=0.999",
    )


def _decays(ledger: Ledger) -> None:
    """A decay that a recipe found was found in torch's way; without one, groups are no use."""
    given = ledger.given.get("optimizer.weight_decay")
    if ledger.value("optimizer.name") == "rprop" or not ledger.value("optimizer.weight_decay"):
        rule, formula = "all", "nothing decays"
        source = "torch.optim"
    elif given is not None and given.kind == "fixed":
        rule, formula = "all", "the recipe's optimizer.weight_decay was found where all decay"
        source = f"{given.source}; torch.optim's default"
    else:
        rule = "matrices"
        formula = "matrices and kernels decay; biases and norms' gains, of one dimension, do not"
        source = "He 2019, arXiv:1812.01187, 3.1; Brown 2020, arXiv:2005.14165"
    ledger.settle(
        _DECAYS,
        rule,
        formula=formula,
        source=source,
        would_change="--set optimizer.decays=all" if rule == "matrices" else "",
    )


def groups(ledger: Ledger, model: ModelProfile) -> tuple[tuple[int, bool], ...]:
    """Of each of the optimizer's groups how many parameters it has, and whether they decay."""
    decays, found = bool(ledger.value("optimizer.weight_decay")), dict[tuple[int, bool], int]()
    for place in sorted(_places(ledger, model)):
        found[place] = found.get(place, 0) + 1
    if len(found) < 2:
        return ()
    return tuple((count, decays and not spared) for (_, spared), count in found.items())


def in_order(ledger: Ledger, model: ModelProfile) -> ModelProfile:
    """The model with its parameters in the order in which the optimizer's groups have them."""
    places = _places(ledger, model)
    order = sorted(range(len(places)), key=places.__getitem__)
    names = ("trainable_sizes", "trainable_dims", "trainable_depths")
    return model.model_copy(
        update={name: tuple(getattr(model, name)[i] for i in order) for name in names if order}
    )


def _places(ledger: Ledger, model: ModelProfile) -> list[tuple[int, bool]]:
    """Of each parameter, what `autotrain.optimizer` sorts it by; nothing of an old profile."""
    deep = ledger.value(_DEPTH) is not None
    spares = ledger.value(_DECAYS) == "matrices" and bool(ledger.value("optimizer.weight_decay"))
    pairs = zip(model.trainable_dims, model.trainable_depths, strict=True)
    return [(-depth if deep else 0, spares and dims < 2) for dims, depth in pairs]
