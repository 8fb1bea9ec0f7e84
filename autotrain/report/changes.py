"""What became of a plan that was made anew: what differs, key by key, and why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from autotrain import planfile
from autotrain.report.explain import same, settings
from autotrain.report.text import clean, labelled, literal, page_width, setting, shorten
from autotrain.schema import Plan, Prediction, Reason

# Predictions move a little with what is free and how warm the machine is.
SAME_PREDICTION = 0.1


def refreshed(old: Plan, made: Plan, since: Sequence[object]) -> str:
    """What had changed since the old plan, what follows from it, and what a person had set."""
    blocks = [
        _listed("changed", since) or [labelled("changed", "neither machine, nor data, nor code")],
        *(_by_stage(old, made) if made.stage else (_settings(old, made), _kept_lines(made))),
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _by_stage(old: Plan, made: Plan) -> list[list[str]]:
    """The same of every stage under its name; one that is new is held against the plan before."""
    before = {stage.name: own for stage, own in planfile.stages(old)}
    blocks = []
    for number, (stage, own) in enumerate(planfile.stages(made), start=1):
        head = labelled(f"stage {number}", stage.name)
        blocks.append([head, *_settings(before.get(stage.name, old), own), *_kept_lines(own)])
    return blocks


def _kept_lines(made: Plan) -> list[str]:
    return _listed("kept", _kept(made))


def differences(old: Plan, made: Plan) -> dict[str, tuple[Any, Any]]:
    """Settings and predictions by key: as they were, and as they are."""
    before, now = settings(old), settings(made)
    keys = [*now, *(key for key in before if key not in now)]
    both = {key: (before.get(key), now.get(key)) for key in keys if not _folded(key)}
    return {key: pair for key, pair in both.items() if not _alike(*pair)}


def _folded(key: str) -> bool:
    """Said elsewhere: the code among what changed, options one by one."""
    return key in ("task.sha256", "task.options")


def _alike(before: Any, now: Any) -> bool:
    if isinstance(before, Prediction) and isinstance(now, Prediction):
        return abs(now.expected - before.expected) <= SAME_PREDICTION * before.expected
    return same(before, now)


def _settings(old: Plan, made: Plan) -> list[str]:
    """One line each: the key, the old value and the new one, and a short why."""
    found = differences(old, made)
    if not found:
        return [labelled("settings", "as they were")]
    lines = []
    for key, (before, now) in found.items():
        text = f"{clean(key)}: {_shown(key, before)} -> {_shown(key, now)}"
        why = _why(made, key)
        lines.append(text + (f"   ({shorten(why, max(page_width() - 16, 40))})" if why else ""))
    return [literal("settings" if i == 0 else "", line) for i, line in enumerate(lines)]


def _shown(key: str, value: Any) -> str:
    if isinstance(value, Prediction):
        return setting(key, value.expected)
    return setting(key, value)


def _why(plan: Plan, key: str) -> str:
    reason = _reason(plan, key)
    if reason is None:
        return ""
    return "you set it" if reason.kind == "user" else reason.formula


def _reason(plan: Plan, key: str) -> Reason | None:
    section, _, name = key.partition(".")
    return plan.because.get(section, {}).get(name)


def _kept(made: Plan) -> list[str]:
    """What the plan holds because a person said so."""
    values = settings(made)
    mine = (key for key in values if not key.startswith("task."))
    return [
        f"{key} = {setting(key, values[key])}"
        for key in mine
        if (reason := _reason(made, key)) is not None and reason.kind == "user"
    ]


def _listed(label: str, items: Iterable[object]) -> list[str]:
    return [labelled(label if i == 0 else "", str(item)) for i, item in enumerate(items)]
