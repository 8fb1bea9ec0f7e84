"""What a run suffers from, with its evidence, and what to set instead.

Rules look at a run's curves as a whole, after the fact, or at what there is of one that goes on.
Each answers with a Finding or not at all: a wrong word is worse than none. What a run tells while
it goes on (`run.watching`) must decide with less, and so waits longer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from autotrain.report.diagnosis import learning, memorising, trouble
from autotrain.report.diagnosis.advice import Place, command
from autotrain.report.diagnosis.view import POINTS, Finding, Kind, View
from autotrain.report.result import RunResult
from autotrain.schema import Plan

Rule = Callable[[View], Finding | None]
# What each is called to a person.
NAMES: Mapping[Kind, str] = {
    "unstable": "unstable",
    "batch_too_large": "too large a batch",
    "starved": "starved of data",
    "overfitting": "overfitting",
    "underfitting": "underfitting",
    "plateau": "a plateau",
    "converged": "converged",
    "improving": "still improving",
    "too_short": "too short to tell",
}

# What is wrong, the worst first; all that hold are told.
TROUBLES: tuple[Rule, ...] = (trouble.unstable, trouble.out_of_memory, trouble.starved)
# What was learned: the first that holds.
LEARNING: tuple[Rule, ...] = (
    memorising.overfitting,
    learning.underfitting,
    learning.plateau,
    learning.converged,
    learning.improving,
)


class Diagnosis(NamedTuple):
    """`verdict`: the kind of the first finding. There is always one."""

    verdict: Kind
    findings: tuple[Finding, ...]


def diagnose(result: RunResult, plan: Plan) -> Diagnosis:
    """By the events of a run, whether it has ended or not."""
    view = View(result, plan)
    found = [each for rule in TROUBLES if (each := rule(view)) is not None]
    if not any(each.kind == "unstable" for each in found):
        learned = (rule(view) for rule in LEARNING)
        found += [next((each for each in learned if each is not None), _too_short(view))]
    return Diagnosis(found[0].kind, tuple(found))


def _too_short(view: View) -> Finding:
    seen = len(view.result.points)
    return Finding(
        "too_short",
        f"{seen:,} log points of {view.result.steps:,} steps; a course shows from {POINTS} on",
        "let it go on, or train longer",
    )


__all__ = ["NAMES", "Diagnosis", "Finding", "Kind", "Place", "command", "diagnose"]
