"""Plans to a budget, each then run under that budget as a hard limit: how many are killed?

python benchmarks/budget_kept.py [--runs 40] [--seed 0] [--trial] [--models a,b]

A run is a random model of cells.py with a random optimizer, precision and budget of 0.9 to 1.8 GiB.
It is planned twice: first for a step of 420 samples, to be told how many would fit at once, then
for a step of twice as many as that, which memory cuts in two. The run takes an optimizer step, an
evaluation and a save. The limit is a memory cgroup of its own (v1 or v2, as root); where none can
be made, the process's highest RSS is held against the budget instead.
"""

import argparse
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import cells

HERE = Path(__file__).parent
AUTOTRAIN = [sys.executable, "-m", "autotrain"]
GIB = 2**30
SAMPLES = 420  # as many as there are to train on, about, and a number with many divisors
FIT = re.compile(r"([\d,]+) would fit")
OPTIMIZERS = ["adamw", "adam", "sgd", "rmsprop", "adagrad"]
ROOTS = [Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")]
LIMITS = ["memory.limit_in_bytes", "memory.max"]


class Cage:
    """A memory cgroup, or nothing where none can be made."""

    def __init__(self, budget: int) -> None:
        self.folder: Path | None = None
        for root, limit in zip(ROOTS, LIMITS, strict=True):
            folder = root / f"autotrain-budget-{os.getpid()}"
            try:
                folder.mkdir()
                (folder / limit).write_text(str(budget))
                self.folder = folder
                return
            except OSError:
                if folder.exists():
                    folder.rmdir()

    def enter(self) -> None:
        """Called in the child, before it becomes the run."""
        if self.folder is not None:
            (self.folder / "cgroup.procs").write_text(str(os.getpid()))

    def close(self) -> None:
        """Remove it; its processes are gone."""
        if self.folder is not None:
            self.folder.rmdir()


def one(number: int, draw: random.Random, names: list[str], *, trial: bool) -> dict | None:
    """Plan and run; what came of it, or None where not even one sample fits."""
    name, optimizer = draw.choice(names), draw.choice(OPTIMIZERS)
    dtype, budget = draw.choice(["fp32", "bf16"]), int(draw.uniform(0.9, 1.8) * GIB)
    settings = {
        "task.model": name, "optimizer.name": optimizer, "precision.dtype": dtype,
        "memory.budget_bytes": budget, "loader.workers": 0,
    }  # fmt: skip
    folder = Path(tempfile.mkdtemp())
    try:
        first = planned(settings | {"batch.global_batch": SAMPLES}, folder, trial=trial)
        fit = FIT.search(first["because"]["batch"]["micro_batch"]["formula"])
        fits = int(fit[1].replace(",", "")) if fit else SAMPLES
        # A multiple of 12, where it is that large, can be cut in many ways.
        most = min(2 * (fits - fits % min(fits, 12)), SAMPLES)
        made = planned(settings | {"batch.global_batch": most}, folder, trial=trial)
        about = {"name": name, "optimizer": optimizer, "dtype": dtype, "budget": budget}
        return about | {"bound": 2 * fits < SAMPLES} | ran(made, folder, budget)
    except subprocess.CalledProcessError as error:
        print(f"{number:3} {name}: not planned: {error.stderr.strip().splitlines()[0]}")
        return None
    finally:
        shutil.rmtree(folder)


def planned(settings: dict, folder: Path, *, trial: bool) -> dict:
    """The plan for one of the cells."""
    sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    plan = [*AUTOTRAIN, "plan", "--task", HERE / "cells.py", *sets, "-o", folder / "plan.toml"]
    plan += ["--json", "--trial" if trial else "--no-trial"]
    done = subprocess.run(plan, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def ran(made: dict, folder: Path, budget: int) -> dict:
    """Run a plan in a cage of its budget."""
    cage = Cage(budget)
    command = [*AUTOTRAIN, "run", folder / "plan.toml", "--max-steps", "1", "--json"]
    try:
        done = subprocess.run(
            command, preexec_fn=cage.enter, capture_output=True, text=True, check=False
        )
    finally:
        cage.close()
    steps = [json.loads(line) for line in done.stdout.splitlines() if '"peak_bytes"' in line]
    used = max((step["peak_bytes"] for step in steps), default=0)
    saw = made["predicted"]["device_peak_bytes"]
    return {
        "micro_batch": made["batch"]["micro_batch"],
        "accum": made["batch"]["accum_steps"],
        "caged": cage.folder is not None,
        "killed": done.returncode != 0 or used > budget,
        "used": used / budget,
        "expected": saw["expected"] / budget,
        "said": done.stderr.strip().splitlines()[-1] if done.returncode and done.stderr else "",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trial", action="store_true")
    parser.add_argument("--models")
    arguments = parser.parse_args()
    names = arguments.models.split(",") if arguments.models else [*cells.FITTED, *cells.HELD_OUT]
    draw = random.Random(arguments.seed)
    found = []
    for number in range(arguments.runs):
        row = one(number, draw, names, trial=arguments.trial)
        if row is None:
            continue
        found.append(row)
        print(f"{number:3} {row['name']:18} {row['optimizer']:8} {row['dtype']} "
              f"{row['budget'] / GIB:4.2f} GiB  micro_batch {row['micro_batch']:3}  "
              f"expected {row['expected']:4.0%}  used {row['used']:4.0%}"
              f"{'  KILLED ' + row['said'] if row['killed'] else ''}", flush=True)  # fmt: skip
    lived = [row["used"] for row in found if not row["killed"]]
    bound = [row["used"] for row in found if not row["killed"] and row["bound"]]
    print(f"killed: {len(found) - len(lived)} of {len(found)}")
    for what, shares in (("all", lived), ("where memory decides", bound)):
        if shares:
            print(f"used of the budget, {what}: {statistics.mean(shares):.0%} on average, "
                  f"{max(shares):.0%} at most, {len(shares)} runs")  # fmt: skip


if __name__ == "__main__":
    main()
