"""torch's fully_shard, and what of it has no public name (torch 2.11).

A block's parameters are whole while it computes; before and after, each rank has its part of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.fsdp._fully_shard._fsdp_api import AllGather, ReduceScatter
from torch.distributed.fsdp._fully_shard._fsdp_common import TrainingState
from torch.distributed.tensor import DTensor

from autotrain.errors import AutotrainError
from autotrain.run.processes.lockstep import Lockstep

REST = "the parts outside of its blocks"
DDP = 'parallel.strategy = "ddp"'


class _Allocating:
    """What either writes to is memory of its own."""

    def allocate(
        self, size: Sequence[int | torch.SymInt], *, dtype: torch.dtype, device: torch.device
    ) -> torch.Tensor:
        return torch.empty(*size, dtype=dtype, device=device)


class _Gathering(_Allocating, AllGather):
    """How the parameters of a block become whole."""

    def __init__(self, lock: Lockstep, name: str) -> None:
        self.lock, self.name = lock, name

    def __call__(
        self, output_tensor: torch.Tensor, input_tensor: torch.Tensor, group: dist.ProcessGroup,
        async_op: bool = False,
    ) -> dist.Work | None:  # fmt: skip
        self.lock.enter(f"uses {self.name}")
        made: dist.Work | None = dist.all_gather_into_tensor(
            output_tensor, input_tensor, group, async_op
        )
        return made


class _Adding(_Allocating, ReduceScatter):
    """How the gradients of a block are added up, and divided; `count`: numbers of all of them."""

    def __init__(self, lock: Lockstep, name: str, count: int) -> None:
        self.lock, self.name, self.count = lock, name, count

    def __call__(
        self, output_tensor: torch.Tensor, input_tensor: torch.Tensor, group: dist.ProcessGroup,
        op: Any, async_op: bool = False,
    ) -> dist.Work | None:  # fmt: skip
        if input_tensor.numel() != self.count:
            raise AutotrainError(
                f"a parameter of {self.name} took no part in the loss: without it gradients cannot "
                "be divided among processes",
                f"train.freeze for what never takes part; or {DDP}",
            )
        self.lock.enter(f"has gradients of {self.name}")
        made: dist.Work | None = dist.reduce_scatter_tensor(
            output_tensor, input_tensor, op, group, async_op
        )
        return made


def divide(
    root: nn.Module, parts: Sequence[tuple[str, list[nn.Module]]], lock: Lockstep,
    device: torch.device,
) -> FSDPModule:  # fmt: skip
    """Divide the parameters of these parts of `root`, and of what is left of it, among all ranks.

    `parts` are named, and run one after another. Raises AutotrainError where that cannot be.
    """
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    name = ""
    try:
        for name, modules in [*parts, (REST, [root])]:
            count = _numbers(modules)
            fully_shard(modules[0] if len(modules) == 1 else modules, mesh=mesh)
            for module in modules:
                assert isinstance(module, FSDPModule)
                module.set_custom_all_gather(_Gathering(lock, name))
                module.set_custom_reduce_scatter(_Adding(lock, name, count))
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)
        assert isinstance(root, FSDPModule)
        root._get_fsdp_state()._lazy_init()  # else the first to compute counts as the root
    except (ValueError, NotImplementedError, AssertionError, RuntimeError) as error:
        said = str(error).partition("\n")[0]
        raise AutotrainError(
            f"parallel.strategy: {name} cannot be divided among processes: {said}", DDP
        ) from error
    return root


def _numbers(modules: Sequence[nn.Module]) -> int:
    """Of gradients, as they are divided: the same number of rows for each rank."""
    own = {id(p): p for module in modules for p in module.parameters() if p.requires_grad}
    world, count = dist.get_world_size(), 0
    for parameter in own.values():
        if parameter.ndim and not isinstance(parameter, DTensor):
            count += rows(parameter.shape, world) * world * parameter[0].numel()
    return count


def rows(shape: torch.Size, world: int) -> int:
    """Of the first dimension, what each rank has; the last ones may have fewer, or none."""
    return -(-shape[0] // world)


def each(root: FSDPModule) -> list[FSDPModule]:
    """Whatever is divided, the root last."""
    assert isinstance(root, nn.Module)
    root_first: list[FSDPModule] = [m for m in root.modules() if isinstance(m, FSDPModule)]
    return [*root_first[1:], root]


@contextmanager
def whole(root: FSDPModule) -> Iterator[None]:
    """Within, every parameter is whole on every rank, and nothing need be done together."""
    *blocks, _ = parts = each(root)
    root.set_reshard_after_forward(False)
    try:
        for part in parts:
            part.unshard()
        yield
    finally:
        for part in parts:
            part.reshard()
        for block in blocks:
            block.set_reshard_after_forward(True, recurse=False)


def forget(root: FSDPModule) -> None:
    """Of a pass that was broken off, all; else torch would wait for its end."""
    state = root._get_fsdp_state()
    passing, under_way = state._state_ctx, state._comm_ctx
    passing.iter_forward_root, passing.post_backward_final_callback_queued = None, False
    under_way.all_gather_state = under_way.reduce_scatter_state = None
    under_way.post_forward_order.clear()
    for own in passing.all_states:
        own._training_state = TrainingState.IDLE
        own._modules_to_run_forward.clear()
        if own._fsdp_param_group is not None:
            _forget(own._fsdp_param_group)


def _forget(group: Any) -> None:
    group._training_state = TrainingState.IDLE
    group._all_gather_result = group._post_reduce_event = group._all_reduce_state = None
    group._post_forward_indices.clear()
    group.reshard()
    for held in group.fsdp_params:
        held.free_unsharded_param()  # where not all were there yet
        held.sharded_param.grad = held.unsharded_accumulated_grad = None
        if hasattr(held, "_unsharded_param"):
            held._unsharded_param.grad = None
