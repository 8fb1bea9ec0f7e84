"""What `Task.classification` and `Task.regression` learn by, and count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autotrain.task import Loss, Sums, precise

if TYPE_CHECKING:
    import torch


IGNORED = -100  # a label, or a target, that counts nowhere, as torch has it


@dataclass(frozen=True, slots=True)
class Classification:
    """Batches are (inputs, class indices, or mixup's probabilities); the model returns logits.

    With `class_weights` a sample counts, in the sum and in the weight, as its class does; one
    whose label is -100 counts nowhere.
    """

    label_smoothing: float = 0.0
    class_weights: Sequence[float] | None = None

    def loss(self, model: torch.nn.Module, batch: Any) -> Loss:
        """Cross-entropy, summed over the samples; smoothed in training only."""
        from torch.nn import functional

        inputs, labels = batch
        logits = precise(model(inputs))
        labels = labels.to(logits.dtype) if labels.is_floating_point() else labels
        smoothing = self.label_smoothing if model.training else 0.0
        each = None if self.class_weights is None else logits.new_tensor(self.class_weights)
        total = functional.cross_entropy(
            logits, labels, each, reduction="sum", label_smoothing=smoothing
        )
        return Loss(total=total, weight=_weight(labels, each))

    def measure(self, model: torch.nn.Module, batch: Any) -> Sums:
        """`accuracy`: the share that is taken for what it is."""
        inputs, labels = batch
        right = (model(inputs).argmax(dim=-1) == _indices(labels)).sum()
        return {"accuracy": (right, _weight(labels, None))}

    def confusion(self, model: torch.nn.Module, batch: Any) -> torch.Tensor:
        """[classes, classes]: how many of each class (row) were taken for which (column)."""
        inputs, labels = batch
        logits = model(inputs)
        classes, meant = logits.shape[-1], _indices(labels)
        pairs = meant * classes + logits.argmax(dim=-1)
        known: torch.Tensor = pairs[meant >= 0]  # IGNORED is left out
        return known.bincount(minlength=classes**2).reshape(classes, classes)


def _indices(labels: torch.Tensor) -> torch.Tensor:
    return labels.argmax(dim=-1) if labels.is_floating_point() else labels


def _weight(labels: torch.Tensor, each: torch.Tensor | None) -> torch.Tensor | int:
    """What the samples of a batch count together; `each`: what one of each class does."""
    if labels.is_floating_point():
        return len(labels) if each is None else (labels @ each).sum()
    known = labels != IGNORED
    return known.sum() if each is None else (each[labels.clamp(min=0)] * known).sum()


def squared_error(model: torch.nn.Module, batch: Any) -> Loss:
    """Of (inputs, targets), summed over the targets' elements."""
    inputs, targets = batch
    error = precise(model(inputs)) - targets
    return Loss(total=error.square().sum(), weight=targets.numel())
