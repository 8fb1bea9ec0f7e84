"""What a run changed in its plan for its own good: written into its copy, used by a resume.

A plan's amendments are those in force: what a person changes since takes the place of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from autotrain import planfile
from autotrain.events import Healed
from autotrain.schema import Amendment, Plan

# How a batch is cut is one thing: whoever changed any of these cut it anew.
_CUT = ("batch.micro_batch", "batch.accum_steps", "batch.world_size", "batch.split")


def write(event: Healed, path: Path) -> None:
    """Put what a cure changed into the plan on disk, with why. Raises AutotrainError."""
    made = [
        Amendment(step=event.step, key=key, before=before, after=after, why=event.fault)
        for key, (before, after) in event.amends.items()
    ]
    planfile.save(amended(planfile.load(path), made), path)


def amended(plan: Plan, made: Iterable[Amendment]) -> Plan:
    """The plan with these amendments too."""
    every = (*plan.amendments, *made)
    changed = _with(plan, {each.key: each.after for each in every[len(plan.amendments) :]})
    return changed.model_copy(update={"amendments": every})


def applied(plan: Plan, before: Plan) -> Plan:
    """The plan with what the run so far (`before`) changed, where the user changed nothing since.

    What differs from how the run's plan was before its amendments is the user's: it stays, and
    those amendments are forgotten.
    """
    if plan.amendments:  # the run's own copy
        return plan
    first = _first(before)
    cut = {key: first.get(key, _value(before, key)) for key in _CUT}
    users = {key for key, value in first.items() if _value(plan, key) != value}
    if any(_value(plan, key) != value for key, value in cut.items()):
        users |= {*_CUT}
    return amended(plan, [each for each in before.amendments if each.key not in users])


def forgotten(plan: Plan) -> Plan:
    """The plan as it was before its amendments; what a person changed since stays."""
    last = {each.key: each.after for each in plan.amendments}
    values = {key: v for key, v in _first(plan).items() if _value(plan, key) == last[key]}
    if any(key in last and key not in values for key in _CUT):
        values = {key: value for key, value in values.items() if key not in _CUT}
    return _with(plan, values).model_copy(update={"amendments": ()})


def _first(plan: Plan) -> dict[str, Any]:
    """What each amended key was before the first of its amendments."""
    return {each.key: each.before for each in reversed(plan.amendments)}


def _value(plan: Plan, key: str) -> Any:
    section, name = key.split(".")
    return getattr(getattr(plan, section), name)


def _with(plan: Plan, values: dict[str, Any]) -> Plan:
    changed: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        section, name = key.split(".")
        changed.setdefault(section, {})[name] = value
    return plan.model_copy(
        update={
            section: getattr(plan, section).model_copy(update=fields)
            for section, fields in changed.items()
        }
    )
