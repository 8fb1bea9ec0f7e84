"""A trial from outside: the child process that takes the steps is started, watched and ended.

Whatever happens in it, be it a crash, memory running out or a hang, becomes a `schema.Trial`.
"""

from __future__ import annotations

from typing import Any

from autotrain.child import Silence, ask
from autotrain.schema import Plan, Record, Trial

__all__ = ["STEPS", "Request", "Silence", "ask", "setup_of", "take_steps"]

STEPS = 3
TRIAL = "autotrain.probe.trial"


class Request(Record):
    """What the child is to do: `steps` of a plan, on its task.

    `imports`: modules that a run has loaded before its first step; they take memory too.
    `tensors`: also follow the CPU allocator through one more step, which is slow.
    """

    plan: Plan
    task_file: str
    data: str | None
    steps: int = STEPS
    imports: tuple[str, ...] = ()
    tensors: bool = False


def setup_of(plan: Plan) -> dict[str, Any]:
    """Of a plan, what a trial of it tries: the first fields of `schema.Trial`."""
    return {
        "device": plan.device.kind,
        "index": plan.device.index,
        "threads": plan.device.threads,
        "micro_batch": plan.batch.micro_batch,
        "accum_steps": 2 if plan.batch.buckets else min(plan.batch.accum_steps, 2),
        "buckets": plan.batch.buckets or (),
        "dtype": plan.precision.dtype,
        "optimizer": plan.optimizer.name,
        "implementation": plan.optimizer.implementation,
        "momentum": plan.optimizer.momentum,
        "form": plan.model,
        "ema": plan.train.ema_decay is not None,
    }


def take_steps(request: Request, *, seconds: float, most_bytes: int | None = None) -> Trial:
    """A few real steps in a process of its own, which is gone when this returns or raises.

    It is stopped after `seconds`, and where it holds over `most_bytes` of RAM.
    """
    said = ask(TRIAL, request, Trial, seconds=seconds, most_bytes=most_bytes)
    if isinstance(said, Trial):
        return said
    seen = said.peak if request.plan.device.kind == "cpu" else None
    return Trial.model_validate(
        {
            **setup_of(request.plan),
            "outcome": said.outcome,
            "message": said.message,
            "device_peak_bytes": seen,
        }
    )
