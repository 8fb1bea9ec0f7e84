"""What each of several ranks has of a model that is divided among them.

The optimizer works on `parameters`, this rank's parts, as it would on whole ones: what it does to
one number depends on no other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.distributed.tensor import DTensor

from autotrain.repeats import Block
from autotrain.run.keeping.copies import own_copy
from autotrain.run.keeping.tensors import UNDIVIDED
from autotrain.run.loading.feed import NOTHING
from autotrain.run.processes import fsdp
from autotrain.run.processes.ranks import Ranks
from autotrain.run.processes.sharing import as_rank_0
from autotrain.run.processes.window import LossOf


class Shards:
    """A model divided among ranks, beginning with the weights that it has on rank 0.

    `each`: gradients are added up, and divided, after every micro-batch and not the last alone.
    `spare`: the last micro-batch that this rank had.
    """

    def __init__(
        self, model: nn.Module, blocks: Sequence[Block], ranks: Ranks, device: torch.device, *,
        each: bool,
    ) -> None:  # fmt: skip
        self.model, self.ranks, self.each = model, ranks, each
        self.spare: Any = NOTHING
        self.loss = LossOf(model)
        with ranks.lock.section("the run cannot begin"):
            as_rank_0(model)
            self.root = fsdp.divide(self.loss, _named(blocks), ranks.lock, device)
        self._own: dict[int, nn.Parameter] = {}
        self._whole: dict[int, DTensor] = {}
        for whole in model.parameters():
            assert isinstance(whole, DTensor)
            with torch.no_grad():
                part = nn.Parameter(whole.to_local(), requires_grad=whole.requires_grad)
            self._own[id(whole)], self._whole[id(part)] = part, whole

    def own(self, tensor: torch.Tensor) -> torch.Tensor:
        """This rank's part of one of the model's parameters, in the same memory; else itself."""
        return self._own.get(id(tensor), tensor)

    def adds_up(self, last: bool) -> None:
        """Whether the next pass is the last of a window."""
        self.root.set_requires_gradient_sync(last or self.each)
        self.root.set_is_last_backward(last)

    def hand_over(self) -> None:
        """Gradients go to where the optimizer looks for them."""
        for whole in self._whole.values():
            gradient, whole.grad = whole.grad, None
            if gradient is not None:
                assert isinstance(gradient, DTensor)
                self.own(whole).grad = gradient.to_local()

    def forget(self) -> None:
        """A pass was broken off."""
        fsdp.forget(self.root)

    def norm(self, gradients: Sequence[torch.Tensor]) -> torch.Tensor:
        """Of the whole gradient, from the parts of all ranks."""
        own = torch.nn.utils.get_total_norm([*gradients])
        squared = own.double().square()
        self.ranks.lock.enter("takes the gradients' norm")
        dist.all_reduce(squared)
        return squared.sqrt().to(own.dtype)

    def agree_on_scale(self, scaler: GradScaler, optimizer: torch.optim.Optimizer) -> None:
        """fp16: what overflows in one part does so for all."""
        for found in scaler._found_inf_per_device(optimizer).values():
            self.ranks.lock.enter("looks for an overflow")
            dist.all_reduce(found, dist.ReduceOp.MAX)

    @contextmanager
    def whole(self, doing: str) -> Iterator[None]:
        """Within, each rank has all parameters, and goes its own way."""
        with ExitStack() as stack:
            with self.ranks.lock.section(doing):
                stack.enter_context(fsdp.whole(self.root))
            yield

    # --- to and from what is written --------------------------------------------------------

    def gathered(
        self, values: Sequence[torch.Tensor], like: Sequence[torch.Tensor] | None = None
    ) -> list[torch.Tensor]:
        """Copies on the CPU of rank 0; others keep nothing.

        Of a divided tensor the whole one: of a parameter, and of what has parts `like` it.
        """
        owners = like if like is not None else [None] * len(values)
        return [self._gathered(*each) for each in zip(values, owners, strict=True)]

    def _gathered(self, value: torch.Tensor, like: torch.Tensor | None) -> torch.Tensor:
        own = self.own(value if like is None else like)
        whole = self._whole.get(id(own))
        if whole is None or own.shape != (own if like is None else value).shape:
            return own_copy(value) if self.ranks.first else torch.empty(0)
        part, shape = (own if like is None else value).detach(), whole.shape
        height = fsdp.rows(shape, self.ranks.world)
        padded = part.new_zeros(height, *shape[1:])
        padded[: len(part)] = part
        every = part.new_empty(height * self.ranks.world, *shape[1:])
        self.ranks.lock.enter("puts together what is saved")
        dist.all_gather_into_tensor(every, padded)
        return own_copy(every[: shape[0]]) if self.ranks.first else torch.empty(0)

    def part(self, value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Of a whole tensor this rank's part, divided as a parameter is; else the tensor."""
        own = self.own(like)
        whole = self._whole.get(id(own))
        if whole is None or value.shape != whole.shape:
            return value
        height = fsdp.rows(whole.shape, self.ranks.world)
        first = height * self.ranks.rank
        return value[first : first + height].to(own.device, copy=True).contiguous()

    def place(self, value: torch.Tensor) -> tuple[Any, ...]:
        """Where it lies: equal for tensors that are one and the same."""
        return (id(value),) if id(value) in self._own else UNDIVIDED.place(value)

    def divided(self, value: torch.Tensor, parameter: Any) -> torch.Tensor:
        """Of a whole tensor what stands in the model for it."""
        part = self.part(value, parameter)
        if part is value:
            return value
        return DTensor.from_local(
            part, parameter.device_mesh, parameter.placements, run_check=False,
            shape=parameter.shape, stride=parameter.stride(),
        )  # fmt: skip


def _named(blocks: Sequence[Block]) -> list[tuple[str, list[nn.Module]]]:
    found = []
    for block in blocks:
        to = "" if block.stop is None else f" from {block.start} to {block.stop - 1}"
        found.append((f"{block.name}{to}", block.modules()))
    return found
