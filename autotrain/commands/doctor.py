"""`autotrain doctor`: is this machine, and what is installed on it, fit to train?"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

from autotrain.doctor import paste, table
from autotrain.doctor.checks import Finding, examine
from autotrain.doctor.scene import Scene


def doctor(plan: str | None, *, step: bool, as_json: bool, as_block: bool) -> int:
    """Check, print, and name what mends; 1 where something fails."""
    begun = perf_counter()
    scene = Scene(where=_where(plan), named=plan, step=step)
    if step and sys.stderr.isatty():
        print("looking, and training for two seconds on each device ...", file=sys.stderr)
    findings = list(examine(scene))
    failed = any(found.result.status == "fail" for found in findings)
    if as_json:
        print(json.dumps(_record(findings, perf_counter() - begun), indent=1))
    elif as_block:
        print(paste.block(findings, scene))
    else:
        table.show(findings, sys.stdout)
    after = table.summary(findings)
    print(f"\n{after}\n\nnext: {_next(plan, failed=failed)}", file=sys.stderr)
    return 1 if failed else 0


def plainly(arguments: Sequence[str]) -> int:
    """The same command where the library that reads command lines does not load."""
    parser = argparse.ArgumentParser(prog="autotrain doctor")
    parser.add_argument("--for", dest="plan", metavar="PLAN")
    for flag in ("--json", "--paste", "--no-step"):
        parser.add_argument(flag, action="store_true")
    told = parser.parse_args(arguments)
    return doctor(told.plan, step=not told.no_step, as_json=told.json, as_block=told.paste)


def _where(plan: str | None) -> Path:
    """The folder that runs go to. Raises UsageError for a malformed plan."""
    if plan is None:
        try:
            return Path.cwd()
        except OSError:  # it was removed
            return Path(os.environ.get("PWD") or os.sep)
    try:
        from autotrain import planfile
        from autotrain.commands.places import directory_of
    except ImportError:  # which the checks will tell
        return Path(plan).resolve().parent
    return directory_of(planfile.load(Path(plan)), Path(plan))


def _record(findings: Sequence[Finding], seconds: float) -> dict[str, object]:
    checks = [
        {
            "theme": theme, "name": name, "status": result.status, "detail": result.detail,
            "mend": result.mend,
        }
        for theme, name, result in findings
    ]  # fmt: skip
    counts = table.count(findings)
    about = paste.about(findings)
    return {
        "ok": not counts["fail"], "counts": counts, "seconds": round(seconds, 2), "about": about,
        "checks": checks,
    }  # fmt: skip


def _next(plan: str | None, *, failed: bool) -> str:
    if failed:
        return (
            "mend what failed, then `autotrain doctor`; `autotrain doctor --paste` to ask for help"
        )
    return f"autotrain run {plan}" if plan is not None else "autotrain plan DATA"
