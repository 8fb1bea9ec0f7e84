"""`autotrain report`: what a run came to, from its events, also after a crash; runs compared."""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from autotrain import files, planfile
from autotrain.commands.places import is_runs_own
from autotrain.errors import AutotrainError, UsageError
from autotrain.report.diagnosis import Place
from autotrain.schema import Plan

_EVENTS = "events.jsonl"


def report(directories: Sequence[str], output: str | None, *, as_json: bool) -> int:
    """Write the report of a run's folder again and print its summary; of several, compare them."""
    if len(directories) > 1:
        from autotrain.commands import versus

        return versus.compare(directories, output, as_json=as_json)
    if output is not None:
        raise UsageError("-o is for a page that compares runs", hint="name two runs, or leave it")
    folder = Path(directories[0])
    plan = plan_of(folder)
    path = folder / "plan.toml"
    data, text = write_stages(plan, folder) if plan.stage else write(plan, folder, path)
    print(json.dumps(data, indent=1) if as_json else text)
    gc.freeze()  # goes with the process: to look through it once more takes a tenth of a second
    return 0


def plan_of(folder: Path) -> Plan:
    """The plan that ran there. Raises AutotrainError where no run has begun."""
    if not (folder / "plan.toml").is_file():
        raise AutotrainError(f"{folder}: holds no run", "name a folder such as runs/my-task")
    return planfile.load(folder / "plan.toml")


def write_stages(plan: Plan, folder: Path) -> tuple[dict[str, Any], str]:
    """Write the report of every stage, and report.json of them all."""
    from autotrain.report import stages

    for (_, own), place in zip(planfile.stages(plan), stages.places(plan, folder), strict=True):
        if (place / _EVENTS).is_file():
            write(own, place, folder / "plan.toml")
    return summarise(plan, folder, folder / "plan.toml")


def summarise(plan: Plan, folder: Path, plan_path: Path) -> tuple[dict[str, Any], str]:
    """Write report.json of all stages; returns it and its text."""
    from autotrain.report import stages

    data = stages.report_json(plan, folder, named(folder / "plan.toml"))
    _written(lambda: files.write_atomic(folder / "report.json", _json(data)))
    return data, stages.text(data, folder, str(plan_path))


@contextmanager
def uncollected() -> Iterator[None]:
    """Garbage waits: else all of many log points is looked through for it again and again."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@uncollected()
def write(plan: Plan, folder: Path, plan_path: Path) -> tuple[dict[str, Any], str]:
    """Write report.json, report.html and report.png; returns the report and its text.

    `plan_path`: the plan that the run was started from. What cannot be written is said, never
    raised: the run itself is what counts.
    """
    from autotrain.report import document, figures, page, result, summary

    found = result.collect(folder / _EVENTS, plan)
    stage = found.started.stage if found.started is not None else None
    whole = folder.parent if stage is not None else folder
    place = named(whole / "plan.toml")._replace(stage=stage)
    said = document.report(found, plan, place)
    data = document.as_json(said)
    for each in (
        lambda: files.write_atomic(folder / "report.json", _json(data)),
        lambda: page.write_html(said, found, plan, folder / "report.html"),
        lambda: figures.write_png(found, plan, folder / "report.png"),
    ):
        if not _written(each):
            break
    return data, summary.summary_text(said, found, plan, folder, str(plan_path))


def named(plan_path: Path) -> Place:
    """What commands call a plan; of a run's own copy no refresh is made in its place."""
    shown = str(plan_path)
    if plan_path.is_absolute():
        try:
            near = os.path.relpath(plan_path)
        except ValueError:  # another drive
            near = shown
        shown = near if not near.startswith("..") else shown
    return Place(shown, "plan.toml" if is_runs_own(plan_path) else None)


def _json(data: dict[str, Any]) -> str:
    return json.dumps(data, indent=1) + "\n"


def _written(each: Callable[[], None]) -> bool:
    try:
        each()
    except (OSError, AutotrainError) as error:
        print(f"warning: the report is not written: {error}", file=sys.stderr)
        return False
    return True
