"""Stages of a plan: where they come from, and every one planned by itself."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from autotrain import earlier, planfile
from autotrain.commands.decide import Decision, Source, decide
from autotrain.commands.measuring import Measures, write_curve
from autotrain.errors import AutotrainError, UsageError
from autotrain.goal import check_stages, parse_settings, parse_value
from autotrain.near import near_name
from autotrain.plan import stages as pure
from autotrain.plan.stages import Fixed, adopted
from autotrain.recipe import read_recipe
from autotrain.schema import Goal, HardwareProfile, Plan, Scalar, StageWish, whole

_KEY = "stage."
# Between settings of one flag; a value may hold commas itself: betas=[0.9,0.99].
_NEXT = re.compile(r",(?=\s*[A-Za-z_][\w.]*\s*=)")


class Several(NamedTuple):
    """The stages wanted, and what a person fixed: options for all of them, or anything for one."""

    stages: tuple[StageWish, ...]
    options: dict[str, Scalar]
    own: dict[str, Fixed]


def asked(source: Source, recipe: str | None, flags: Sequence[str]) -> tuple[StageWish, ...]:
    """The stages of the template, over them those of the recipe, over them those of `--stage`."""
    found = source.template.stage if source.template is not None else ()
    if recipe is not None:
        found = adopted(found, read_recipe(recipe).stages)
    return adopted(found, _flags(flags))


def _flags(flags: Sequence[str]) -> list[StageWish]:
    """`NAME` or `NAME:key=value,...`; `weights` is a key too. Raises UsageError, all at once."""
    found: list[StageWish] = []
    problems: list[str] = []
    for flag in flags:
        name, _, said = flag.partition(":")
        pairs = [pair.partition("=") for pair in _NEXT.split(said) if pair.strip()]
        problems += [
            f"--stage {flag}: {k}: expected key=value" for k, equals, _ in pairs if not equals
        ]
        settings = {key.strip(): parse_value(value) for key, _, value in pairs}
        weights = {"weights": settings.pop("weights")} if "weights" in settings else {}
        data = {"name": name.strip(), "settings": settings, **weights}
        try:
            found.append(StageWish.model_validate(data))
        except ValidationError as error:
            lines = planfile.faults(error, StageWish)
            problems += [f"--stage {flag}: {line}" for line in lines]
    problems += [f"--stage: {line}" for line in check_stages(found)]
    if problems:
        raise UsageError(*problems, hint="such as --stage ctc:train.epochs=5,task.loss=ctc")
    return found


def apart(pairs: Sequence[str]) -> tuple[list[str], dict[str, Fixed]]:
    """`--set` pairs for all stages, and by name what `stage.NAME.key=value` fixes for one."""
    common = [pair for pair in pairs if not pair.strip().startswith(_KEY)]
    mine: dict[str, list[str]] = {}
    problems: list[str] = []
    for pair in pairs:
        if pair in common:
            continue
        name, dot, rest = pair.strip().removeprefix(_KEY).partition(".")
        if not dot or "=" in name:
            problems.append(f"--set {pair}: expected stage.NAME.key=value")
        mine.setdefault(name, []).append(rest)
    own: dict[str, Fixed] = {}
    for name, rest_pairs in mine.items():
        try:
            own[name] = Fixed(*parse_settings(rest_pairs))
        except UsageError as error:
            problems += [x.replace("--set ", f"--set stage.{name}.", 1) for x in error.faults]
    if problems:
        raise UsageError(*problems, hint="such as --set stage.ctc.train.epochs=5")
    return common, own


def goals(goal: Goal, several: Several) -> list[Goal]:
    """A goal for each stage; without stages the one that there is. Raises UsageError."""
    names = [stage.name for stage in several.stages]
    unknown = [name for name in several.own if name not in names]
    if unknown:
        raise UsageError(
            *(f"--set stage.{x}...: no such stage{near_name(x, names)}" for x in unknown),
            hint=f"stages: {', '.join(names)}" if names else "the plan has none; see --stage",
        )
    made = pure.goals(goal, several.stages, several.options, several.own) if names else [goal]
    each = zip(names or [""], (one.task.options for one in made), strict=True)
    if faults := earlier.faults([*each]):
        raise UsageError(*faults, hint=f"stages: {', '.join(names)}" if names else "see --stage")
    return made


def decide_each(
    source: Source,
    hardware: HardwareProfile,
    goals: Sequence[Goal],
    several: Several,
    *,
    trial: bool | None,
    here: bool,
    measures: Measures,
) -> list[Decision]:
    """A plan for each goal, each by the same way as a plan without stages."""
    found: list[Decision] = []
    for place, goal in enumerate(goals):
        if any(measures) and (said := _anew(several.stages, place)):
            print(said, file=sys.stderr)
        try:
            made = decide(
                source,
                hardware,
                goal,
                trial=trial,
                here=here,
                measures=measures,
                before=found[-1] if found else None,
            )
        except AutotrainError as error:
            if not several.stages:
                raise
            raise _of_stage(error, several.stages[place].name) from error
        found.append(made)
    return found


def _anew(stages: Sequence[StageWish], place: int) -> str:
    """What a measurement for this stage does not know; nothing where there is nothing."""
    if not place or stages[place].weights == "none":
        return ""
    name, before = stages[place].name, stages[place - 1].name
    return (
        f"stage {name} is measured with fresh weights: those of {before}, with which it will "
        "begin, are not there before that has run"
    )


def _of_stage(error: AutotrainError, name: str) -> AutotrainError:
    """The same error, with the stage's name before each of its lines."""
    lines = error.faults if isinstance(error, UsageError) else (error.message,)
    named = [f"stage {name}: {line}" for line in lines]
    if isinstance(error, UsageError):
        return UsageError(*named, hint=error.hint)
    return type(error)(named[0], error.hint)


def write_curves(made: Sequence[Decision], several: Several, target: Path) -> list[str]:
    """What was measured of learning rates, beside the plan, each stage's by its name."""
    found = []
    for place, decision in enumerate(made):
        if decision.model.range_test is not None:
            named = f"{target.stem}.{several.stages[place].name}" if several.stages else target.stem
            place_of = target.with_name(named + target.suffix)
            found.append("curve: {}, {}".format(*write_curve(decision.model.range_test, place_of)))
    return found


def as_json(plan: Plan) -> str:
    """The plan for a program: with stages, every one whole under `stages`, and their sum."""
    data = plan.model_dump(mode="json", by_alias=True)
    if plan.stage:
        del data["stage"]
        parts = planfile.stages(plan)
        data["stages"] = [
            {"name": stage.name, "weights": stage.weights}
            | own.model_dump(mode="json", by_alias=True)
            for stage, own in parts
        ]
        seconds = whole([own.predicted.run_seconds for _, own in parts])
        data["total"] = {"run_seconds": seconds.model_dump()}
    return json.dumps(data, indent=1)
