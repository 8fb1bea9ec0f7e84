"""The tensor peak: predicted without data, beside the real CPU allocator's, model by model.

python benchmarks/cpu_cells.py [--held-out | --fitted] [--models a,b] [--cells 0,1,2,3]

A cell is a model of cells.py with an optimizer, a precision, a micro_batch and accum_steps.
Measured: the third optimizer step of what `autotrain run` does, under torch's profiler; its
memory events on top of what lived before (parameters, buffers, states, batch). Each model
has a process of its own. Tell the figures of the held-out models: the others were looked at.
"""

import argparse
import json
import statistics
import subprocess
import sys
import warnings
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
MIB = 2**20


class Cell(NamedTuple):
    """How one model is trained."""

    micro_batch: int
    dtype: str
    optimizer: str
    implementation: str
    accum_steps: int


CELLS = [
    Cell(24, "fp32", "adamw", "fused", 1),
    Cell(24, "bf16", "adam", "for-loop", 2),
    Cell(6, "bf16", "sgd", "fused", 1),
    Cell(48, "fp32", "rmsprop", "foreach", 2),
    Cell(12, "fp32", "adagrad", "fused", 1),
]


def measured(task, cell) -> int:
    """Most bytes alive in the third step."""
    import torch
    from torch.profiler import ProfilerActivity, profile
    from torch.utils.data import default_collate

    from autotrain import optimizer
    from autotrain.schema import OptimizerSection

    torch.manual_seed(0)
    model = task.model().train()
    batch = (task.collate or default_collate)([task.train[i] for i in range(cell.micro_batch)])
    section = OptimizerSection(
        name=cell.optimizer, lr=1e-4, weight_decay=0.01, implementation=cell.implementation,
        momentum=0.9 if cell.optimizer == "sgd" else None, clip_norm=1.0,
    )  # fmt: skip
    made = optimizer.build(section, model)

    def step():
        for _ in range(cell.accum_steps):
            with torch.autocast("cpu", torch.bfloat16, enabled=cell.dtype == "bf16"):
                loss = task.loss(model, batch)
            (loss.total / loss.weight).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        made.step()
        made.zero_grad(set_to_none=True)

    step()
    step()
    states = [v for s in made.state.values() for v in s.values() if isinstance(v, torch.Tensor)]
    before = resident([*model.parameters(), *model.buffers(), *states, *tensors_of(batch)])
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    return before + highest(profiler)


def tensors_of(batch) -> list:
    """The tensors of a batch, however nested."""
    from torch.utils import _pytree as pytree

    return [leaf for leaf in pytree.tree_leaves(batch) if hasattr(leaf, "untyped_storage")]


def resident(tensors) -> int:
    """Bytes of their storages, each once."""
    storages = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def highest(profiler) -> int:
    """The highest sum of a profile's memory events."""

    def walk(events):
        for event in events:
            if event.name == "[memory]":
                yield event
            yield from walk(event.children)

    events = walk(profiler.profiler.kineto_results.experimental_event_tree())
    now = peak = 0
    for event in sorted(events, key=lambda e: e.start_time_ns):
        now += event.extra_fields.alloc_size
        peak = max(peak, now)
    return peak


def predicted(task, cell) -> int:
    """As a plan predicts, from a trace at that micro_batch."""
    from autotrain.plan import memory
    from autotrain.probe.model import ModelTracer

    tracer = ModelTracer.open(task, HERE / "cells.py")
    for micro_batch in (2, cell.micro_batch):
        tracer.trace(micro_batch, cell.dtype)
    setup = memory.Setup(
        cell.micro_batch, cell.accum_steps, cell.dtype, cell.optimizer, cell.implementation,
        0.9 if cell.optimizer == "sgd" else None,
    )  # fmt: skip
    return memory.tensor_peak_bytes(tracer.profile(), setup)


def one_model(name: str, numbers: list[int]) -> None:
    """Print a JSON line for each cell."""
    sys.path.insert(0, str(HERE))
    import cells

    warnings.simplefilter("ignore")
    task = cells.task(None, name)
    for cell in (CELLS[number] for number in numbers):
        row = {"model": name, **cell._asdict()}
        row |= {"predicted": predicted(task, cell), "measured": measured(task, cell)}
        print(json.dumps(row), flush=True)


def rows(name: str, numbers: str) -> list[dict]:
    """All cells of a model, from a process of its own."""
    command = [sys.executable, __file__, "--child", name, "--cells", numbers]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{name}: {done.stderr.strip().splitlines()[-1]}", flush=True)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def show(row: dict) -> float:
    """One line; returns the error."""
    error = row["predicted"] / row["measured"] - 1
    print(
        f"{row['model']:18} {row['micro_batch']:3} x {row['accum_steps']} {row['dtype']} "
        f"{row['optimizer']:8} {row['implementation']:8} "
        f"predicted {row['predicted'] / MIB:8.2f} MiB, "
        f"measured {row['measured'] / MIB:8.2f} MiB  {error:+.2%}",
        flush=True,
    )
    return error


def summary(title: str, errors: list[float]) -> None:
    """Median, 95th percentile and worst of absolute errors."""
    if errors:
        found = sorted(abs(e) for e in errors)
        p95 = found[min(round(0.95 * len(found)), len(found) - 1)]
        print(f"{title}: {len(found)} cells, median {statistics.median(found):.2%}, "
              f"p95 {p95:.2%}, worst {found[-1]:.2%}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--held-out", action="store_true")
    parser.add_argument("--fitted", action="store_true")
    parser.add_argument("--models")
    parser.add_argument("--cells", default=",".join(map(str, range(len(CELLS)))))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        one_model(arguments.child, [int(n) for n in arguments.cells.split(",")])
        return
    sys.path.insert(0, str(HERE))
    import cells

    chosen = {
        "fitted on": [] if arguments.held_out else [*cells.FITTED],
        "held out": [] if arguments.fitted else [*cells.HELD_OUT],
    }
    wanted = arguments.models.split(",") if arguments.models else None
    found: dict[str, list[float]] = {title: [] for title in chosen}
    for title, names in chosen.items():
        for name in names:
            if wanted is None or name in wanted:
                found[title] += [show(row) for row in rows(name, arguments.cells)]
    for title, errors in found.items():
        summary(title, errors)


if __name__ == "__main__":
    main()
