"""Samples per second of a plan, beside the plain way: fp32, torch's defaults, the batch at once.

python benchmarks/naive.py [--models a,b] [--batch 32] [--steps 10]

Both are runs of autotrain's own loop on a model of cells.py with the same global batch, so what
differs is what the plan chose: precision, memory format, threads, and how the batch is cut. The
plan may take its trial and its race. Runs take turns; the median of each one's steps counts, the
first three left out. Both learn from the same samples in the same order: the losses of their last
steps stand beside each other. Nothing else should be running.
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
MODELS = "resnet18,shufflenet,bilstm_ctc,gpt2_like,mixer,unet,separable_net,table_net"
ROUNDS, LEFT_OUT, LAST = 3, 3, 5
PLAIN = {
    "precision.dtype": "fp32", "model.memory_format": "contiguous", "model.compile": "false",
}  # fmt: skip


def planned(name: str, batch: int, folder: Path, more: dict[str, object], *flags: str) -> dict:
    """A plan of that model and batch."""
    settings = {
        "task.model": name, "batch.global_batch": batch, "run.log_every_steps": 1,
        "loader.workers": 0, "train.epochs": 50, "evaluate.every_epochs": 50,
        "checkpoint.every_epochs": 50, **more,
    }  # fmt: skip
    sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    folder.mkdir()
    plan = [*AUTOTRAIN, "plan", "--task", HERE / "cells.py", *sets, "-o", folder / "plan.toml"]
    done = subprocess.run([*plan, "--json", *flags], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def ran(folder: Path, number: int, steps: int) -> tuple[list[float], float]:
    """Seconds of each step of a short run, and the mean loss of its last ones."""
    plan = folder / "plan.toml"
    command = [*AUTOTRAIN, "run", plan, "--json", "--max-steps", str(steps)]
    more = ["--fresh"] if number else []
    done = subprocess.run([*command, *more], capture_output=True, text=True, check=True)
    events = map(json.loads, done.stdout.splitlines())
    taken = [e for e in events if e["event"] == "step"]
    loss = statistics.mean(e["loss"] for e in taken[-LAST:])
    return [e["step_seconds"] for e in taken[LEFT_OUT:]], loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default=MODELS)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=10)
    arguments = parser.parse_args()
    unknown = set(arguments.models.split(",")) - {*cells.FITTED, *cells.HELD_OUT}
    assert not unknown, f"no such models: {unknown}"
    ratios = []
    with tempfile.TemporaryDirectory() as temporary:
        for name in arguments.models.split(","):
            ours, theirs = (Path(temporary) / f"{name}-{kind}" for kind in ("ours", "plain"))
            made = planned(name, arguments.batch, ours, {}, "--trial")
            plain = {**PLAIN, "batch.micro_batch": arguments.batch}
            planned(name, arguments.batch, theirs, plain, "--no-trial")
            taken: dict[Path, list[float]] = {ours: [], theirs: []}
            loss: dict[Path, float] = {}
            for number in range(ROUNDS):
                for folder in (ours, theirs):
                    seconds, loss[folder] = ran(folder, number, arguments.steps)
                    taken[folder] += seconds
            fast, slow = (statistics.median(taken[folder]) for folder in (ours, theirs))
            ratios.append(slow / fast)
            print(f"{name:14} plain {slow * 1e3:8.2f} ms, plan {fast * 1e3:8.2f} ms: "
                  f"{ratios[-1]:.2f} x  ({made['precision']['dtype']}, "
                  f"{made['model']['memory_format']}, {made['device']['threads']} threads, "
                  f"{made['batch']['micro_batch']} x {made['batch']['accum_steps']}); "
                  f"loss {loss[theirs]:.4g} and {loss[ours]:.4g}",
                  flush=True)  # fmt: skip
    print(f"{len(ratios)} models: {statistics.geometric_mean(ratios):.2f} x on the geometric mean, "
          f"{min(ratios):.2f} x at least")  # fmt: skip


if __name__ == "__main__":
    main()
