"""`autotrain plan`: probe the machine, trace the model, decide, and write the plan."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from autotrain import files, planfile, trust
from autotrain.commands import stages
from autotrain.commands.decide import Decision, Source
from autotrain.commands.measuring import NOTHING, Measures
from autotrain.commands.shared import shared
from autotrain.commands.stages import Several
from autotrain.commands.streams import data_only
from autotrain.errors import AutotrainError, UsageError
from autotrain.goal import (
    Template,
    parse_settings,
    read_template,
    taken_and_left,
    template_for,
)
from autotrain.plan.ledger import IN_EPOCHS
from autotrain.plan.notes import left_out
from autotrain.plan.stages import together
from autotrain.recipe import read_recipe
from autotrain.schema import AUTO, DatasetProfile, Goal, HardwareProfile, Plan, Scalar, TaskSection
from autotrain.task import file_sha256


class Wish(NamedTuple):
    """What was asked for on the command line."""

    data: str | None
    template: str | None
    task: str | None
    machine: str | None
    recipe: str | None
    settings: tuple[str, ...]
    stages: tuple[str, ...] = ()


def plan(
    wish: Wish,
    output: str,
    *,
    as_json: bool,
    calibrate: bool,
    trial: bool | None = None,
    measures: Measures = NOTHING,
) -> int:
    """Make a plan, write it to `output`, and print what it says."""
    from autotrain.report.plan_text import plan_summary

    pairs, own = stages.apart(wish.settings)
    settings, options = parse_settings(pairs)
    target = Path(output)
    keep = look_at(target)
    with data_only() as out:
        source = source_of(wish)
        hardware = hardware_of(wish.machine, existing(target), calibrate)
        goal = goal_of(wish, source, settings, options, target)
        several = Several(stages.asked(source, wish.recipe, wish.stages), options, own)
        here = wish.machine is None
        decisions, made = made_of(
            source, hardware, goal, several, wish, target, trial=trial, here=here, measures=measures
        )
        kept = write(made, target, keep=keep)
        name_places(settings, target)
        for line in stages.write_curves(decisions, several, target):
            print(line, file=sys.stderr)
        if as_json:
            say_left_out(goal)
            print(stages.as_json(made), file=out)
        else:
            dataset, model, _ = decisions[0]
            print(plan_summary(made, hardware, dataset, model, output), file=sys.stderr)
    if kept is not None:
        print(f"the plan that you had edited is kept as {kept}", file=sys.stderr)
    return 0


def name_places(settings: Mapping[str, Any], target: Path) -> None:
    """Who says on the command line where a plan is to write has named the place."""
    said = [settings[key] for key in trust.PLACES if isinstance(settings.get(key), str)]
    trust.trust_places(said, target.parent)


def made_of(
    source: Source,
    hardware: HardwareProfile,
    goal: Goal,
    several: Several,
    wish: Wish,
    target: Path,
    *,
    trial: bool | None,
    here: bool,
    measures: Measures,
) -> tuple[list[Decision], Plan]:
    """What was decided, for each stage if there are any, and the one plan of it all."""
    goals = stages.goals(goal, several)
    found = stages.decide_each(
        source, hardware, goals, several, trial=trial, here=here, measures=measures
    )
    names = [stage.name for stage in several.stages]
    goals, found = shared(hardware, goal, names, goals, found)
    plans = [
        with_asked(decision.plan, wish, own.user, target, measures)
        for decision, own in zip(found, goals, strict=True)
    ]
    return found, together(several.stages, plans) if several.stages else plans[0]


def with_asked(
    made: Plan, wish: Wish, settings: dict[str, Any], target: Path, measures: Measures
) -> Plan:
    """The plan with what it does not say by itself of how it was asked for: a refresh needs it.

    That is the recipe's name or file, the stages of the command line, what was to be measured, and
    what was set in epochs and stands there in steps.
    """
    asked: dict[str, Any] = {key: settings[key] for key in IN_EPOCHS.values() if key in settings}
    asked = {key: value for key, value in asked.items() if value is not None}
    asked |= {name: True for name, on in measures._asdict().items() if on}
    asked |= {"stages": list(wish.stages)} if wish.stages else {}
    if wish.recipe is not None:
        is_file = wish.recipe.endswith(".toml")
        folder = target.parent.resolve()
        asked["recipe"] = relative(Path(wish.recipe), folder) if is_file else wish.recipe
    return made.model_copy(update={"inputs": made.inputs.model_copy(update={"asked": asked})})


def source_of(wish: Wish) -> Source:
    """Which code and data: as named, or by what the data looks like."""
    from autotrain.probe.dataset import probe_dataset

    if wish.template is not None and wish.task is not None:
        raise UsageError("--template and --task exclude each other", hint="choose one of them")
    if wish.task is not None:
        path = Path(wish.task)
        trust.trust(path)
        beside = (path.parent / "template.toml").is_file()
        template = read_template(path.parent) if beside else None
        return Source(path, template, False, wish.data or _own_data(template, path.parent), None)
    if wish.template is None and wish.data is None:
        raise UsageError(
            "nothing to plan for", hint="autotrain plan DATA, or --task my_task.py, or --template"
        )
    dataset = probe_dataset(Path(wish.data)) if wish.data is not None else None
    name = wish.template or _template_by_data(dataset)
    path = trust.template_path(name)
    template = read_template(path.parent)
    data = wish.data or _own_data(template, path.parent)
    if dataset is None and data is not None:
        dataset = probe_dataset(Path(data))
    if dataset is None and template.kind != "task":
        raise UsageError(
            f"template {name} needs data", hint=f"autotrain plan DATA --template {name}"
        )
    if dataset is not None and template.kind not in ("task", dataset.kind):
        raise AutotrainError(
            f"{data}: {dataset.took_for or dataset.kind}; template {name} takes {template.kind}",
            "name other data or another template",
        )
    return Source(path, template, True, data, dataset)


def _own_data(template: Template | None, folder: Path) -> str | None:
    return str(folder / template.data) if template is not None and template.data else None


def _template_by_data(dataset: DatasetProfile | None) -> str:
    assert dataset is not None
    name = template_for(dataset.kind)
    if name is None:
        raise AutotrainError(
            f"{dataset.root}: {dataset.took_for or dataset.kind}: no template trains on this yet",
            "write a task of your own: autotrain new my-task, then --task my-task/task.py",
        )
    return name


def hardware_of(machine: str | None, where: Path, calibrate: bool) -> HardwareProfile:
    """The machine named, or this one."""
    from autotrain.probe.hardware import load_machine, probe_hardware

    if machine is not None:
        return load_machine(machine)
    return probe_hardware(where, calibrate=calibrate)


def goal_of(
    wish: Wish,
    source: Source,
    settings: dict[str, Any],
    options: dict[str, Scalar],
    target: Path,
) -> Goal:
    """What the user wants of a plan that goes to `target`."""
    recipes = [source.template.recipe()] if source.template is not None else []
    left: dict[str, Scalar] = {}
    if wish.recipe is not None:
        wanted = read_recipe(wish.recipe)
        recipes += wanted.recipes
        taken, left = taken_and_left(source.task_file, wanted.options)
        options = {**taken, **options}
    folder = target.parent.resolve()
    template = source.template.name if source.template and source.shipped else None
    section = TaskSection.model_validate(
        {
            "template": template,
            "file": None if source.shipped else relative(source.task_file, folder),
            "sha256": file_sha256(source.task_file),
            "data": _portable(source.data, folder),
            "options": options,
        }
    )
    own = target.stem if target.stem != "plan" else template or _own_name(source)
    user = {key: value for key, value in settings.items() if value is not AUTO}
    return Goal(task=section, recipes=tuple(recipes), left_out=left, user=user, name=_run_name(own))


def say_left_out(goal: Goal) -> None:
    """What of the recipe does not apply, where no notes of a plan are shown."""
    if goal.left_out:
        print(f"warning: {left_out(goal.recipes[-1], goal.left_out)}", file=sys.stderr)


def _own_name(source: Source) -> str:
    """After the task file, or after its folder where the file is called task.py."""
    path = source.task_file.resolve()
    return path.parent.name if path.stem == "task" else path.stem


def _run_name(name: str) -> str:
    """A folder name on every system: what is not ASCII or may mean something becomes a dash."""
    kept = (c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in name)
    return "".join(kept).lstrip("._-")[:100] or "run"


def relative(path: Path, folder: Path) -> str:
    """As a plan in `folder` names it: relative where it lies below, else absolute."""
    full = path.resolve()
    return os.fspath(full.relative_to(folder)) if full.is_relative_to(folder) else str(full)


def _portable(data: str | None, folder: Path) -> str | None:
    return relative(Path(data), folder) if data is not None and Path(data).exists() else data


def existing(target: Path) -> Path:
    """The nearest folder above a file that there is, or is to be."""
    folder = target.parent.resolve()
    return next(place for place in (folder, *folder.parents) if place.exists())


def look_at(target: Path) -> bool:
    """Whether a plan that a person edited lies where the new one goes.

    Raises AutotrainError where the new one cannot be written, or would replace no plan.
    """
    from autotrain.report.explain import edited

    folder = existing(target)
    if not folder.is_dir():
        raise AutotrainError(f"{folder}: not a folder", "choose another place with -o")
    if not os.access(folder, os.W_OK):
        raise AutotrainError(f"{folder}: not writable", "choose another place with -o")
    if not target.exists():
        return False
    try:
        plan = target.is_file() and "made_by" in files.read_toml(target)
    except UsageError:  # a plan with a slip of the pen, perhaps: what it says is not ours to lose
        plan = False
    if not plan:
        raise AutotrainError(f"{target}: exists and is not a plan", "choose another name with -o")
    try:
        old = planfile.load(target)
        return any(map(edited, (old, *(plan for _, plan in planfile.stages(old)))))
    except UsageError:
        return True


def write(made: Plan, target: Path, *, keep: bool) -> Path | None:
    """Save the plan; returns where the one before it is kept, if it is to be."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AutotrainError(
            f"{target.parent}: {error.strerror}", "choose another place with -o"
        ) from None
    aside = files.aside(target) if keep else None
    if aside is not None:
        files.write_atomic(aside, target.read_bytes())
    planfile.save(made, target)
    return aside
