"""The child process that measures how far gradients scatter, early in training.

`commands.measuring` has it started as `python -m autotrain.probe.noise`: a NoiseRequest on stdin,
a NoiseTest on stdout. The model trained is its own and is thrown away.

Every optimizer step has its gradient made of several micro-batches, drawn independently. The
squared norm of each one's gradient and that of their mean are all that is kept.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from time import monotonic
from typing import Any

import torch

from autotrain import optimizer as optimizers
from autotrain.device import device_of, settings
from autotrain.errors import AutotrainError
from autotrain.probe.child import Request
from autotrain.probe.draws import Draws
from autotrain.probe.steps import NotFiniteError, Stepper, seed
from autotrain.probe.trial import fault, serve
from autotrain.schema import NoiseTest, NoiseWindow, Record
from autotrain.task import Loss, load_task

# Nothing is learned from fewer steps, so they are taken however long that lasts.
LEAST_STEPS = 8


class NoiseRequest(Record):
    """`steps` optimizer steps of `parts` micro-batches of `micro_batch` samples each.

    The rate rises to `rate` over the first third. Where `seconds` are over it ends with the
    steps it has, if they are LEAST_STEPS.
    """

    take: Request
    micro_batch: int
    parts: int
    steps: int
    rate: float
    seconds: float


def measured(request: NoiseRequest) -> NoiseTest:
    """The measurement, whatever comes of it."""
    plan, path = request.take.plan, Path(request.take.task_file)
    begun, about = monotonic(), {"micro_batch": request.micro_batch, "parts": request.parts}
    stepper: Stepper | None = None
    count = 1
    try:
        task = load_task(path, request.take.data, plan.task.options)
        stepper = Stepper(request.take, task, device_of(plan.device))
        draws = Draws.of(plan, task, plan.run.seed)
        count = len(draws.samples)
        with settings(plan):
            found = _windows(request, stepper, draws)
        said: dict[str, Any] = {
            "outcome": "ok",
            "windows": [w for w in found if math.isfinite(w.square + w.spread)],
            "skipped": sum(not math.isfinite(w.square + w.spread) for w in found),
        }
    except Exception as error:
        said = fault(path, error, stepper.doing if stepper is not None else "")
    took = monotonic() - begun
    return NoiseTest.model_validate({**about, "count": count, **said, "seconds": took})


def _windows(request: NoiseRequest, stepper: Stepper, draws: Draws) -> list[NoiseWindow]:
    """Train, and measure each step's gradients on the way."""
    stepper.build()
    stepper.scaler = stepper.precision.scaler()
    begun, ramp = monotonic(), max(request.steps // 3, 1)
    found: list[NoiseWindow] = []
    for step in range(request.steps):
        if step >= LEAST_STEPS and monotonic() - begun > request.seconds:
            break
        optimizers.set_rate(stepper.optimizer, request.rate * min((step + 1) / ramp, 1.0))
        seed(stepper.request.plan.run.seed * 1_000_003 + step)
        window = [draws.some(request.micro_batch) for _ in range(request.parts)]
        found.append(_window(stepper, window, step))
        stepper.update()
    return found


def _window(stepper: Stepper, window: list[list[int]], step: int) -> NoiseWindow:
    """The gradients of one step, their mean left in place of the step's gradient.

    Raises NotFiniteError; AutotrainError for a loss that ties samples together.
    """
    parameters = [p for p in stepper.model.parameters() if p.requires_grad]
    total: list[torch.Tensor | None] = [None] * len(parameters)
    squares = 0.0
    for number, indices in enumerate(window):
        _backward(stepper, indices, step, number)
        stepper.form.hold(parameters)
        squares += _square(p.grad for p in parameters)
        for i, parameter in enumerate(parameters):
            total[i] = _sum(total[i], parameter.grad)
            parameter.grad = None
    count = len(window)
    for parameter, gradient in zip(parameters, total, strict=True):
        parameter.grad = None if gradient is None else gradient.div_(count)
    scale = float(stepper.scaler.get_scale()) ** 2
    square = _square(p.grad for p in parameters)
    spread = max(squares - count * square, 0.0) / (count - 1)
    return NoiseWindow(step, square / scale, spread / scale)


def _backward(stepper: Stepper, indices: list[int], step: int, number: int) -> None:
    """The gradient of one micro-batch's mean loss."""
    batch = stepper.batch(stepper.task.train, indices, "training")
    stepper.doing = "the loss: "
    with stepper.precision.autocast():
        loss = stepper.task.loss(stepper.model, batch)
    _insist(stepper, loss)
    mean = loss.total / (float(loss.weight) or 1.0)
    stepper.doing = "the gradients: "
    torch.autograd.backward(stepper.scaler.scale(mean))
    if not math.isfinite(float(mean.detach())):
        where = f"step {step + 1}, micro-batch {number + 1}"
        raise NotFiniteError(f"the loss is {float(mean.detach())} at {where}")


def _insist(stepper: Stepper, loss: Loss) -> None:
    if loss.mixes:
        raise AutotrainError(
            f"{stepper.request.task_file}: the loss ties samples together (mixes=True): "
            "its gradient is no mean over samples, and has no noise scale",
            "leave --measure-noise out, and set batch.global_batch yourself",
        )


def _sum(total: torch.Tensor | None, gradient: torch.Tensor | None) -> torch.Tensor | None:
    """In fp32; a sparse gradient as a dense one."""
    if gradient is None:
        return total
    dense = gradient.detach()
    dense = dense.to_dense() if dense.is_sparse else dense
    return dense if total is None else total.add_(dense)


def _square(gradients: Any) -> float:
    """The squared norm of all of them together, summed in double precision."""
    norms = [torch.linalg.vector_norm(_dense(g)).double() for g in gradients if g is not None]
    return float(torch.stack(norms).square().sum()) if norms else 0.0


def _dense(gradient: torch.Tensor) -> torch.Tensor:
    return gradient.to_dense() if gradient.is_sparse else gradient


def main() -> None:
    """Read the request, take the steps, answer."""
    serve(lambda line: measured(NoiseRequest.model_validate_json(line)))


if __name__ == "__main__":
    main()
    sys.exit()
