"""Plans as files: TOML that a person can read and edit, and all of its faults at once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import TypeAdapter, ValidationError

from autotrain import earlier, files
from autotrain.errors import UsageError
from autotrain.near import meant, near_key, near_name, same_word
from autotrain.schema import (
    MOST_STAGES,
    PLAN_SCHEMA,
    SETTING_SECTIONS,
    BatchSection,
    Plan,
    Record,
    Stage,
    overlaid,
    setting_types,
)

# tomli_w gives every number a line of its own; pairs in a list read better on one.
_PAIR = re.compile(r"^( +)\[\n +([\d.e+-]+),\n +([\d.e+-]+),\n +\]", re.MULTILINE)
MOST_FAULTS = 100
_HEADER = """\
# A plan made by autotrain. Edit any setting; `autotrain explain {name}` says why each is as it is,
# `autotrain run {name}` carries it out.

"""
# Which code and data, and where the run goes, are the whole plan's.
_SAME_IN_ALL = (
    "schema", "made_by", "stage", "amendments", "task.template", "task.file", "task.sha256",
    "task.data", "run.name", "run.directory",
)  # fmt: skip
_SCHEDULE_NEEDS = {
    "plateau": ("factor", "patience"),
    "exponential": ("factor", "period_steps"),
    "cosine_restarts": ("period_steps",),
}


def text(plan: Plan, name: str) -> str:
    """The plan as TOML. What is off is left out."""
    return _HEADER.format(name=name) + _PAIR.sub(r"\1[\2, \3]", tomli_w.dumps(plan.plain()))


def save(plan: Plan, path: Path) -> None:
    """Write the plan so that it cannot tear. Raises AutotrainError where it cannot be written."""
    files.write_atomic(path, text(plan, path.name))


def load(path: Path, *, consistent: bool = True) -> Plan:
    """Read a plan. Raises UsageError with every fault, each `file: key: problem`.

    `consistent`: its settings must go together; else each need only be valid by itself.
    """
    data = files.read_toml(path)
    version = data.get("schema")
    if version != PLAN_SCHEMA:
        raise UsageError(
            f"{path}: schema: {version!r} is not {PLAN_SCHEMA}, the version this autotrain reads",
            hint="plan again with `autotrain plan`",
        )
    try:
        plan = Plan.model_validate(data)
    except ValidationError as error:
        found = [*_named(faults(error, Plan), data), *_stage_faults(data)]
        hint = _missing(found, data, path)
        raise UsageError(*(f"{path}: {line}" for line in found), hint=hint) from None
    if found := [*_stage_faults(data), *_amendment_faults(plan)]:
        raise UsageError(*(f"{path}: {line}" for line in found))
    inconsistent = inconsistencies(plan) if consistent else []
    follow = how_to_follow(path)
    if (plan.task.template is None) == (plan.task.file is None):
        inconsistent.append("task: give exactly one of template and file")
        follow = ""
    if inconsistent:
        raise UsageError(*(f"{path}: {line}" for line in inconsistent), hint=follow)
    return plan


def how_to_follow(path: Path) -> str:
    """What makes the rest of a plan follow an edit."""
    return f"`autotrain plan --refresh {path}` keeps what you edited; the rest follows"


def _missing(lines: list[str], data: Mapping[str, Any], path: Path) -> str:
    """What to do about settings whose lines are gone: they were decided, and may be again."""
    because = data.get("because")
    found: list[str] = []
    for line in lines:
        section, _, name = line.removesuffix(": missing").partition(".")
        reasons = because.get(section) if isinstance(because, Mapping) else None
        reason = reasons.get(name) if isinstance(reasons, Mapping) else None
        if line.endswith(": missing") and isinstance(reason, Mapping) and "value" in reason:
            found.append(f"{section}.{name} = {_literal(reason['value'])}")
    if not found:
        return ""
    key = found[0].partition(" ")[0]
    return (
        f"put it back ({', '.join(found)}); `autotrain plan --refresh {path} --set {key}=auto` "
        "then decides it anew"
    )


def _literal(value: Any) -> str:
    return tomli_w.dumps({"value": value}).partition(" = ")[2].strip()


def stages(plan: Plan) -> list[tuple[Stage, Plan]]:
    """Every stage of a plan, each with its settings as a plan by itself; often none."""
    base = _base(plan.plain())
    return [
        (stage, Plan.model_validate(overlaid(base, stage.own, stage.off))) for stage in plan.stage
    ]


def _base(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in data.items() if key not in ("stage", "amendments")}


def _stage_faults(data: Mapping[str, Any]) -> list[str]:
    """What is wrong in the stages of a file, each `stage.NAME.key: problem`."""
    lines: list[str] = []
    raw = data.get("stage", [])
    base, seen = _base(data), set[str]()
    base.pop("because", None)  # of its faults, which are many to look for, none is a stage's
    for held in raw[:MOST_STAGES] if isinstance(raw, list) else []:
        try:
            stage = Stage.model_validate(held)
        except ValidationError:  # the plan's own faults name it
            continue
        found = ["named twice"] if stage.name in seen else []
        seen.add(stage.name)
        where = f"stage.{stage.name}"
        lines += [f"{where}: {line}" for line in found]
        lines += [f"{where}.{line}" for line in _faults_of(stage, base)]
    return lines


def _faults_of(stage: Stage, base: dict[str, Any]) -> list[str]:
    """Each `key: problem`; of the plan's own faults none."""
    leaves = _keys(stage.own)
    lines = [f"{key}: is the same in every stage" for key in leaves if key in _SAME_IN_ALL]
    known = [*setting_types(), *(f"task.options.{name}" for name in _options(base))]
    for key in stage.off:
        if key not in known:
            lines.append(f"off: {key!r} is no setting of the plan{near_key(key, known)}")
    try:
        Plan.model_validate(overlaid(base, stage.own, stage.off))
    except ValidationError as error:
        parts = (*(f"{key}:" for key in stage.own), *(f"{key}." for key in leaves))
        mine = (*parts, *(f"{key}:" for key in (*leaves, *stage.off)))
        lines += [line for line in faults(error, Plan) if line.startswith(mine)]
    return lines


def _amendment_faults(plan: Plan) -> list[str]:
    """What a run's cures cannot have changed: a key that is none, a value that it cannot have."""
    lines, types = [], setting_types()
    known = {
        each.key: TypeAdapter(types[each.key]) for each in plan.amendments if each.key in types
    }
    for place, each in enumerate(plan.amendments):
        if each.key not in known:
            lines.append(f"amendments.{place}.key: {each.key!r} is no setting of the plan")
            continue
        for name in ("before", "after"):
            try:
                known[each.key].validate_python(getattr(each, name))
            except ValidationError:
                lines.append(f"amendments.{place}.{name}: no value for {each.key}")
    return lines


def _keys(own: Mapping[str, Any]) -> list[str]:
    """`section.key` for each that stands there, or the name of what is no section."""
    found: list[str] = []
    for section, held in own.items():
        inner = [f"{section}.{key}" for key in held] if isinstance(held, Mapping) else []
        found += inner or [section]
    return found


def _options(base: Mapping[str, Any]) -> Iterable[str]:
    task = base.get("task")
    options = task.get("options") if isinstance(task, Mapping) else None
    return options if isinstance(options, Mapping) else ()


def _named(lines: list[str], data: Mapping[str, Any]) -> list[str]:
    """Faults of a stage by its name, not by its place in the file."""
    raw = data.get("stage")
    names = {
        f"stage.{place}.": f"stage.{held['name']}."
        for place, held in enumerate(raw if isinstance(raw, list) else [])
        if isinstance(held, Mapping) and isinstance(held.get("name"), str)
    }
    for place, name in names.items():
        lines = [line.replace(place, name, 1) if line.startswith(place) else line for line in lines]
    return lines


def faults(error: ValidationError, record: type[Record]) -> list[str]:
    """One line for every fault pydantic found: `key: problem`, with a near name if unknown."""
    lines = []
    found = error.errors(include_url=False)
    for fault in found[:MOST_FAULTS]:
        where = fault["loc"]
        key = ".".join(str(part) for part in where)
        key = key if len(key) <= 200 else f"{key[:197]}..."
        if fault["type"] == "extra_forbidden":
            lines.append(f"{key}: unknown key{_near(record, where)}")
        elif fault["type"] == "missing":
            lines.append(f"{key}: missing")
        else:
            shown = repr(fault["input"])
            shown = shown if len(shown) <= 60 else shown[:57] + "..."
            message = fault["msg"].replace("Input should", "should").removeprefix("Value error, ")
            lines.append(f"{key}: {shown} {message}")
    more = len(found) - MOST_FAULTS
    return [*lines, f"and {more:,} more faults"] if more > 0 else lines


def _near(record: type[Record], where: tuple[int | str, ...]) -> str:
    """A suggestion among the names that the section at fault knows; of a plan's setting, among
    those of other sections too.
    """
    here: Any = record
    for part in where[:-1]:
        field = getattr(here, "model_fields", {}).get(str(part))
        here = None if field is None else field.annotation
    known = [field.alias or name for name, field in getattr(here, "model_fields", {}).items()]
    within = near_name(str(where[-1]), known)
    if record is Plan and len(where) == 2 and where[0] in SETTING_SECTIONS:
        key = ".".join(map(str, where))
        return meant(same_word(key, setting_types())) or within or near_key(key, setting_types())
    return within


def _bucket_faults(cut: BatchSection) -> list[str]:
    lines, parts = [], cut.buckets or ()
    if any(a[0] >= b[0] for a, b in pairwise(parts)):
        lines.append(f"batch.buckets: the lengths {[end for end, _ in parts]} do not rise")
    if parts[-1][1] != cut.micro_batch:
        lines.append(
            f"batch.buckets: {parts[-1][1]} of the longest samples at once is not "
            f"batch.micro_batch {cut.micro_batch}"
        )
    if cut.target_items is None:
        lines.append("batch.target_items: missing, batch.buckets needs it")
    return lines


def inconsistencies(plan: Plan) -> list[str]:
    """Settings that do not go together, each `key: problem`; what a stage has of the plan is said
    once.
    """
    lines, parts = _inconsistencies(plan), stages(plan)
    for stage, own in parts:
        lines += [f"stage.{stage.name}.{x}" for x in _inconsistencies(own) if x not in lines]
    return lines + earlier.faults([(stage.name, own.task.options) for stage, own in parts])


def _inconsistencies(plan: Plan) -> list[str]:
    """Settings that are each valid and do not go together."""
    lines = []
    cut, total = plan.batch, plan.batch.global_batch
    product = cut.micro_batch * cut.accum_steps * cut.world_size
    if total != product:
        lines.append(
            f"batch.global_batch: {total} is not micro_batch {cut.micro_batch} x accum_steps "
            f"{cut.accum_steps} x world_size {cut.world_size} = {product}"
        )
    if cut.buckets is not None:
        lines += _bucket_faults(cut)
    if plan.parallel.strategy == "shard" and cut.world_size > 1:
        parts = {
            "model.compile": plan.model.compile,
            "model.memory_format = channels_last": plan.model.memory_format == "channels_last",
        }
        lines += [f"parallel.strategy: shard does not go with {k}" for k, on in parts.items() if on]
    for key in _SCHEDULE_NEEDS.get(plan.schedule.name, ()):
        if getattr(plan.schedule, key) is None:
            lines.append(f"schedule.{key}: missing, {plan.schedule.name} needs it")
    return lines
