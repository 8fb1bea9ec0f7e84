"""What is wrong with a loss or a model that a trace can tell, before anything trains."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from autotrain.batches import tensors_in
from autotrain.errors import AutotrainError
from autotrain.probe.trace.counter import Counter
from autotrain.task import Loss, user_error


def check_loss(loss: Any, path: Path) -> None:
    """Raise AutotrainError where this is no loss that a gradient can come from."""
    if not isinstance(loss, Loss):
        kind = "Tensor" if isinstance(loss, torch.Tensor) else type(loss).__name__
        raise AutotrainError(
            f"{path}: the loss returned {kind}, not autotrain.Loss",
            "return Loss(total=<sum over the items>, weight=<how many items>)",
        )
    if not isinstance(loss.total, torch.Tensor) or loss.total.numel() != 1:
        kind = str(getattr(loss.total, "shape", type(loss.total).__name__))
        raise AutotrainError(
            f"{path}: the loss's total is {kind}, not a tensor of one number",
            "sum the loss over its items, such as cross_entropy(..., reduction='sum')",
        )
    if not loss.total.requires_grad:
        raise AutotrainError(
            f"{path}: the loss has no gradient: no trainable parameter takes part in it",
            "look for .detach(), torch.no_grad() or frozen parameters between model and loss",
        )


def failure(error: Exception, path: Path, counter: Counter) -> AutotrainError:
    """What failed in the user's code, where, and what was going on."""
    told = user_error(path, error, counter.last_words)
    if counter.validates and "does not require grad" in str(error):
        told.hint = "where the loss needs gradients in validation too: `with torch.enable_grad():`"
    return told


def read_here(stack: traceback.StackSummary | None, path: Path) -> str:
    """Which line of the user's read a number that the step depends on."""
    mine = [f for f in stack or () if Path(f.filename).parent == path.resolve().parent]
    place = f"{mine[-1].filename}:{mine[-1].lineno}" if mine else str(path)
    return f"{place}: a number is read out of a tensor, and what the step takes depends on it"


class Watch:
    """What the calls of a model made of their arguments; on doubt, a call counts as seeing."""

    def __init__(self, counter: Counter) -> None:
        self.counter = counter
        self.calls = self.blind = 0

    def check(self, path: Path) -> None:
        """Raise AutotrainError where no call let its tensors reach its result."""
        if self.calls and self.blind == self.calls:
            raise AutotrainError(
                f"{path}: the model ignores its input: nothing that it is given reaches what it "
                "returns",
                "look in forward for what takes the input's place",
            )

    def before(self, _module: nn.Module, args: Any, kwargs: Any) -> None:
        """Hook: what is given is followed from here on."""
        self.counter.follow(tensors_in((args, kwargs)))

    def after(self, _module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
        """Hook: has any of it reached the result?"""
        given, made = tensors_in((args, kwargs)), tensors_in(out)
        # Code can read numbers out of real tensors without any operator.
        certain = given and made and all(isinstance(each, FakeTensor) for each in given)
        self.calls += 1
        self.blind += bool(certain) and not self.counter.reached(made)
        self.counter.follow(None)


@contextmanager
def watched(model: nn.Module, counter: Counter) -> Iterator[Watch]:
    """While this lasts, the calls of `model` are watched."""
    watch = Watch(counter)
    hooks = (
        model.register_forward_pre_hook(watch.before, with_kwargs=True),
        model.register_forward_hook(watch.after, with_kwargs=True),
    )
    try:
        yield watch
    finally:
        counter.follow(None)
        for hook in hooks:
            hook.remove()
