"""What the reports of a run that goes on take from its steps.

python benchmarks/report_cost.py [--task tones_separable] [--epochs 50]

One run of a task of learnable.py, evaluated about once in two seconds. Steps that end while the
process that writes a report is alive stand beside all others of the same run: both see what the
machine does from minute to minute. Nothing else should be running.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
from pathlib import Path

import psutil
from naive import AUTOTRAIN, planned

WRITER, LEFT_OUT = "autotrain.commands.reporting", 5


def writes(run: psutil.Process) -> bool:
    """Whether a report of that run is being written now."""
    try:
        return any(WRITER in child.cmdline() for child in run.children())
    except psutil.Error:  # it ended just now
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", default="tones_separable")
    parser.add_argument("--epochs", type=int, default=50)
    arguments = parser.parse_args()
    settings = {
        "task.name": arguments.task, "train.epochs": arguments.epochs, "early_stop.patience": "off",
        "batch.global_batch": 32, "run.log_every_steps": 1,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        plan = Path(folder, "plan.toml")
        planned(plan, settings)
        run = subprocess.Popen(
            [*AUTOTRAIN, "run", plan, "--json"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert run.stdout is not None
        process, taken = psutil.Process(run.pid), {True: [], False: []}
        for event in map(json.loads, run.stdout):
            if event["event"] == "step" and event["step"] > LEFT_OUT:
                taken[writes(process)].append(event["step_seconds"])
    beside, alone = (statistics.mean(taken[kind]) for kind in (True, False))
    share = sum(taken[True]) / (sum(taken[True]) + sum(taken[False]))
    lost = 1 - alone / (share * beside + (1 - share) * alone)
    print(f"a report was being written for {share:.1%} of the time; a step took "
          f"{beside * 1e3:.1f} ms meanwhile ({len(taken[True])}) and {alone * 1e3:.1f} ms else "
          f"({len(taken[False])}): {lost:.1%} of the run")  # fmt: skip


if __name__ == "__main__":
    main()
