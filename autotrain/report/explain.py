"""Why a plan says what it says: `autotrain explain plan.toml [key]`."""

from __future__ import annotations

import math
from typing import Any

from autotrain.errors import UsageError
from autotrain.near import near_key
from autotrain.report.meanings import MEANINGS
from autotrain.report.text import clean, interval, labelled, quantity, setting
from autotrain.schema import SETTING_SECTIONS, Plan, Prediction, Reason

KINDS = {
    "fixed": "given, not computed",
    "rule": "computed by a rule",
    "measured": "measured",
    "user": "set by you",
}
INDENT = "  "


def explain(plan: Plan, key: str | None = None) -> str:
    """The reasons for one setting (`batch.micro_batch`), one section (`batch`), or all.

    Raises UsageError for a key that the plan does not have.
    """
    values = settings(plan)
    if key is None:
        chosen = [name for name in values if values[name] is not None or _reason(plan, name)]
    else:
        chosen = _matching(key, list(values))
    return "\n\n".join(_explained(plan, name, values[name]) for name in chosen)


def must_follow(faults: list[str], how: str) -> str:
    """What does not go together since a setting was edited, and how it does again."""
    lines = [labelled("", fault, indent=INDENT) for fault in faults]
    return "\n".join(["does not go together any more:", *lines, labelled("next", how)])


def settings(plan: Plan) -> dict[str, Any]:
    """Every setting and prediction of the plan by its dotted key, in the plan's order."""
    values: dict[str, Any] = {}
    for section in (*SETTING_SECTIONS, "predicted"):
        held = getattr(plan, section)
        for key in type(held).model_fields:
            values[f"{section}.{key}"] = getattr(held, key)
    values |= {f"task.options.{key}": value for key, value in plan.task.options.items()}
    return values


def edited(plan: Plan) -> set[str]:
    """Settings whose value is not the one that the plan was made with."""
    values = settings(plan)
    return {key for key in values if _is_edited(plan, key, values[key])}


def _matching(key: str, known: list[str]) -> list[str]:
    """`key` itself, or all of the section it names."""
    chosen = [name for name in known if name == key or name.startswith(f"{key}.")]
    if chosen:
        return chosen
    sections = sorted({name.partition(".")[0] for name in known})
    meant = near_key(key, [*known, *sections])
    raise UsageError(
        f"the plan has no setting {key!r}",
        hint=meant.strip(" ()")
        or f"one of the sections {', '.join(sections)}, or a key such as {known[0]}",
    )


def _reason(plan: Plan, key: str) -> Reason | None:
    """Why the setting has its value; an option of the task may share its table's reason."""
    section, _, name = key.partition(".")
    reasons = plan.because.get(section, {})
    if name in reasons:
        return reasons[name]
    return reasons.get("options") if key.startswith("task.options.") else None


def _ruled(plan: Plan, key: str) -> Any:
    """The value that the setting had when the plan was made; `...` where that is not known."""
    reason = _reason(plan, key)
    if reason is None or key.startswith("predicted."):
        return ...
    if not key.startswith("task.options"):
        return reason.value
    table = reason.value if isinstance(reason.value, dict) else {}
    if key == "task.options":
        return table if reason.value is not None else ...
    return table.get(key.removeprefix("task.options."), ...)


def _is_edited(plan: Plan, key: str, value: Any) -> bool:
    ruled = _ruled(plan, key)
    return ruled is not ... and not same(ruled, value)


def same(first: Any, second: Any) -> bool:
    """Equal as TOML sees it: a tuple is an array, 1 is 1.0, a table left out is an empty one."""
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, bool) or isinstance(second, bool):
        return first is second
    if isinstance(first, int | float) and isinstance(second, int | float):
        return math.isclose(first, second, rel_tol=1e-12)
    return bool(first == second)


def _explained(plan: Plan, key: str, value: Any) -> str:
    reason = _reason(plan, key)
    lines = [_headline(plan, key, value, reason)]
    if key in MEANINGS:
        lines.append(labelled("what it is", MEANINGS[key], indent=INDENT))
    if _is_edited(plan, key, value):
        was = (
            f"it was {setting(key, _ruled(plan, key))}, for the reasons below. What was computed "
            "from that, predictions too, does not know of your value yet"
        )
        lines.append(labelled("edited", f"you edited this in the file; {was}", indent=INDENT))
    return "\n".join([*lines, *(_because(key, reason) if reason is not None else [])])


def _headline(plan: Plan, key: str, value: Any, reason: Reason | None) -> str:
    if isinstance(value, Prediction):
        return f"{key} = {quantity(key, value.expected)}   (predicted: {interval(key, value)})"
    if _is_edited(plan, key, value):
        origin = "edited by you"
    elif value is None and reason is not None:
        origin = "turned off by you" if reason.kind == "user" else "not used here"
    else:
        origin = KINDS[reason.kind] if reason is not None else "no reason is recorded in this plan"
    return f"{clean(key)} = {setting(key, value)}   ({origin})"


def _because(key: str, reason: Reason) -> list[str]:
    parts = {
        "how": reason.formula,
        "from": reason.source,
        "limited by": reason.limited_by,
        "changes if": reason.would_change,
    }
    lines = [labelled(label, text, indent=INDENT) for label, text in parts.items() if text]
    for other in reason.beside:
        said = f"{other.name} says {setting(key, other.value)}: {other.formula}"
        lines.append(labelled("not used", said, indent=INDENT))
        lines.append(labelled("", f"why not: {other.why_not}", indent=INDENT))
    return lines
