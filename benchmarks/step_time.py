"""Seconds of a step: predicted before anything has run, beside those of real runs.

python benchmarks/step_time.py [--models a,b | --fitted] [--cells 0,1] [--threads 1,2]

A cell is a model of cells.py with a micro_batch and a precision. It is planned without a trial
and then run; the median of its log points counts, the first left out, data loading included on
both sides. A log point is the mean of three steps, as one itself takes up to a millisecond.
`--calibrate-on 1`: rates are measured on so many cores and the plan is for all of them, as for a
machine that is not here. Nothing else should be running.
"""

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import cells

HERE = Path(__file__).parent
AUTOTRAIN = [sys.executable, "-m", "autotrain"]
CELLS = [(6, "fp32"), (24, "fp32"), (48, "fp32"), (24, "bf16")]
SECONDS, FEWEST, MOST = 4.0, 9, 60
LOG_EVERY, LEFT_OUT = 3, 1


def planned(name: str, cell: tuple[int, str], threads: int, folder: Path, more: list[str]) -> dict:
    """The plan of one cell, on the arithmetic alone."""
    micro, dtype = cell
    settings = {
        "task.model": name, "batch.micro_batch": micro, "batch.global_batch": micro,
        "precision.dtype": dtype, "device.threads": threads, "loader.workers": 0,
        "run.log_every_steps": LOG_EVERY, "train.epochs": 200, "evaluate.every_epochs": 200,
        "checkpoint.every_epochs": 200,
    }  # fmt: skip
    sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    plan = [*AUTOTRAIN, "plan", "--task", HERE / "cells.py", *sets, "-o", folder / "plan.toml"]
    done = subprocess.run(
        [*plan, "--json", "--no-trial", *more], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def ran(steps: int, folder: Path) -> float:
    """Seconds of a step of a real run of it: the median."""
    command = [*AUTOTRAIN, "run", folder / "plan.toml", "--json", "--max-steps", str(steps)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    events = map(json.loads, done.stdout.splitlines())
    taken = [event["step_seconds"] for event in events if event["event"] == "step"]
    return statistics.median(taken[LEFT_OUT:])


def machine_of(cores: int, folder: Path) -> Path:
    """A profile calibrated on the first of so many cores, edited to have all of them."""
    path = folder / "machine.toml"
    every = sorted(os.sched_getaffinity(0))
    probe = [*AUTOTRAIN, "probe", "-o", path]
    home = {"AUTOTRAIN_HOME": str(folder / "home"), "OMP_NUM_THREADS": str(cores)}
    subprocess.run(
        ["taskset", "-c", ",".join(map(str, every[:cores])), *probe],
        env=os.environ | home, check=True, capture_output=True,
    )  # fmt: skip
    text = path.read_text()
    assert f"cores = {cores}" in text, "the profile does not say how many cores it was made on"
    path.write_text(text.replace(f"cores = {cores}", f"cores = {len(every)}", 1))
    return path


def ranks(values: list[float]) -> list[float]:
    """Each one's place by size; equal ones share theirs."""
    return [
        statistics.mean(place for place, other in enumerate(sorted(values)) if other == value)
        for value in values
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models")
    parser.add_argument("--fitted", action="store_true")
    parser.add_argument("--cells", default=",".join(map(str, range(len(CELLS)))))
    parser.add_argument("--threads", default=str(len(os.sched_getaffinity(0))))
    parser.add_argument("--calibrate-on", type=int)
    arguments = parser.parse_args()
    names = list(cells.FITTED if arguments.fitted else cells.HELD_OUT)
    names = arguments.models.split(",") if arguments.models else names
    chosen = [CELLS[int(number)] for number in arguments.cells.split(",")]
    folder = Path(tempfile.mkdtemp())
    try:
        more = []
        if arguments.calibrate_on:
            more = ["--machine", str(machine_of(arguments.calibrate_on, folder))]
        errors, inside, said_and_took = [], 0, {}
        for name in names:
            for cell in chosen:
                for threads in map(int, arguments.threads.split(",")):
                    place = folder / f"{name}-{cell[0]}-{cell[1]}-{threads}"
                    place.mkdir()
                    said = planned(name, cell, threads, place, more)["predicted"]["step_seconds"]
                    steps = min(max(math.ceil(SECONDS / said["expected"]), FEWEST), MOST)
                    took = ran(steps, place)
                    errors.append(said["expected"] / took - 1)
                    inside += said["low"] <= took <= said["high"]
                    pair = said["expected"], took
                    said_and_took.setdefault((name, cell[1], threads), []).append(pair)
                    print(f"{name:18} {cell[1]} x {cell[0]:3} on {threads}: said "
                          f"{said['expected'] * 1e3:8.2f} ms, took {took * 1e3:8.2f} ms  "
                          f"{errors[-1]:+.1%}", flush=True)  # fmt: skip
                    shutil.rmtree(place)
    finally:
        shutil.rmtree(folder)
    sizes = sorted(map(abs, errors))
    print(f"{len(sizes)} cells: median {statistics.median(sizes):.1%}, p90 "
          f"{sizes[math.ceil(0.9 * len(sizes)) - 1]:.1%}, worst {sizes[-1]:.1%}, mean signed "
          f"{statistics.mean(errors):+.1%}; {inside} inside the interval")  # fmt: skip
    several = [pairs for pairs in said_and_took.values() if len(pairs) > 1]
    alike = [statistics.correlation(*map(ranks, zip(*pairs, strict=True))) for pairs in several]
    if alike:
        print(f"rank correlation over batches, {len(alike)} models: mean "
              f"{statistics.mean(alike):.3f}, worst {min(alike):.3f}")  # fmt: skip


if __name__ == "__main__":
    main()
