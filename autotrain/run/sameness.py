"""What a resume may not change: said by name, before anything is restored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autotrain.errors import AutotrainError, DoesNotFitError
from autotrain.schema import Plan

# What there was no choice about before checkpoints told of it.
_ONCE = {"optimizer.decays": "all", "train.freeze": [], "train.ema_decay": "off"}


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


def refuse_cut(plan: Plan) -> None:
    """Raise DoesNotFitError where micro-batches were cut before their loss said that it mixes."""
    if any(each.key.startswith("batch.") for each in plan.amendments):
        raise DoesNotFitError(
            "out of memory, and the loss ties the samples of a micro-batch together (mixes): no "
            "one may cut it",
            "plan again with a smaller batch.global_batch, or on a device with more memory",
        )
