"""The tensor peak with learning aids: predicted beside the real CPU allocator's, model by model.

python benchmarks/aid_cells.py [--held-out | --fitted] [--models a,b]

A cell is a model of cells.py with averaged weights, half of its parameters frozen, or an
optimizer in groups; measured as in cpu_cells.py. The first cell of a model has none of these.
"""

import argparse
import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
MIB = 2**20


class Cell(NamedTuple):
    """How one model is trained. `frozen`: the first half of its parameters."""

    micro_batch: int
    accum_steps: int
    optimizer: str
    implementation: str
    averaged: bool = False
    frozen: bool = False
    decays: str = "all"
    layer_decay: float | None = None


CELLS = [
    Cell(8, 1, "adamw", "fused"),
    Cell(8, 1, "adamw", "fused", averaged=True, decays="matrices"),
    Cell(2, 1, "adamw", "foreach", averaged=True, decays="matrices", layer_decay=0.8),
    Cell(2, 2, "sgd", "foreach", decays="matrices"),
    Cell(2, 2, "sgd", "for-loop", averaged=True, decays="matrices", layer_decay=0.8),
    Cell(8, 1, "adamw", "fused", frozen=True),
    Cell(16, 2, "adam", "fused", averaged=True, frozen=True, decays="matrices", layer_decay=0.9),
]


def section(cell):
    """The optimizer of a plan like it."""
    from autotrain.schema import OptimizerSection

    return OptimizerSection(
        name=cell.optimizer, lr=1e-4, weight_decay=0.01, implementation=cell.implementation,
        momentum=0.9 if cell.optimizer == "sgd" else None, clip_norm=1.0, decays=cell.decays,
        layer_decay=cell.layer_decay,
    )  # fmt: skip


def measured(task, cell, patterns) -> int:
    """Most bytes alive in the third step."""
    import torch
    from cpu_cells import highest, resident, tensors_of
    from torch.profiler import ProfilerActivity, profile
    from torch.utils.data import default_collate

    from autotrain import freezing, optimizer
    from autotrain.averaging import Average

    torch.manual_seed(0)
    model = task.model().train()
    freezing.freeze(model, patterns)
    batch = (task.collate or default_collate)([task.train[i] for i in range(cell.micro_batch)])
    made = optimizer.build(section(cell), model)
    average = Average(model, 0.999) if cell.averaged else None

    def step():
        for _ in range(cell.accum_steps):
            loss = task.loss(model, batch)
            (loss.total / loss.weight).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        made.step()
        if average is not None:
            average.update()
        made.zero_grad(set_to_none=True)

    step()
    step()
    states = [v for s in made.state.values() for v in s.values() if isinstance(v, torch.Tensor)]
    kept = [] if average is None else [*average.tensors().values()]
    alive = [*model.parameters(), *model.buffers(), *states, *tensors_of(batch), *kept]
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    return resident(alive) + highest(profiler)


def predicted(task, cell, patterns) -> int:
    """As a plan predicts, from traces."""
    from autotrain.plan import grouping, memory
    from autotrain.plan.ledger import Ledger
    from autotrain.probe.model import ModelTracer
    from autotrain.schema import Goal, TaskSection

    tracer = ModelTracer.open(task, HERE / "cells.py")
    tracer.freeze(patterns)
    for micro_batch in {2, cell.micro_batch}:
        tracer.trace(micro_batch)
    ledger = Ledger(Goal(task=TaskSection(file="cells.py", sha256="0" * 64)), 10, "cpu")
    chosen = ledger.values["optimizer"] = section(cell).model_dump()
    model = grouping.in_order(ledger, tracer.profile())
    setup = memory.Setup(
        cell.micro_batch, cell.accum_steps, "fp32", cell.optimizer, cell.implementation,
        chosen["momentum"], ema=cell.averaged, groups=grouping.groups(ledger, model),
    )  # fmt: skip
    return memory.tensor_peak_bytes(model, setup)


def one_model(name: str) -> None:
    """Print a JSON line for each cell."""
    sys.path.insert(0, str(HERE))
    import cells

    warnings.simplefilter("ignore")
    task = cells.task(None, name)
    names = [name for name, _ in task.model().named_parameters()]
    for cell in CELLS:
        patterns = tuple(names[: len(names) // 2]) if cell.frozen else ()
        row = {"model": name, "cell": cell._asdict()}
        row |= {"predicted": predicted(task, cell, patterns)}
        row |= {"measured": measured(task, cell, patterns)}
        print(json.dumps(row), flush=True)


def show(row: dict) -> float:
    """One line; returns the error."""
    error = row["predicted"] / row["measured"] - 1
    how = " ".join(f"{k}={v}" for k, v in row["cell"].items())
    sizes = [f"{key} {row[key] / MIB:8.2f} MiB" for key in ("predicted", "measured")]
    print(f"{row['model']:18} {', '.join(sizes)}  {error:+.2%}  {how}", flush=True)
    return error


def main() -> None:
    from cpu_cells import summary

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--held-out", action="store_true")
    parser.add_argument("--fitted", action="store_true")
    parser.add_argument("--models")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        return one_model(arguments.child)
    sys.path.insert(0, str(HERE))
    import cells

    chosen = {
        "fitted on": [] if arguments.held_out else [*cells.FITTED],
        "held out": [] if arguments.fitted else [*cells.HELD_OUT],
    }
    wanted = arguments.models.split(",") if arguments.models else None
    for title, names in chosen.items():
        errors = []
        for name in (n for n in names if wanted is None or n in wanted):
            command = [sys.executable, __file__, "--child", name]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"{name}: {done.stderr.strip().splitlines()[-1]}", flush=True)
            rows = [json.loads(x) for x in done.stdout.splitlines() if x.startswith("{")]
            errors += [show(row) for row in rows]
        summary(title, errors)
    return None


if __name__ == "__main__":
    main()
