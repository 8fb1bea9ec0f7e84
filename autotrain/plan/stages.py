"""Stages: each is a plan by itself, for the same goal with the stage's settings; then all in one.

Pure: goals in, goals out; plans in, one plan out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from autotrain.errors import UsageError
from autotrain.plan.ledger import IN_EPOCHS
from autotrain.plan.sharing import LIMITS, limits
from autotrain.schema import AUTO, Goal, Plan, Recipe, Scalar, Stage, StageWish, difference

_OPTION = "task."


class Fixed(NamedTuple):
    """What a person fixed: plan settings, and options of the task."""

    settings: dict[str, Any]
    options: dict[str, Scalar]


def adopted(known: Sequence[StageWish], wanted: Sequence[StageWish]) -> tuple[StageWish, ...]:
    """The stages wanted, if any are, else those known.

    One that has the name of a known one begins with what that says.
    """
    by_name = {stage.name: stage for stage in known}
    return tuple(_over(by_name.get(stage.name), stage) for stage in wanted) or tuple(known)


def _over(known: StageWish | None, wanted: StageWish) -> StageWish:
    if known is None:
        return wanted
    weights = wanted.weights if "weights" in wanted.model_fields_set else known.weights
    settings = {**known.settings, **wanted.settings}
    return StageWish(name=wanted.name, weights=weights, settings=settings)


def goals(
    goal: Goal, stages: Sequence[StageWish], options: Mapping[str, Scalar], own: Mapping[str, Fixed]
) -> list[Goal]:
    """A goal for each stage: the common one, with the stage's settings as one recipe more.

    `options`: those of the task that the user fixed for all stages; `own`: what the user fixed
    for one. A limit of time or money is left out: `sharing` has what each stage may take of it.
    Raises UsageError where it is said for all and for one.
    """
    said = limits(goal.user)
    twice = [
        f"stage.{name}.{key}: and {', '.join(said)} for all stages together"
        for name, fixed in own.items()
        for key in limits(fixed.settings)
    ]
    if said and twice:
        raise UsageError(*twice, hint="say it for all of them, or for each")
    user = {key: value for key, value in goal.user.items() if key not in said}
    goal = goal.model_copy(update={"user": user})
    return [_goal(goal, stage, options, own.get(stage.name, Fixed({}, {}))) for stage in stages]


def _goal(goal: Goal, stage: StageWish, options: Mapping[str, Scalar], own: Fixed) -> Goal:
    plain = {k: v for k, v in stage.settings.items() if not k.startswith(_OPTION)}
    said = {k.removeprefix(_OPTION): v for k, v in stage.settings.items() if k.startswith(_OPTION)}
    recipe = Recipe(
        name=goal.recipes[-1].name if goal.recipes else "rules",
        source=f"the stage {stage.name}",
        settings=plain,
    )
    all_options = {**goal.task.options, **said, **options, **own.options}
    other = IN_EPOCHS | {epochs: steps for steps, epochs in IN_EPOCHS.items()}
    gone = {other[key] for key in own.settings if key in other}
    common = {key: value for key, value in goal.user.items() if key not in gone}
    return goal.model_copy(
        update={
            "task": goal.task.model_copy(update={"options": all_options}),
            "recipes": (*goal.recipes, recipe),
            "user": {k: v for k, v in {**common, **own.settings}.items() if v is not AUTO},
        }
    )


def together(stages: Sequence[StageWish], plans: Sequence[Plan]) -> Plan:
    """One plan: the first stage's, and of every stage what is not as there."""
    first = plans[0].plain()
    made = []
    for stage, plan in zip(stages, plans, strict=True):
        own, off = difference(first, plan.plain())
        made.append(Stage(name=stage.name, weights=stage.weights, off=off, **own))
    return plans[0].model_copy(update={"stage": tuple(made)})


def common(parts: Mapping[str, Fixed]) -> tuple[Fixed, dict[str, Fixed]]:
    """What a person fixed in every stage alike, and besides in each. A limit is each one's own."""
    first = next(iter(parts.values()))
    all_parts = list(parts.values())
    settings = {
        k: v for k, v in first.settings.items()
        if k not in LIMITS and all(k in p.settings and p.settings[k] == v for p in all_parts)
    }  # fmt: skip
    options = {
        k: v for k, v in first.options.items()
        if all(k in p.options and p.options[k] == v for p in all_parts)
    }  # fmt: skip
    own = {
        name: Fixed(
            {k: v for k, v in part.settings.items() if k not in settings},
            {k: v for k, v in part.options.items() if k not in options},
        )
        for name, part in parts.items()
    }
    return Fixed(settings, options), own
