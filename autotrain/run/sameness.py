"""What a resume may not change: said by name, before anything is restored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autotrain.errors import AutotrainError, DoesNotFitError
from autotrain.schema import Plan

# What there was no choice about before checkpoints told of it.
_ONCE = {"optimizer.decays": "all", "train.freeze": [], "train.ema_decay": "off"}
_NAMED = 5  # names that an error lists


def refuse_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise AutotrainError naming each key that was otherwise when the checkpoint was made."""
    then = _ONCE | {**before}
    changed = [
        f"{key} = {then.get(key)} became {value}"
        for key, value in now.items()
        if then.get(key) != value
    ]
    if changed:
        raise AutotrainError(
            f"this run cannot go on: {'; '.join(changed)}",
            "change it back, or start a fresh run under another run.name",
        )


def refuse_other_names(before: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> None:
    """Raise AutotrainError naming what of the task's facts has other names, or another order: what
    the model learned of one would count for another. Numbers may differ: those are the model's.
    """
    changed = [
        f"{key}: {_difference(before[key], value)}"
        for key, value in (now or {}).items()
        if before and key in before and _named(value) and value != before[key]
    ]
    if changed:
        raise AutotrainError(
            f"the data are not those it was trained on: {'; '.join(changed)}",
            "bring them back, or start a fresh run under another run.name",
        )


def _named(value: Any) -> bool:
    """Whether it is a text, or a list of them."""
    return isinstance(value, str) or (
        isinstance(value, list) and all(isinstance(each, str) for each in value)
    )


def _difference(before: Any, now: Any) -> str:
    if not isinstance(before, list) or not isinstance(now, list):
        return "another one"
    new = [repr(each) for each in now if each not in before]
    gone = [repr(each) for each in before if each not in now]
    said = [
        f"{', '.join(those[:_NAMED])}{', ...' * (len(those) > _NAMED)} {how}"
        for those, how in ((new, "new"), (gone, "gone"))
        if those
    ]
    return " and ".join(said) or "in another order"


def refuse_cut(plan: Plan) -> None:
    """Raise DoesNotFitError where micro-batches were cut before their loss said that it mixes."""
    if any(each.key.startswith("batch.") for each in plan.amendments):
        raise DoesNotFitError(
            "out of memory, and the loss ties the samples of a micro-batch together (mixes): no "
            "one may cut it",
            "plan again with a smaller batch.global_batch, or on a device with more memory",
        )
