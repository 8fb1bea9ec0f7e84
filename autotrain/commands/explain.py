"""`autotrain explain`: why a setting is as it is."""

from __future__ import annotations

from pathlib import Path

from autotrain import planfile


def explain(plan_file: str, key: str | None) -> int:
    """Print the reason for one setting, a section, or all; of a stage by `stage.NAME.key`."""
    from autotrain.report import explain as wording
    from autotrain.report import explain_stage

    path = Path(plan_file)
    plan = planfile.load(path, consistent=False)
    if key is not None and key.partition(".")[0] == "stage":
        texts = [explain_stage.explain(plan, key)]
    else:
        texts = [wording.explain(plan, key)]
        texts += [explain_stage.listed(plan)] if plan.stage and key is None else []
    faults = _about(key, planfile.inconsistencies(plan))
    if faults:
        texts.append(wording.must_follow(faults, planfile.how_to_follow(path)))
    print("\n\n".join(texts))
    return 0


def _about(key: str | None, faults: list[str]) -> list[str]:
    """Those of the section, or the stage, that is asked for."""
    if key is None:
        return faults
    head = ".".join(key.split(".")[: 2 if key.startswith("stage.") else 1])
    return [fault for fault in faults if fault.startswith(f"{head}.")]
