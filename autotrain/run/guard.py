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
# Losses that hardly scatter make any wobble a thousand deviations: a spike is also twice as much.
TIMES = 2.0
# The standard deviation of a normal distribution over its median absolute deviation.
NORMAL = 1.4826


class Guard:
    """Judges steps. `limit` is the most that a step's loss per weight may be."""

    def __init__(self, mode: Mode, score: float | None) -> None:
        self.mode, self.score = mode, score
        self.recent: deque[float] = deque(maxlen=MOST)
        self.limit = math.inf
        self._found: torch.Tensor | None = None

    def learn(self, losses: Iterable[float]) -> None:
        """Take note of losses of committed steps, and of what would be a spike above them."""
        self.recent.extend(loss for loss in losses if math.isfinite(loss))
        if self.score is None or len(self.recent) < LEAST:
            return
        usual = median(self.recent)
        scatter = NORMAL * median(abs(loss - usual) for loss in self.recent)
        self.limit = usual + max(self.score * scatter, (TIMES - 1) * abs(usual))

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
        most = min(self.limit, torch.finfo(both.dtype).max)
        return (both != both.clamp(max=most)).to(torch.float32).reshape(1)

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
        return {"recent": [*self.recent]}

    def load(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state`."""
        self.recent.clear()
        self.learn(state["recent"])


def mode_of(device: torch.device, optimizer: torch.optim.Optimizer) -> Mode:
    """How steps are judged there."""
    if device.type == "cpu":
        return "host"
    fused = all(group.get("fused") for group in optimizer.param_groups)
    return "device" if fused and device.type == "cuda" else "log"


def commit(optimizer: torch.optim.Optimizer, bad: torch.Tensor) -> None:
    """A fused optimizer's step, which changes nothing where `bad` is 1; nothing is read."""
    # The two attributes by which torch's loss scaler talks to fused optimizers.
    held: Any = optimizer
    held.grad_scale, held.found_inf = None, bad.reshape(())
    try:
        optimizer.step()
    finally:
        del held.grad_scale, held.found_inf
