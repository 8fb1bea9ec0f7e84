"""Sparse gradients (nn.Embedding(sparse=True)): who takes them, and the numbers that are in them.

Such a gradient holds the rows that took part, some of them more than once. Coalesced it holds each
once, and its values have the norm of the dense gradient. A run and a trial both do it here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from autotrain.errors import AutotrainError
from autotrain.schema import OptimizerSection, refused_with_sparse


def tables(model: nn.Module) -> list[str]:
    """Names of the trained parameters whose gradients will be sparse."""
    return [
        f"{name}.weight" if name else "weight"
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding | nn.EmbeddingBag)
        and module.sparse
        and module.weight.requires_grad
    ]


def insist(section: OptimizerSection, model: nn.Module) -> None:
    """Raise AutotrainError where gradients will be sparse and the optimizer does not take them."""
    names = tables(model)
    if not names:
        return
    # Nothing is checked, as by default; unless that is said, torch warns of it.
    torch.sparse.check_sparse_tensor_invariants.disable()  # type: ignore[no-untyped-call]
    changes = refused_with_sparse(lambda name: getattr(section, name))
    if changes:
        of = ", ".join(names)
        raise AutotrainError(
            f"the gradients of {of} are sparse, and the optimizer does not take such as it is set",
            "sparse=False where the model makes it, which suits every optimizer; or "
            + " ".join(f"--set optimizer.{key}={value}" for key, value in changes.items()),
        )


def values(parameters: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The gradients, to compute with in place, as real numbers: of a sparse one, each row that it
    has, once; of a complex one, both parts.
    """
    found = []
    for parameter in parameters:
        gradient = parameter.grad
        if gradient is None:
            continue
        if gradient.is_sparse:
            parameter.grad = gradient.coalesce()
            gradient = parameter.grad.values()
        found.append(torch.view_as_real(gradient) if gradient.is_complex() else gradient)
    return found


def clip(
    parameters: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor], most: float
) -> torch.Tensor:
    """Clip by norm, by torch's own function where it can; returns the norm.

    `gradients`: what `values` made of those of `parameters`.
    """
    if not any(p.grad is not None and p.grad.is_sparse for p in parameters):
        return torch.nn.utils.clip_grad_norm_(parameters, most)
    norm = torch.nn.utils.get_total_norm(gradients)
    share = (most / (norm + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(share.to(gradient.device))
    return norm
