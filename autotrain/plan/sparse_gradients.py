"""What sparse gradients (nn.Embedding(sparse=True)) leave of an optimizer's settings."""

from __future__ import annotations

from typing import Any

from autotrain.errors import UsageError
from autotrain.plan.ledger import Ledger
from autotrain.schema import TAKE_SPARSE, OptimizerName

SOURCE = "torch.optim: which optimizers take sparse gradients"
USUAL: OptimizerName = "adagrad"
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


def _refused(value: Any) -> dict[str, str]:
    """Keys whose `value(key)` torch refuses, and what it takes instead."""
    name = value("optimizer.name")
    found: dict[str, str] = {}
    if name is not None and name not in TAKE_SPARSE:
        found["optimizer.name"] = USUAL
    if value("optimizer.implementation") == "fused":
        found["optimizer.implementation"] = "foreach"
    if value("optimizer.weight_decay"):
        found["optimizer.weight_decay"] = "0"
    if name == "sgd" and value("optimizer.momentum"):
        found["optimizer.momentum"] = "off"
    return found
