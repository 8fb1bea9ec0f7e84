"""`autotrain explain`: why a setting is as it is."""

from __future__ import annotations

from pathlib import Path

from autotrain import planfile


def explain(plan_file: str, key: str | None) -> int:
    """Print the reason for one setting, a section, or all; of a stage by `stage.NAME.key`."""
    from autotrain.report import explain as wording
    from autotrain.report import explain_stage

    plan = planfile.load(Path(plan_file))
    if key is not None and key.partition(".")[0] == "stage":
        print(explain_stage.explain(plan, key))
        return 0
    texts = [wording.explain(plan, key)]
    if plan.stage and key is None:
        texts.append(explain_stage.listed(plan))
    print("\n\n".join(texts))
    return 0
