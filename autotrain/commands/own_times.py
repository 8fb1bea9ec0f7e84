"""A model's own operators, timed on this machine: where no real steps are taken."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from autotrain.commands import trying
from autotrain.plan import pricing
from autotrain.schema import Plan

if TYPE_CHECKING:
    from autotrain.commands.decide import Case, Decision

# For all traces together, about.
SECONDS = 2.0


def alone(trial: bool | None, here: bool, plan: Plan) -> bool:
    """Whether operators are to be timed by themselves: where no real steps tell how long they take,
    and the environment does not say that nothing is to be run."""
    if os.environ.get("AUTOTRAIN_TRIAL") == "off":
        return False
    return trial is False or (trial is None and here and not trying.quick(plan))


def timed(case: Case, made: Decision) -> Decision:
    """The decision with the seconds of this machine, which is the one planned for.

    As it was where nothing computes here, or a trial has told already how long a step takes.
    """
    plan, tracer = made.plan, case.tracer
    device = case.hardware.device(plan.device.kind, plan.device.index)
    if device is None or device.kind != "cpu" or not device.rates.timings:
        return made
    form = plan.model.model_copy(update={"compile": False})
    wanted = [
        t for t in tracer.traces if t.form == form and id(t) in tracer.examples and not t.timings
    ]
    if not wanted:
        return made
    from autotrain.probe import own

    known, threads = pricing.prices(device.rates.timings), plan.device.threads
    for trace in wanted:
        priced = {
            work._replace(calls=1): work.calls * known.one(work, known.nearest(threads))
            for work in trace.work
        }
        timings = own.measure(tracer.examples[id(trace)], threads, SECONDS / len(wanted), priced)
        case.replace(trace, trace.model_copy(update={"timings": timings}))
    return case.decide()
