"""`autotrain plan --refresh`: what a person set stays, the rest is decided anew, and said."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autotrain import files, planfile
from autotrain import trust as trusting
from autotrain.commands import plan as planning
from autotrain.commands import stages
from autotrain.commands.measuring import NOTHING, Measures
from autotrain.commands.places import is_runs_own, located
from autotrain.commands.plan import Wish
from autotrain.commands.stages import Several
from autotrain.commands.streams import data_only
from autotrain.errors import AutotrainError, UsageError
from autotrain.goal import checked, parse_settings, read_template
from autotrain.plan.ledger import IN_EPOCHS
from autotrain.plan.sharing import LIMITS, limits
from autotrain.plan.stages import Fixed, common
from autotrain.plan.stale import Change, changes
from autotrain.schema import AUTO, Plan, StageWish
from autotrain.task import file_sha256

_NAMED = {
    "data": "DATA",
    "template": "--template",
    "task": "--task",
    "recipe": "--recipe",
    "stages": "--stage",
}


def refresh(
    plan_file: str | None,
    wish: Wish,
    output: str | None,
    *,
    compare: str | None = None,
    as_json: bool,
    calibrate: bool,
    trial: bool | None = None,
    measures: Measures = NOTHING,
    trust: bool = False,
) -> int:
    """Make a plan anew for the machine, data and code that there are now.

    `wish` may name another machine and more settings; `output` is the plan itself by default.
    Whatever goes wrong, the plan stays as it was.
    """
    from autotrain.report.changes import refreshed

    path = Path(_alone(plan_file, wish, compare))
    old, target = planfile.load(path, consistent=False), Path(output or path)
    _not_a_runs_own(target)
    keep = planning.look_at(target)
    pairs, own = stages.apart(wish.settings)
    settings, options = parse_settings(pairs)
    before, parts = kept_of(old, path)
    user = {**_without(before.settings, settings), **settings}
    full = _named(old, path, wish, trust=trust)
    with data_only() as out:
        source = planning.source_of(full)
        hardware = planning.hardware_of(full.machine, planning.existing(target), calibrate)
        options = {**before.options, **options}
        goal = planning.goal_of(full, source, user, options, target)
        planning.say_left_out(goal)
        wishes = _wishes(old, stages.asked(source, full.recipe, full.stages))
        several = Several(wishes, options, _over(_released(parts, settings), own))
        here = wish.machine is None
        again = _again(old, measures) if here else measures
        decisions, made = planning.made_of(
            source, hardware, goal, several, full, target, trial=trial, here=here, measures=again
        )
        aside = planning.write(made, target, keep=keep)
        planning.name_places(settings, target)
        for line in stages.write_curves(decisions, several, target):
            print(line, file=sys.stderr)
        if as_json:
            print(stages.as_json(made), file=out)
    print(
        refreshed(old, made, [*_code(old, made), *changes(old.inputs, made.inputs)]),
        file=sys.stderr,
    )
    if aside is not None:
        print(f"the plan that you had edited is kept as {aside}", file=sys.stderr)
    print(f"\nnext        autotrain run {shlex.quote(str(target))}", file=sys.stderr)
    return 0


def kept_of(plan: Plan, path: Path) -> tuple[Fixed, dict[str, Fixed]]:
    """What a person fixed, for the plan, and by name for a stage alone."""
    parts = {
        stage.name: Fixed(kept(own, path), dict(own.task.options))
        for stage, own in planfile.stages(plan)
    }
    return common(parts) if parts else (Fixed(kept(plan, path), dict(plan.task.options)), {})


def _wishes(plan: Plan, known: Sequence[StageWish]) -> tuple[StageWish, ...]:
    """The stages of the plan, in its order, with the settings that are known of them."""
    settings = {stage.name: stage.settings for stage in known}
    return tuple(
        StageWish(name=x.name, weights=x.weights, settings=settings.get(x.name, {}))
        for x in plan.stage
    )


def _released(parts: dict[str, Fixed], settings: dict[str, Any]) -> dict[str, Fixed]:
    """What was fixed for each stage, without what is let go of in all of them."""
    freed = {key for key, value in settings.items() if value is AUTO}
    freed |= {*LIMITS} if limits(settings) else set()  # one for all of them, now
    return {
        name: Fixed({k: v for k, v in part.settings.items() if k not in freed}, part.options)
        for name, part in parts.items()
    }


def _over(parts: dict[str, Fixed], own: dict[str, Fixed]) -> dict[str, Fixed]:
    """What was fixed for each stage, and over it what is now."""
    found = {**parts}
    for name, now in own.items():
        before = parts.get(name, Fixed({}, {}))
        settings = {**_without(before.settings, now.settings), **now.settings}
        found[name] = Fixed(settings, {**before.options, **now.options})
    return found


def kept(plan: Plan, path: Path) -> dict[str, Any]:
    """The settings that a person fixed, by `--set` or in the file, with their values now."""
    from autotrain.report.explain import edited, settings

    fixed = edited(plan) | {
        f"{section}.{name}"
        for section, reasons in plan.because.items()
        for name, reason in reasons.items()
        if reason.kind == "user"
    }
    values = settings(plan)
    found = {key: values[key] for key in values if key in fixed and not key.startswith("task.")}
    if Path(plan.run.directory).is_absolute() and is_runs_own(path):
        found.pop("run.directory", None)
    for steps, epochs in IN_EPOCHS.items():
        if epochs in plan.inputs.asked and steps not in edited(plan):
            found.pop(steps, None)
            found[epochs] = checked(epochs, plan.inputs.asked[epochs])
    return found


def _again(plan: Plan, measures: Measures) -> Measures:
    """What is to be measured: as asked now, and what was asked when the plan was made."""
    asked = {
        name: on or bool(plan.inputs.asked.get(name)) for name, on in measures._asdict().items()
    }
    return Measures(**asked)


def _without(found: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Less what is now said in the other way, in epochs or in steps."""
    other = IN_EPOCHS | {epochs: steps for steps, epochs in IN_EPOCHS.items()}
    gone = {other[key] for key in settings if key in other}
    return {key: value for key, value in found.items() if key not in gone}


def _alone(plan_file: str | None, wish: Wish, compare: str | None) -> str:
    """The plan to refresh. Raises UsageError where the command line names what the plan says."""
    if plan_file is None:
        raise UsageError(
            "--trust goes with --refresh", hint="--task my_task.py trusts the code that it names"
        )
    said = [flag for field, flag in _NAMED.items() if getattr(wish, field) not in (None, ())]
    if said:
        raise UsageError(
            f"--refresh and {', '.join(said)}: the plan itself says which code, data, recipe"
            " and stages",
            hint="--set and --machine go with --refresh; for other code or data plan without it",
        )
    if compare is not None:
        raise UsageError("--refresh and --compare exclude each other", hint="choose one of them")
    return plan_file


def _named(plan: Plan, path: Path, wish: Wish, *, trust: bool) -> Wish:
    """The command line that the plan stands for, on the machine that is wished for now.

    Raises AutotrainError where its code is not trusted: a plan makes no code trusted.
    """
    if plan.task.template is None and not trust:
        _insist_on_trust(trusting.task_path(plan.task, path.resolve().parent), path)
    return wish_of(plan, path, wish)


def wish_of(plan: Plan, path: Path, wish: Wish) -> Wish:
    """`wish`, with the code, data, recipe and stages that the plan was made of."""
    folder = path.resolve().parent
    file = trusting.task_path(plan.task, folder)
    return wish._replace(
        data=located(plan.task.data, folder),
        template=plan.task.template,
        task=str(file) if plan.task.template is None else None,
        recipe=_recipe(plan, folder, file),
        stages=tuple(plan.inputs.asked.get("stages", ())),
    )


def _insist_on_trust(file: Path, path: Path) -> None:
    if file_sha256(file) not in trusting.trusted():
        raise AutotrainError(
            f"{file}: this code is new, or has changed, and was not trusted on this machine",
            f"read it, then `autotrain plan --refresh {path} --trust`",
        )


def _recipe(plan: Plan, folder: Path, file: Path) -> str | None:
    """The recipe as it was named; a plan of an older version knows its name alone."""
    named = plan.inputs.asked.get("recipe")
    if isinstance(named, str):
        return str(folder / named) if (folder / named).is_file() else named
    if plan.recipe in files.shipped_names("recipes"):
        return plan.recipe
    beside = file.parent / "template.toml"
    own = read_template(file.parent).name if beside.is_file() else "rules"
    if plan.recipe in (own, "rules"):
        return None
    raise AutotrainError(
        f"recipe: {plan.recipe!r} was a file, and this plan does not say which",
        "plan again without --refresh, with --recipe FILE",
    )


def _code(old: Plan, made: Plan) -> list[Change]:
    before, now = old.task.sha256, made.task.sha256
    texts = (f"sha256 {before[:12]}...", f"{now[:12]}...")
    return [Change("task code", *texts)] if before != now else []


def _not_a_runs_own(target: Path) -> None:
    """Raise UsageError for the copy in a run's folder: it says what ran."""
    if is_runs_own(target):
        raise UsageError(f"{target}: says what ran, and stays", hint="another place with -o")
