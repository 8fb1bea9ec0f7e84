"""`autotrain report RUN1 RUN2 ...`: what several runs came to, and in what they differ."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from autotrain import planfile
from autotrain.commands.report import named, plan_of, uncollected
from autotrain.errors import AutotrainError, UsageError
from autotrain.report import document, result, stages, versus
from autotrain.report.versus import One
from autotrain.schema import Plan

_WIDTH = 120


def compare(directories: Sequence[str], output: str | None, *, as_json: bool) -> int:
    """Print the comparison; with `output` write a page with their curves too. No run is changed."""
    folders = list(dict.fromkeys(map(Path, directories)))
    if len(folders) < 2:
        raise UsageError(f"{folders[0]}: is named twice", hint="name two runs")
    runs = [one for folder in folders for one in _of(folder)]
    if output is not None:
        from autotrain.report.page import several

        several.write_html(runs, Path(output))
    if as_json:
        print(json.dumps(versus.content(runs), indent=1, default=str))
        return 0
    versus.show(runs, sys.stdout, shutil.get_terminal_size((_WIDTH, 24)).columns)
    best = versus.better(runs)
    print(f"\nnext        autotrain report {best.name if best else runs[0].name}", file=sys.stderr)
    return 0


def _of(folder: Path) -> Iterator[One]:
    """The run in a folder, or its stages."""
    plan = plan_of(folder)
    if not plan.stage:
        yield _one(folder, plan)
        return
    found = zip(planfile.stages(plan), stages.places(plan, folder), strict=True)
    begun = [(own, place) for (_, own), place in found if (place / "events.jsonl").is_file()]
    if not begun:
        raise AutotrainError(f"{folder}: no stage has begun", "name a folder such as runs/my-task")
    for own, place in begun:
        yield _one(place, own)


@uncollected()
def _one(folder: Path, plan: Plan) -> One:
    found = result.collect(folder / "events.jsonl", plan)
    said = document.report(found, plan, named(folder / "plan.toml"))
    return One(str(folder), plan, found, said)
