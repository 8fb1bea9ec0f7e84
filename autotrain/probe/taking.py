"""The child process of `probe.turns`: a plan's model on its device, and steps when it is asked.

`python -m autotrain.probe.taking`: on stdin a Request, then a Turn a line; each is answered by a
Took on stdout. The rate is next to nothing, so that thousands of steps on the same samples stay
alike: they are timed, and nothing is learned.
"""

from __future__ import annotations

import gc
import importlib
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from autotrain import optimizer as optimizers
from autotrain.device import Memory, device_of, settings
from autotrain.probe import ways
from autotrain.probe.child import Request
from autotrain.probe.steps import Stepper, longest_samples
from autotrain.probe.trial import converse, fault, lent_bytes, used_bytes_of
from autotrain.probe.turns import Taken, Took, Turn
from autotrain.task import load_task

# Of the plan's learning rate.
RATE = 1e-6


class Taker:
    """What answers, line by line. The plan's process-wide settings hold until `stack` is left."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._stepper: Stepper | None = None
        self._path = Path()
        self._before: int | None = None

    def __call__(self, line: bytes) -> Took:
        """Begin with a Request, then take a Turn after another; whatever comes of it is told."""
        try:
            if self._stepper is None:
                return self._begun(Request.model_validate_json(line))
            return self._taken(self._stepper, Turn.model_validate_json(line))
        except Exception as error:
            doing = self._stepper.doing if self._stepper is not None else ""
            said = fault(self._path, error, doing)
        return self._failed(said)

    def _begun(self, request: Request) -> Took:
        plan, self._path = request.plan, Path(request.task_file)
        for name in request.imports:
            importlib.import_module(name)
        device = device_of(plan.device)
        self._before = used_bytes_of(device)  # before this process is known to the driver
        task = load_task(self._path, request.data, plan.task.options)
        self._stepper = stepper = Stepper(request, task, device)
        self._stack.enter_context(settings(plan))
        stepper.build()
        optimizers.set_rate(stepper.optimizer, RATE * plan.optimizer.lr)
        return self._told(stepper)

    def _taken(self, stepper: Stepper, turn: Turn) -> Took:
        if turn.first:
            stepper.losses.clear()
            _let_go(stepper.device)
            stepper.memory = Memory(stepper.device)
        samples = longest_samples(stepper.task, turn.micro_batch)
        window = [samples] * turn.parts
        taken = [ways.step(stepper, turn.variant, window) for _ in range(turn.steps)]
        return self._told(stepper, tuple(Taken(*each) for each in taken))

    def _told(self, stepper: Stepper, taken: tuple[Taken, ...] = ()) -> Took:
        assert stepper.memory is not None
        peak, on_gpu = stepper.memory.now_and_peak()[1], stepper.device.type == "cuda"
        lent = lent_bytes(self._before, used_bytes_of(stepper.device)) if on_gpu else None
        return Took(outcome="ok", steps=taken, peak_bytes=peak, lent_bytes=lent)

    def _failed(self, said: dict[str, Any]) -> Took:
        """What a step that failed had made is let go: a smaller one may be asked for next."""
        stepper = self._stepper
        if stepper is not None and hasattr(stepper, "optimizer"):
            stepper.optimizer.zero_grad(set_to_none=True)
            _let_go(stepper.device)
        return Took.model_validate(said)


def _let_go(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


if __name__ == "__main__":
    with ExitStack() as stack:
        converse(Taker(stack))
