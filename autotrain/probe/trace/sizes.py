"""What a model is, before any step of it: how large, of which parts, and what of it is trained."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from autotrain.averaging import averaged_tensors
from autotrain.depth import depths
from autotrain.freezing import moves
from autotrain.prepare import convolutions
from autotrain.repeats import apart, blocks
from autotrain.sparse import tables


def sizes(model: nn.Module) -> dict[str, Any]:
    """The fields of ModelProfile that follow from the model alone; bytes, but for counts."""
    parameters = dict(model.named_parameters())
    trainable = {name: p for name, p in parameters.items() if p.requires_grad}
    depth = depths(model)
    averaged = averaged_tensors(model)
    return {
        "name": type(model).__name__,
        "parameters": sum(p.numel() for p in parameters.values()),
        "parameter_bytes": sum(p.nbytes for p in parameters.values()),
        "trainable_bytes": sum(p.nbytes for p in trainable.values()),
        "largest_parameter_bytes": max(p.nbytes for p in trainable.values()),
        "tensors": len(trainable),
        "trainable_sizes": tuple(p.nbytes for p in trainable.values()),
        "trainable_dims": tuple(p.ndim for p in trainable.values()),
        "trainable_depths": tuple(depth[name] for name in trainable),
        "buffer_bytes": sum(b.nbytes for b in model.buffers()),
        "statistics_bytes": sum(t.nbytes for n, t in averaged.items() if n not in trainable),
        "blocks": len(blocks(model)),
        **_divided(model),
        "convolutions": convolutions(model),
        "complex": any(p.is_complex() for p in trainable.values()),
        "sparse": bool(tables(model)),
        "batch_norm": any(isinstance(m, _BatchNorm) and moves(m) for m in model.modules()),
    }


def _divided(model: nn.Module) -> dict[str, int]:
    """What of a model that several processes divide is whole at once: a block, and the rest."""
    whole = sum(p.nbytes for p in model.parameters())
    each = [
        sum({id(p): p.nbytes for module in block.modules() for p in module.parameters()}.values())
        for block in apart(model, blocks(model))
    ]
    return {"block_bytes": max(each, default=0), "outside_bytes": whole - sum(each)}
