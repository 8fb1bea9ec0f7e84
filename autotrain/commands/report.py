"""`autotrain report`: a run's summary and pictures from its events, also after a crash."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from autotrain import files, planfile
from autotrain.errors import AutotrainError
from autotrain.schema import Plan


def report(directory: str, *, as_json: bool) -> int:
    """Write report.json and report.png of a run's folder again; print the summary."""
    folder = Path(directory)
    if not (folder / "plan.toml").is_file():
        raise AutotrainError(f"{folder}: holds no run", "name a folder such as runs/my-task")
    plan = planfile.load(folder / "plan.toml")
    if plan.stage:
        data, text = write_stages(plan, folder)
        print(json.dumps(data, indent=1) if as_json else text)
        return 0
    data, text = write(plan, folder, str(folder / "plan.toml"))
    print(json.dumps(data, indent=1) if as_json else text)
    return 0


def write_stages(plan: Plan, folder: Path) -> tuple[dict[str, Any], str]:
    """Write report.json and report.png of every stage, and report.json of them all."""
    from autotrain.report import stages

    for (_, own), place in zip(planfile.stages(plan), stages.places(plan, folder), strict=True):
        if (place / "events.jsonl").is_file():
            write(own, place, str(folder / "plan.toml"))
    return summarise(plan, folder, str(folder / "plan.toml"))


def summarise(plan: Plan, folder: Path, plan_path: str) -> tuple[dict[str, Any], str]:
    """Write report.json of all stages; returns it and its text."""
    from autotrain.report import stages

    data = stages.report_json(plan, folder)
    try:
        files.write_atomic(folder / "report.json", json.dumps(data, indent=1) + "\n")
    except (OSError, AutotrainError) as error:
        print(f"warning: the report is not written: {error}", file=sys.stderr)
    return data, stages.text(data, folder, plan_path)


def write(plan: Plan, folder: Path, plan_path: str) -> tuple[dict[str, Any], str]:
    """Write report.json and report.png; returns the report and its text.

    A report that cannot be written is said, never raised: the run itself is what counts.
    """
    from autotrain.report import figures, result, summary

    found = result.collect(folder / "events.jsonl", plan)
    data = summary.report_json(found, plan)
    try:
        files.write_atomic(folder / "report.json", json.dumps(data, indent=1) + "\n")
        figures.write_png(found, plan, folder / "report.png")
    except (OSError, AutotrainError) as error:
        print(f"warning: the report is not written: {error}", file=sys.stderr)
    return data, summary.summary_text(found, plan, folder, plan_path)
