"""Which optimizers torch lets take sparse gradients (nn.Embedding(sparse=True)), and how set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from autotrain.schema.base import OptimizerName

# Others are Adam-like, and torch refuses; its SparseAdam refuses all gradients that are dense.
TAKE_SPARSE: tuple[OptimizerName, ...] = ("sgd", "adagrad")
USUAL_FOR_SPARSE: OptimizerName = "adagrad"


def refused_with_sparse(value: Callable[[str], Any]) -> dict[str, str]:
    """Settings of an optimizer that torch refuses then, and what it takes instead. `value` of a
    setting's name, such as `weight_decay`; None: not decided."""
    name, found = value("name"), dict[str, str]()
    if name is not None and name not in TAKE_SPARSE:
        found["name"] = USUAL_FOR_SPARSE
    if value("implementation") == "fused":
        found["implementation"] = "foreach"
    if value("weight_decay"):
        found["weight_decay"] = "0"
    if name == "sgd" and value("momentum"):
        found["momentum"] = "off"
    return found
