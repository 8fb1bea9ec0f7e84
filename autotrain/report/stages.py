"""What the stages of a plan came to, each in a line; their own reports say more."""

from __future__ import annotations

import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any

from autotrain import planfile
from autotrain.report import document, result
from autotrain.report.diagnosis import NAMES, Place
from autotrain.report.document import StageReport, StagesReport
from autotrain.report.lines import STOPS
from autotrain.report.text import labelled, literal, number, plural
from autotrain.schema import Plan
from autotrain.units import seconds_text

# A stage that ended so has gone its whole way.
DONE = ("finished", "early_stop")


def places(plan: Plan, root: Path) -> list[Path]:
    """The folder of each stage's run, in turn."""
    return [root / f"{number}-{stage.name}" for number, stage in enumerate(plan.stage, start=1)]


def report_json(plan: Plan, root: Path, place: Place) -> dict[str, Any]:
    """What `report.json` of a run with stages holds: of each stage that has begun the outcome.

    `place` is what commands call the whole plan.
    """
    stages = []
    for (stage, own), folder in zip(planfile.stages(plan), places(plan, root), strict=True):
        if not (folder / "events.jsonl").is_file():
            continue
        found = result.collect(folder / "events.jsonl", own)
        said = document.report(found, own, place._replace(stage=stage.name))
        kept = {each.name: getattr(said, each.name) for each in fields(StageReport)[2:]}
        stages.append(StageReport(stage.name, folder.name, **kept))
    content = StagesReport(
        document.REPORT_SCHEMA,
        plan.run.name,
        plan.made_by,
        len(plan.stage),
        sum(stage.seconds for stage in stages),
        stages,
    )
    return document.as_json(content)


def text(data: dict[str, Any], root: Path, path: str = "plan.toml") -> str:
    """One line each, and what to type next; `path` is the plan that was carried out."""
    lines = []
    for stage in data["stages"]:
        stopped, best = stage["stopped"], stage["best"]
        how = STOPS[stopped["reason"]] if stopped else "not ended"
        said = f"{stage['stage']}: {how}; {plural(stage['steps'], 'step')}"
        said += f" in {seconds_text(stage['seconds'])}"
        if best and best["value"] is not None:
            said += f", best {best['metric']} {number(best['value'])} at step {best['step']:,}"
        lines.append(f"{said} ({root / stage['path']}): {NAMES[stage['diagnosis']['verdict']]}")
    left = data["planned_stages"] - len(data["stages"])
    if left:
        lines.append(f"{plural(left, 'stage')} not begun")
    ends = [stage["stopped"]["reason"] if stage["stopped"] else None for stage in data["stages"]]
    whole = not left and all(end in DONE for end in ends)
    resume = f"autotrain run {shlex.quote(path)} --resume"
    told = [labelled("" if i else "stages", line) for i, line in enumerate(lines)]
    where = shlex.quote(str(root))
    curves = [literal("curves", f"tensorboard --logdir {where}")] if whole else []
    follow = f"autotrain evaluate {where}" if whole else resume
    return "\n".join([*told, "", *curves, literal("next", follow)])
