"""One optimizer step in some way to run the model, and what its parts take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch

from autotrain.device import Precision
from autotrain.prepare import run_as
from autotrain.probe.steps import Stepper
from autotrain.schema import Variant


class Seconds(NamedTuple):
    """What a step took, the device waited for: all of its micro-batches, and the update.

    `load`: reading and collating the samples in this process, and bringing them to the device.
    """

    load: float
    micro: float
    update: float


def step(stepper: Stepper, variant: Variant, window: list[list[int]]) -> Seconds:
    """One optimizer step in that way. Raises what the task's code raises."""
    stepper.load_seconds.clear()
    stepper.micro_seconds.clear()
    stepper.update_seconds.clear()
    with _running(stepper, variant):
        stepper.step(window)
    return Seconds(
        sum(stepper.load_seconds), sum(stepper.micro_seconds), stepper.update_seconds[-1]
    )


@contextmanager
def _running(stepper: Stepper, variant: Variant) -> Iterator[None]:
    before, request, threads = stepper.precision, stepper.request, torch.get_num_threads()
    form = request.plan.model.model_copy(update={"memory_format": variant.memory_format})
    stepper.precision = Precision(variant.dtype, stepper.device)
    stepper.request = request.model_copy(
        update={"plan": request.plan.model_copy(update={"model": form})}
    )
    torch.set_num_threads(variant.threads)
    try:
        with run_as(stepper.model, form):
            yield
    finally:
        stepper.precision, stepper.request = before, request
        torch.set_num_threads(threads)
