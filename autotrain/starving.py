"""What a wait for samples says, and how many loader workers would end it.

Where a model computes on all cores of a CPU, samples that are read meanwhile take theirs from it:
a wait there is the cores' own work, and a worker that did it would end none of it.
"""

from __future__ import annotations

import math

from autotrain.schema import Plan

# So much of the time in waiting leaves a device idle. Cores that load meanwhile are not: a wait is
# worth a word there once it is nearly as long as what it is for.
IDLE, BUSY = 0.2, 0.4


def free_cores(plan: Plan) -> float:
    """Cores for loader workers; infinite where it is not known how many there are."""
    cores: float = plan.inputs.cores or math.inf
    return cores - plan.device.threads if plan.device.kind == "cpu" else cores


def taking_turns(plan: Plan) -> bool:
    """Whether the model computes on the cores that would load."""
    return plan.device.kind == "cpu" and plan.loader.workers >= free_cores(plan)


def worth_a_word(plan: Plan) -> float:
    """The share of the time above which a wait is told: more where the plan had counted on it."""
    chosen = plan.because.get("loader", {}).get("workers")
    given = chosen is not None and chosen.kind == "user"
    return BUSY if taking_turns(plan) and not given else IDLE


def enough_workers(plan: Plan, share: float) -> int | None:
    """Workers that would end a wait of that share of the time; None where cores are too few."""
    workers = plan.loader.workers
    wanted = math.ceil((workers or share) / (1 - share)) if share < 1 else math.inf
    return int(wanted) if workers < wanted <= free_cores(plan) else None
