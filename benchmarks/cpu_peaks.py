"""Predicted beside measured on this CPU, for every model of cells.py, by the commands users type.

python benchmarks/cpu_peaks.py [--batches 8,32] [--steps 4] [MODEL ...]
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import cells

HERE = Path(__file__).parent
AUTOTRAIN = [sys.executable, "-m", "autotrain"]
MIB = 2**20


def measure(model: str, batch: int, steps: int, folder: Path) -> dict:
    """Plan and run one cell; the report's `predicted` entries."""
    sizes = ["--set", f"batch.micro_batch={batch}", "--set", f"batch.global_batch={batch}"]
    plan = [
        "plan",
        "--no-trial",
        "--task",
        HERE / "cells.py",
        "--set",
        f"task.model={model}",
        *sizes,
    ]
    subprocess.run([*AUTOTRAIN, *plan, "-o", folder / "plan.toml"], check=True, capture_output=True)
    run = [*AUTOTRAIN, "run", folder / "plan.toml", "--max-steps", str(steps)]
    subprocess.run(run, check=True, capture_output=True)
    return json.loads((folder / "runs/cells/report.json").read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--batches", default="8,32")
    parser.add_argument("--steps", type=int, default=4)
    arguments = parser.parse_args()
    errors: dict[bool, list[float]] = {True: [], False: []}
    inside = 0
    for model in arguments.models or [*cells.FITTED, *cells.HELD_OUT]:
        for batch in map(int, arguments.batches.split(",")):
            with tempfile.TemporaryDirectory() as folder:
                report = measure(model, batch, arguments.steps, Path(folder))
            peak = report["predictions"]["device_peak_bytes"]
            ratio = peak["measured"] / peak["expected"]
            errors[model in cells.HELD_OUT].append(abs(ratio - 1))
            inside += peak["low"] <= peak["measured"] <= peak["high"]
            print(
                f"{model:20} {batch:3}  predicted {peak['expected'] / MIB:6.0f} MiB "
                f"({peak['low'] / MIB:.0f} to {peak['high'] / MIB:.0f})  "
                f"measured {peak['measured'] / MIB:6.0f} MiB  ratio {ratio:.2f}",
                flush=True,
            )
    for held_out, found in errors.items():
        if found:
            what = "held out" if held_out else "fitted on"
            print(f"{what}: {len(found)} cells, median {statistics.median(found):.1%}, "
                  f"worst {max(found):.1%}")  # fmt: skip
    print(f"in the interval: {inside} of {sum(map(len, errors.values()))}")


if __name__ == "__main__":
    main()
