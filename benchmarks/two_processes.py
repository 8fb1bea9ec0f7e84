"""Two processes against one on this CPU, one thread each: samples a second, and the gradient.

    python benchmarks/two_processes.py [--world 2] [--steps 120] [--repeats 3]

Both train the same steps of the same global batch. What the machine itself allows stands beside
it: as many runs at once that have nothing to do with one another. The gradient is what one step of
SGD took from the weights, at a rate that leaves little of these; its difference is over its largest
value.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from autotrain.events import Step
from autotrain.run.keeping import checkpoint
from autotrain.run.loop import train
from autotrain.run.processes.joining import join, leave
from autotrain.schema import Plan
from autotrain.task import Task

NUMBERS = {"low": 1, "expected": 2, "high": 3}
PREDICTED = ("tensor_peak", "reserved_peak", "device_peak", "checkpoint")
RATE = 2.0**20
SETTLED = 25  # steps, in the first of which gradients are added up after the backward pass


class Pictures(torch.utils.data.TensorDataset):
    """64 x 64 in three colours, of ten classes: noise."""

    def __init__(self, count: int) -> None:
        draws = torch.Generator().manual_seed(1)
        super().__init__(
            torch.randn(count, 3, 64, 64, generator=draws),
            torch.randint(0, 10, (count,), generator=draws),
        )


def convolutions() -> nn.Module:
    """Without BatchNorm, whose statistics know the cut: about 0.4 M parameters."""
    layers: list[nn.Module] = []
    for into, out in ((3, 32), (32, 64), (64, 128), (128, 256)):
        layers += [nn.Conv2d(into, out, 3, 2, 1), nn.GroupNorm(8, out), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 10))


def task() -> Task:
    return Task.classification(model=convolutions, train=Pictures(1024), valid=Pictures(16))


def plan(**changes: dict[str, Any]) -> Plan:
    """Global batches of 64 in micro-batches of 16."""
    sections: dict[str, dict[str, Any]] = {
        "task": {"file": "task.py", "sha256": "0" * 64},
        "run": {"name": "two", "directory": "two", "seed": 7, "log_every_steps": 1},
        "device": {"kind": "cpu", "index": 0, "threads": 1},
        "memory": {"share": 0.8, "budget_bytes": 1 << 30},
        "batch": {"micro_batch": 16, "accum_steps": 4, "world_size": 1, "global_batch": 64},
        "precision": {"dtype": "fp32"},
        "optimizer": {"name": "sgd", "lr": 1.0, "weight_decay": 0.0, "implementation": "foreach"},
        "schedule": {"name": "constant", "warmup_steps": 0},
        "train": {"epochs": 100},
        "early_stop": {"min_delta": 0.0},
        "evaluate": {"every_epochs": 100},
        "checkpoint": {"every_epochs": 100, "keep": 1},
        "loader": {"workers": 0, "prefetch": 2, "pin_memory": False, "start_method": "fork"},
        "data": {"valid_share": 0.2},
        "inputs": {"hardware": "", "dataset": "", "model": ""},
        "predicted": {
            **{f"{name}_bytes": NUMBERS for name in PREDICTED},
            **{f"{name}_seconds": NUMBERS for name in ("step", "run")},
        },
    }
    for name, change in changes.items():
        sections[name] = sections.get(name, {}) | change
    return Plan.model_validate({"schema": 1, "made_by": "bench", "recipe": "none", **sections})


def carried_out(directory: Path, steps: int, rate: float) -> list[float]:
    """Seconds of each step, in this process as one of as many as the environment says."""
    torch.set_num_threads(1)
    ranks = join() if int(os.environ.get("WORLD_SIZE", "1")) > 1 else None
    own = plan(optimizer={"lr": rate})
    events = train(own, task(), directory, task_file=Path(__file__), max_steps=steps, ranks=ranks)
    seconds = [event.step_seconds for event in events if isinstance(event, Step)]
    if ranks is not None:
        ranks.farewell()
        leave(ranks)
    return seconds


def started(world: int, directory: Path, steps: int, rate: float) -> list[float]:
    """The same in `world` new processes; what rank 0 measured."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, __file__, "--one", str(directory), str(steps), str(rate)]
    common = {"WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world), "OMP_NUM_THREADS": "1",
              "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
              "TORCH_CPP_LOG_LEVEL": "ERROR"}  # fmt: skip
    processes = [
        subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True,
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(world)
    ]  # fmt: skip
    said = [process.communicate()[0] for process in processes]
    seconds: list[float] = json.loads(said[0].splitlines()[-1])
    return seconds


def beside_one_another(count: int, directory: Path, steps: int) -> float:
    """Samples a second of so many runs of one process, all at once."""
    with ThreadPoolExecutor(count) as pool:
        runs = [
            pool.submit(started, 1, directory / str(number), steps, 1e-3) for number in range(count)
        ]
        return sum(64 / median(run.result()[SETTLED:]) for run in runs)


def gradient(directory: Path, world: int) -> torch.Tensor:
    """What the first step took from the weights."""
    place = directory / f"gradient-{world}"
    started(world, place, 1, RATE)
    after = checkpoint.load(checkpoint.folder(place, 1)).model.tensors
    nothing = directory / f"start-{world}"
    started(world, nothing, 1, 1e-30)
    before = checkpoint.load(checkpoint.folder(nothing, 1)).model.tensors
    return torch.cat([(before[name].double() - after[name].double()).flatten() for name in before])


def main() -> None:
    if len(sys.argv) > 1 and sys.argv[1] == "--one":
        directory, steps, rate = sys.argv[2:]
        print(json.dumps(carried_out(Path(directory), int(steps), float(rate))))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", type=int, default=2)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        one, many = gradient(place, 1), gradient(place, asked.world)
        difference = float((one - many).abs().max() / one.abs().max())
        print(f"gradient of {asked.world} processes against one: {difference:.2g} of its largest")
        ratios, ceilings = [], []
        for repeat in range(asked.repeats):
            speeds = []
            for world in (1, asked.world):
                seconds = started(world, place / f"{world}-{repeat}", asked.steps, 1e-3)
                speeds.append(64 / median(seconds[SETTLED:]))
            ratios.append(speeds[1] / speeds[0])
            apart = beside_one_another(asked.world, place / f"apart-{repeat}", asked.steps)
            ceilings.append(apart / speeds[0])
            print(f"samples/s: {speeds[0]:.0f} and {speeds[1]:.0f}, ratio {ratios[-1]:.2f}; "
                  f"of runs apart {apart:.0f}, ratio {ceilings[-1]:.2f}", flush=True)  # fmt: skip
        print(f"median ratio {median(ratios):.2f} with {asked.world} processes of one thread; "
              f"{median(ceilings):.2f} with as many runs apart")  # fmt: skip


if __name__ == "__main__":
    main()
