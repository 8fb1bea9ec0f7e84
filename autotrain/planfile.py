"""Plans as files: TOML that a person can read and edit, and all of its faults at once."""

from __future__ import annotations

import difflib
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import ValidationError

from autotrain import files
from autotrain.errors import UsageError
from autotrain.schema import PLAN_SCHEMA, BatchSection, Plan, Record

# tomli_w gives every number a line of its own; pairs in a list read better on one.
_PAIR = re.compile(r"^( +)\[\n +([\d.e+-]+),\n +([\d.e+-]+),\n +\]", re.MULTILINE)
_HEADER = """\
# A plan made by autotrain. Edit any setting; `autotrain explain {name}` says why each is as it is,
# `autotrain run {name}` carries it out.

"""
_SCHEDULE_NEEDS = {
    "plateau": ("factor", "patience"),
    "exponential": ("factor", "period_steps"),
    "cosine_restarts": ("period_steps",),
}


def text(plan: Plan, name: str) -> str:
    """The plan as TOML. What is off is left out."""
    data = plan.model_dump(mode="json", by_alias=True, exclude_none=True)
    for reasons in data["because"].values():
        for key, reason in reasons.items():
            reasons[key] = {name: part for name, part in reason.items() if part not in ("", [])}
    return _HEADER.format(name=name) + _PAIR.sub(r"\1[\2, \3]", tomli_w.dumps(data))


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
        raise UsageError(*(f"{path}: {line}" for line in faults(error, Plan))) from None
    inconsistent = _inconsistencies(plan) if consistent else []
    follow = f"`autotrain plan --refresh {path}` keeps what you edited; the rest follows"
    if (plan.task.template is None) == (plan.task.file is None):
        inconsistent.append("task: give exactly one of template and file")
        follow = ""
    if inconsistent:
        raise UsageError(*(f"{path}: {line}" for line in inconsistent), hint=follow)
    return plan


def faults(error: ValidationError, record: type[Record]) -> list[str]:
    """One line for every fault pydantic found: `key: problem`, with a near name if unknown."""
    lines = []
    for fault in error.errors(include_url=False):
        where = fault["loc"]
        key = ".".join(str(part) for part in where)
        if fault["type"] == "extra_forbidden":
            lines.append(f"{key}: unknown key{_near(record, where)}")
        elif fault["type"] == "missing":
            lines.append(f"{key}: missing")
        else:
            shown = repr(fault["input"])
            shown = shown if len(shown) <= 60 else shown[:57] + "..."
            message = fault["msg"].replace("Input should", "should").removeprefix("Value error, ")
            lines.append(f"{key}: {shown} {message}")
    return lines


def near_name(wrong: str, known: list[str]) -> str:
    """` (did you mean "...")`, or nothing."""
    close = difflib.get_close_matches(wrong, known, n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _near(record: type[Record], where: tuple[int | str, ...]) -> str:
    """A suggestion among the names that the section at fault knows."""
    here: Any = record
    for part in where[:-1]:
        field = getattr(here, "model_fields", {}).get(str(part))
        here = None if field is None else field.annotation
    known = [field.alias or name for name, field in getattr(here, "model_fields", {}).items()]
    return near_name(str(where[-1]), known)


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
    for key in _SCHEDULE_NEEDS.get(plan.schedule.name, ()):
        if getattr(plan.schedule, key) is None:
            lines.append(f"schedule.{key}: missing, {plan.schedule.name} needs it")
    return lines
