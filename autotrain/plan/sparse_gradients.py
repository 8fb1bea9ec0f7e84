"""What sparse gradients (nn.Embedding(sparse=True)) leave of an optimizer's settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from autotrain.errors import UsageError
from autotrain.plan.ledger import Ledger
from autotrain.schema import refused_with_sparse

SOURCE = "torch.optim: which optimizers take sparse gradients"
WHY = "torch takes none with sparse gradients"


def make_way(ledger: Ledger) -> None:
    """Forget what a recipe says that torch refuses with such gradients; what a user says stays."""
    for key in _refused(ledger.fixed):
        ledger.drop(key)


def insist(ledger: Ledger) -> None:
    """Raise UsageError where torch refuses the settings that a user fixed."""
    refused = _refused(ledger.value)
    if not refused:
        return
    raise UsageError(
        f"{', '.join(refused)}: the model makes sparse gradients, and torch does not take them so",
        hint="sparse=False where the model makes its embeddings, which suits every optimizer; or "
        + " ".join(f"--set {key}={value}" for key, value in refused.items()),
    )


def _refused(value: Callable[[str], Any]) -> dict[str, str]:
    """What `refused_with_sparse` says, by the keys of a plan."""
    found = refused_with_sparse(lambda name: value(f"optimizer.{name}"))
    return {f"optimizer.{name}": instead for name, instead in found.items()}
