"""Memory of a model divided among processes: predicted from a whole model's trace, and measured.

    python benchmarks/divided_memory.py [--world 2] [--models encoder,words] [--micro 4]

Measured is what torch's CPU allocator gave out in rank 0 of a gloo group: the most bytes alive in a
step, or in an evaluation. A cell is a model, how many micro-batches a step has, after which of them
gradients are added up, and whether activations are computed again.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn
from torch.profiler import ProfilerActivity, profile
from two_processes import plan

from autotrain.plan import divided, memory
from autotrain.probe.model import ModelTracer
from autotrain.run.assemble import assemble
from autotrain.run.evaluate import evaluate
from autotrain.run.processes.joining import join, leave
from autotrain.run.signals import Stop
from autotrain.run.step import take_step
from autotrain.schema import ModelSection
from autotrain.task import Task

MIB = 1 << 20
CELLS = [
    (1, "last", False), (2, "last", False), (2, "each", False), (2, "each", True),
]  # fmt: skip


class Reader(nn.Module):
    """`words` of a vocabulary, `layers` of an encoder."""

    def __init__(self, words: int, width: int, layers: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, width)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, 0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.out = nn.Linear(width, 10)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        return self.out(self.encoder(self.embed(words)).mean(1))


def stack() -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten()]
    for into in (3072, *[1024] * 11):
        layers += [nn.Linear(into, 1024), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(1024, 10))


MODELS = {
    "encoder": lambda: Reader(4000, 256, 6),
    "words": lambda: Reader(40_000, 128, 4),
    "stack": stack,
    "resnet18": lambda: torchvision.models.resnet18(num_classes=10),
    "vit": lambda: torchvision.models.VisionTransformer(64, 8, 8, 4, 256, 1024, num_classes=10),
}
PICTURES = {"stack": (3, 32, 32), "resnet18": (3, 64, 64), "vit": (3, 64, 64)}


def task(name: str) -> Task:
    draws = torch.Generator().manual_seed(1)
    shape = PICTURES.get(name)
    x = (
        torch.randint(0, 4000, (256, 64), generator=draws)
        if shape is None
        else torch.randn(256, *shape, generator=draws)
    )
    data = torch.utils.data.TensorDataset(x, torch.randint(0, 10, (256,), generator=draws))
    return Task.classification(model=MODELS[name], train=data, valid=data)


def predicted(name: str, cell: tuple[int, str, bool], micro: int, world: int) -> dict[str, float]:
    accum, reduce, again = cell
    tracer = ModelTracer.open(task(name), Path(__file__))
    form = ModelSection(activation_checkpointing=again)
    tracer.trace(micro, "fp32", form=form)
    model = tracer.profile().run_as(form)
    setup = memory.Setup(micro, accum, "fp32", "adamw", "fused", None, form=form,
                         world=world, shard=reduce)  # fmt: skip
    whole = setup._replace(world=1, shard="", several=True)
    return {
        "divided": divided.tensor_peak_bytes(model, setup),
        "whole": memory.tensor_peak_bytes(model, whole),
    }


def measured(name: str, cell: tuple[int, str, bool], micro: int) -> int:
    """The most that was alive in this process's third step and the evaluation behind it."""
    accum, reduce, again = cell
    torch.set_num_threads(1)
    ranks = join()
    own = plan(
        batch={"micro_batch": micro, "accum_steps": accum, "world_size": ranks.world,
               "global_batch": micro * accum * ranks.world},
        parallel={"strategy": "shard", "reduce": reduce},
        model={"activation_checkpointing": again},
        optimizer={"name": "adamw", "lr": 1e-4, "implementation": "fused"},
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        run = assemble(own, task(name), Path(folder), task_file=Path(__file__), resume=False,
                       max_steps=3, ranks=ranks)  # fmt: skip
        ranks.agreed(Stop())
        for _ in range(2):
            take_step(run, Stop())
        peaks = [most_alive(run, lambda: take_step(run, Stop())),
                 most_alive(run, lambda: evaluate(run, Stop()))]  # fmt: skip
    ranks.farewell()
    leave(ranks)
    return max(peaks)


def most_alive(run: Any, work: Any) -> int:
    states = [v for state in run.optimizer.state.values() for v in state.values()]
    spare = run.shards.spare
    held = [*run.parameters, *run.model.buffers(), *states, *spare]
    before = sum({(s := t.untyped_storage()).data_ptr(): s.nbytes() for t in held}.values())
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as seen:
        work()
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return before + most


def started(name: str, cell: tuple[int, str, bool], micro: int, world: int) -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    asked = json.dumps([name, cell, micro])
    common = {"WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world), "MASTER_PORT": str(port),
              "MASTER_ADDR": "127.0.0.1", "TORCH_CPP_LOG_LEVEL": "ERROR"}  # fmt: skip
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, "--one", asked], stdout=subprocess.PIPE, text=True,
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(world)
    ]  # fmt: skip
    said = [process.communicate()[0] for process in processes]
    return int(said[0].splitlines()[-1])


def main() -> None:
    if len(sys.argv) > 1 and sys.argv[1] == "--one":
        name, cell, micro = json.loads(sys.argv[2])
        print(measured(name, tuple(cell), micro))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", type=int, default=2)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--micro", type=int, default=4)
    asked = parser.parse_args()
    ratios = []
    for name in asked.models.split(","):
        for cell in CELLS:
            said = predicted(name, cell, asked.micro, asked.world)
            took = started(name, cell, asked.micro, asked.world)
            ratios.append(said["divided"] / took)
            print(
                f"{name:9} {cell[0]} micro-batches, reduce {cell[1]}{', again' * cell[2]}: "
                f"predicted {said['divided'] / MIB:.0f} MiB, measured {took / MIB:.0f}, ratio "
                f"{ratios[-1]:.2f}; whole {said['whole'] / MIB:.0f} MiB",
                flush=True,
            )
    print(f"predicted / measured: median {statistics.median(ratios):.2f}, "
          f"{min(ratios):.2f} to {max(ratios):.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
