"""`autotrain probe`: what this machine and your data are."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from autotrain import files, parsing
from autotrain.errors import AutotrainError, UsageError


def probe(data: str | None, output: str | None, *, as_json: bool, calibrate: bool) -> int:
    """Probe, print, and write the machine's profile where asked: without what is private."""
    from autotrain.probe.dataset import probe_dataset
    from autotrain.probe.hardware import probe_hardware
    from autotrain.probe.machines import profile_toml, shareable
    from autotrain.report.plan_text import probe_text

    _refuse_to_replace(output)
    dataset = None if data is None else probe_dataset(Path(data))
    hardware = probe_hardware(Path.cwd(), calibrate=calibrate)
    if output is not None:
        files.write_atomic(Path(output), profile_toml(shareable(hardware)))
    if as_json:
        found = {"hardware": hardware.model_dump(mode="json", by_alias=True)}
        if dataset is not None:
            found["dataset"] = dataset.model_dump(mode="json")
        print(json.dumps(found, indent=1))
    else:
        print(probe_text(hardware, dataset))
    if output is not None:
        print(f"wrote {output}\n\nnext: autotrain plan ... --machine {output}", file=sys.stderr)
    return 0


def _refuse_to_replace(output: str | None) -> None:
    """Raise AutotrainError where `output` is a file, and not such a profile."""
    if output is None or not Path(output).exists():
        return
    try:
        there, most = Path(output), parsing.PROFILE_VALUES
        profile = there.is_file() and "devices" in files.read_toml(there, most)
    except UsageError:
        profile = False
    if not profile:
        raise AutotrainError(f"{output}: exists and is not a profile", "choose another name")
