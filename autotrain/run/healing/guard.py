"""Whether a step may be committed: its loss and its gradients must be finite, and no spike.

On a CPU a value is read as soon as it is made, at no cost: the step is left out. On a GPU reading
would make the host wait, so the verdict stays there: a fused optimizer takes it as a tensor and
changes nothing where it says so. Other optimizers cannot; a fault is found at the log point, and
the run goes back to a checkpoint.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any, Literal

import torch

from autotrain.run.meter import Number

Mode = Literal["host", "device", "log"]
# A median needs so many losses to mean something; so many of the last ones tell what is usual.
LEAST, MOST = 20, 128
# Losses that hardly scatter make any wobble a thousand deviations, and a few hard samples among
# easy ones lie as far: a spike also lies so many times further from the median than the furthest
# of the last losses, and is so many times the median.
BEYOND, TIMES = 5.0, 2.0
# Up to so many times the loss of the untrained model, one spike makes the next like it usual.
CAP = 10.0
# The standard deviation of a normal distribution over its median absolute deviation.
NORMAL = 1.4826


class Guard:
    """Judges steps. `limit` is the most that a step's loss per weight may be."""

    def __init__(self, mode: Mode, score: float | None) -> None:
        self.mode, self.score = mode, score
        self.recent: deque[float] = deque(maxlen=MOST)
        self.start: float | None = None
        self.limit = math.inf
        self._found: torch.Tensor | None = None

    def learn(self, losses: Iterable[float]) -> None:
        """Take note of losses of steps, and of what would be a spike above them.

        Spikes too: what comes often is none. But no more than CAP times the first losses.
        """
        most = math.inf if self.start is None else self.start + (CAP - 1) * abs(self.start)
        self.recent.extend(loss for loss in losses if math.isfinite(loss) and loss <= most)
        if self.score is None or len(self.recent) < LEAST:
            return
        usual, top = median(self.recent), max(self.recent)
        if self.start is None:
            self.start = usual
        scatter = NORMAL * median(abs(loss - usual) for loss in self.recent)
        beyond = max(self.score * scatter, BEYOND * (top - usual), (TIMES - 1) * abs(usual))
        self.limit = usual + beyond

    def accept(self) -> None:
        """What was usual is so no more: nothing is a spike until that is known anew."""
        self.recent.clear()
        self.start, self.limit = None, math.inf

    def bad(self, loss: Number, size: Number) -> Number:
        """Nonzero where a step must not be committed: a number, or a scalar on the device.

        `loss` is per weight; `size` is the gradients' norm, or anything as little finite as they.
        """
        if isinstance(loss, torch.Tensor) or isinstance(size, torch.Tensor):
            return self._bad_there(loss, size)
        return 0.0 if loss <= self.limit and math.isfinite(loss) and math.isfinite(size) else 1.0

    def _bad_there(self, loss: Number, size: Number) -> torch.Tensor:
        """As float32 [1]. Nothing is read: NaN is unequal to itself, infinity x 0 is NaN."""
        both = loss + 0.0 * size
        assert isinstance(both, torch.Tensor)
        most = torch.finfo(both.dtype).max
        good = both.clamp(min=-most, max=min(self.limit, most))
        return (both != good).to(torch.float32).reshape(1)

    def size(self, gradients: Sequence[torch.Tensor]) -> Number:
        """What is finite exactly where all gradients are, in one pass over them."""
        if self._found is None:
            device = gradients[0].device
            self._found, self._one = torch.zeros(1, device=device), torch.ones(1, device=device)
        self._found.zero_()
        # It multiplies by one, and notes what is not finite.
        torch._amp_foreach_non_finite_check_and_unscale_([*gradients], self._found, self._one)
        if self.mode == "host":
            return math.inf if self._found.numpy()[0] else 0.0
        return (1.0 / (1.0 - self._found)).reshape(())

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {"recent": [*self.recent], "start": self.start}

    def load(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state`."""
        self.accept()
        self.learn(state["recent"])
        self.start = state["start"]


def mode_of(device: torch.device, optimizer: torch.optim.Optimizer) -> Mode:
    """How steps are judged there."""
    if device.type == "cpu":
        return "host"
    fused = all(group.get("fused") for group in optimizer.param_groups)
    return "device" if fused and device.type == "cuda" else "log"


def commit(optimizer: torch.optim.Optimizer, bad: torch.Tensor) -> None:
    """A fused optimizer's step, which changes nothing where `bad` is 1; nothing is read."""
    _begin_momentum(optimizer)
    # The two attributes by which torch's loss scaler talks to fused optimizers.
    held: Any = optimizer
    held.grad_scale, held.found_inf = None, bad.reshape(())
    try:
        optimizer.step()
    finally:
        del held.grad_scale, held.found_inf


def _begin_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Zeros, from which SGD's first step makes what it would make of nothing.

    Where torch's fused SGD changes nothing in its first step, it leaves there what was in memory.
    """
    count = sum(len(group["params"]) for group in optimizer.param_groups)
    if not isinstance(optimizer, torch.optim.SGD) or len(optimizer.state) == count:
        return
    for group in optimizer.param_groups:
        if group["momentum"]:
            for p in group["params"]:
                if p.grad is not None and optimizer.state[p].get("momentum_buffer") is None:
                    optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)
