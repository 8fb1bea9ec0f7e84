"""What a run changed in its plan for its own good: written into its copy, used by a resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from autotrain import planfile
from autotrain.events import Healed
from autotrain.schema import Amendment, Plan


def write(event: Healed, path: Path) -> None:
    """Put what a cure changed into the plan on disk, with why."""
    plan = planfile.load(path)
    made = tuple(
        Amendment(step=event.step, key=key, before=before, after=after, why=event.fault)
        for key, (before, after) in event.amends.items()
    )
    changed = _with(plan, {each.key: each.after for each in made})
    kept = changed.model_copy(update={"amendments": (*plan.amendments, *made)})
    planfile.save(kept, path)


def applied(plan: Plan, before: Plan) -> Plan:
    """The plan with what the run so far (`before`) changed, where the user changed nothing since.

    A setting that is neither what it was nor what it became is the user's: it stays.
    """
    values: dict[str, Any] = {}
    for each in before.amendments:
        if _value(plan, each.key) == values.get(each.key, each.before) or each.key in values:
            values[each.key] = each.after
    return _with(plan, values).model_copy(update={"amendments": before.amendments})


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
