"""`autotrain explain`: why a setting is as it is."""

from __future__ import annotations

from pathlib import Path

from autotrain import planfile


def explain(plan_file: str, key: str | None) -> int:
    """Print the reason for one setting, a section, or all."""
    from autotrain.report import explain as wording

    print(wording.explain(planfile.load(Path(plan_file)), key))
    return 0
