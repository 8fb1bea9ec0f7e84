"""Faults put into runs on purpose, and what became of each run.

    python benchmarks/faults.py [--times 100] [--only memory,nan,...] [--seed 0]

Every run is of `autotrain`'s own `train()` on a small task; what fails, where, and the seed are
drawn anew each time:

memory    1 to 5 failures to allocate, in forward or backward passes of random micro-batches
update    a failure to allocate in the optimizer's step, after a weight was changed
nan       1 to 5 steps whose loss is NaN; infinity, spike (x 10,000): the same
lasting   NaN from a random step on: nothing to heal, the cause is to be named
killed    a loader worker is killed while it reads a random sample
hang      a loader worker hangs at a random sample, the first time it is read
sample    1 or 2 samples that cannot be read

`healed`: the run finished, each fault that was really met is in a Healed event that names it (each
failure to allocate one of its own, each step by its number, each sample), and the weights are
finite. `named`: it stopped, and says so of that fault. Anything else is a fault of ours, and is
printed with its seed: a run that met no fault too. `difference` is the largest of any weight to the
run that never failed, over the largest weight of its tensor: where memory ran out, that is all
rounding.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import random
import re
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from autotrain.errors import AutotrainError
from autotrain.run.keeping import checkpoint
from autotrain.run.loop import train
from autotrain.schema import Plan
from autotrain.task import Loss, Task

SAMPLES, VALID, BATCH, EPOCHS = 96, 16, 16, 12
STEPS = SAMPLES // BATCH * EPOCHS
# High enough for any process: no run is to be warned of the memory that it takes.
NUMBERS = {"low": 1, "expected": 2, "high": 1 << 50}
PREDICTED = (
    "tensor_peak_bytes", "reserved_peak_bytes", "device_peak_bytes", "step_seconds",
    "run_seconds", "checkpoint_bytes",
)  # fmt: skip


def plan_of(seed: int, workers: int) -> Plan:
    chance = random.Random(seed)
    micro = chance.choice([1, 4, 8, 16])
    return Plan.model_validate(
        {
            "schema": 1, "made_by": "benchmarks", "recipe": "none",
            "task": {"file": "task.py", "sha256": "0" * 64},
            "run": {"name": "x", "directory": "x", "seed": seed, "log_every_steps": 3},
            "device": {"kind": "cpu", "index": 0, "threads": 1},
            "memory": {"share": 0.8, "budget_bytes": 1 << 30},
            "batch": {
                "micro_batch": micro, "accum_steps": BATCH // micro, "world_size": 1,
                "global_batch": BATCH,
            },
            "precision": {"dtype": "fp32"},
            "optimizer": {
                "name": chance.choice(["adamw", "sgd", "rmsprop"]), "lr": 1e-3,
                "weight_decay": 0.0, "implementation": "foreach", "clip_norm": 1.0,
            },
            "schedule": {"name": "cosine", "warmup_steps": 3, "min_lr": 0.0},
            "train": {"epochs": EPOCHS}, "early_stop": {"min_delta": 0.0},
            "evaluate": {"every_epochs": 2}, "checkpoint": {"every_epochs": 1, "keep": 2},
            "loader": {
                "workers": workers, "prefetch": 2, "pin_memory": False, "start_method": "fork",
                **({"timeout_seconds": 2.0} if workers else {}),
            },
            "heal": {"spike_score": 10.0, "bad_samples": 0.05},
            "data": {"valid_share": 0.2},
            "inputs": {"hardware": "", "dataset": "", "model": ""},
            "predicted": dict.fromkeys(PREDICTED, NUMBERS),
        }
    )  # fmt: skip


class Rows(torch.utils.data.Dataset[Any]):
    """8 numbers, the sum of their sines, and the sample's own number. `meet(index)` may fail."""

    def __init__(self, first: int, count: int, meet: Callable[[int], None] | None = None) -> None:
        generator = torch.Generator().manual_seed(first)
        self.x = torch.randn(count, 8, generator=generator)
        self.meet = meet

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor, int]:
        if self.meet is not None:
            self.meet(index)
        return self.x[index], self.x[index].sin().sum(0, keepdim=True), index


def task_of(meet: Callable[[int], None] | None = None) -> Task:
    def loss(model: nn.Module, batch: Any) -> Loss:
        error = (model(batch[0]) - batch[1]).square().sum()
        return Loss(total=error, weight=len(batch[0]))

    def net() -> nn.Module:
        return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))

    return Task(model=net, train=Rows(1, SAMPLES, meet), valid=Rows(2, VALID), loss=loss)


def nothing_met(_told: Sequence[str]) -> bool:
    """Of a case without a fault: nothing can be told of it."""
    return False


class Case(NamedTuple):
    """A task with its fault, what is to be done around the run, and the plan's loader workers.

    `told_by(faults)`: whether these name each fault that the run has met, and it has met one.
    """

    task: Task
    told_by: Callable[[Sequence[str]], bool] = nothing_met
    workers: int = 0
    exact: bool = False
    step: Callable[..., Any] | None = None


def each_of(met: list[str]) -> Callable[[Sequence[str]], bool]:
    """Each failure that was met has a word of its own; no other running out of memory is told."""

    def told(faults: Sequence[str]) -> bool:
        mine = [fault for fault in faults if fault.startswith("out of memory")]
        return bool(met) and sorted(mine) == sorted(f"out of memory: {each}" for each in met)

    return told


def all_of(*patterns: str) -> Callable[[Sequence[str]], bool]:
    """Each pattern is found in one of the faults at least."""
    return lambda faults: all(any(re.search(p, fault) for fault in faults) for p in patterns)


def steps_of(met: set[int], what: str, *, all_told: bool) -> Callable[[Sequence[str]], bool]:
    """The steps that were met, all or the first and last, are those of which `what` is told."""

    def told(faults: Sequence[str]) -> bool:
        named = {n for fault in faults if fault.startswith(what) for n in _numbers(fault)}
        return bool(met) and (met if all_told else {min(met), max(met)}) <= named <= met

    return told


def _numbers(fault: str) -> set[int]:
    """`... at steps 7 to 9 and 12 (samples ...)` -> {7, 8, 9, 12}."""
    said = re.search(r" at steps? ([\d, toand]+)", fault)
    ranges = re.findall(r"(\d+)(?: to (\d+))?", said[1]) if said else []
    return {n for low, high in ranges for n in range(int(low), int(high or low) + 1)}


class _Backwards(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: torch.Tensor, fails: bool) -> torch.Tensor:
        context.fails = fails
        return x.clone()

    @staticmethod
    def backward(context: Any, *grads: torch.Tensor) -> Any:
        if context.fails:
            raise torch.OutOfMemoryError("CUDA out of memory, in backward")
        return grads[0], None


def memory(chance: random.Random) -> Case:
    at = {chance.randint(1, STEPS): chance.random() < 0.5 for _ in range(chance.randint(1, 5))}
    task, read, met = task_of(), dict[float, int](), list[str]()

    def loss(model: Any, batch: Any) -> Loss:
        if not model.training:
            return task.loss(model, batch)
        place = float(model[0].weight.detach().double().sum())  # another one after each step
        read[place] = read.get(place, 0) + len(batch[0])
        now = chance.random() < 0.5 or read[place] >= BATCH
        backwards = at.pop(len(read), None) if now else None
        if backwards is not None:
            met.append(f"CUDA out of memory, in {'backward' if backwards else 'forward'}")
        if backwards is False:
            raise torch.OutOfMemoryError(met[-1])
        x, y, _ = batch
        out = model(x)
        out = _Backwards.apply(out, True) if backwards else out
        return Loss(total=(out - y).square().sum(), weight=len(x))

    return Case(dataclasses.replace(task, loss=loss), each_of(met), exact=True)


def update(chance: random.Random) -> Case:
    at, calls, met = chance.randint(1, STEPS), [0], list[str]()

    def failing(step: Callable[..., Any]) -> Callable[..., Any]:
        def half(optimizer: Any, *arguments: Any) -> Any:
            calls[0] += 1
            if calls[0] == at:
                with torch.no_grad():
                    optimizer.param_groups[0]["params"][0].add_(1.0)
                met.append("CUDA out of memory, in the update")
                raise torch.OutOfMemoryError(met[-1])
            return step(optimizer, *arguments)

        return half

    return Case(task_of(), each_of(met), exact=True, step=failing)


def spoilt(by: float, what: str, *, lasting: bool = False) -> Callable[[random.Random], Case]:
    def make(chance: random.Random) -> Case:
        # A spike is one only when losses are known; what lasts takes three returns, ten steps each.
        first = chance.randint(24 if by == 1e4 else 1, STEPS - (45 if lasting else 4))
        wanted = {chance.randint(first, STEPS) for _ in range(chance.randint(1, 5))}
        task, seen, met = task_of(), [0], set[int]()

        def loss(model: Any, batch: Any) -> Loss:
            made = task.loss(model, batch)
            if not model.training:
                return made
            now = seen[0] // BATCH + 1
            seen[0] += len(batch[0])
            bad = now >= first if lasting else now in wanted
            met.update([now] if bad else [])
            return dataclasses.replace(made, total=made.total * (by if bad else 1.0))

        return Case(dataclasses.replace(task, loss=loss), steps_of(met, what, all_told=not lasting))

    return make


def _once(path: str) -> bool:
    """True the first time, in whatever process."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def at_a_sample(act: Callable[[], None], what: str) -> Callable[[random.Random], Case]:
    def make(chance: random.Random) -> Case:
        victim, mark = chance.randrange(SAMPLES), f"{tempfile.mkdtemp()}/done"
        reads = chance.randint(1, EPOCHS - 1)

        def meet(index: int) -> None:
            # Only the last of so many times that it is read.
            read = index == victim and next((i for i in range(reads) if _once(f"{mark}{i}")), None)
            if read == reads - 1 and read is not False:
                act()

        return Case(
            task_of(meet), all_of(rf"^a loader worker {what}.*sample {victim}\b"), workers=2
        )

    return make


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _hang() -> None:
    time.sleep(3600)


def sample(chance: random.Random) -> Case:
    bad = {chance.randrange(SAMPLES) for _ in range(chance.randint(1, 2))}

    def meet(index: int) -> None:
        if index in bad:
            raise ValueError(f"sample {index} is torn")

    torn = [rf"sample {index} is torn" for index in bad]
    return Case(task_of(meet), all_of(*torn), workers=chance.choice([0, 2]))


CASES: dict[str, Callable[[random.Random], Case]] = {
    "memory": memory,
    "update": update,
    "nan": spoilt(float("nan"), "the loss became nan"),
    "infinity": spoilt(float("inf"), "the loss became inf"),
    "spike": spoilt(1e4, "the loss rose"),
    "lasting": spoilt(float("nan"), "the loss became nan", lasting=True),
    "killed": at_a_sample(_die, "was killed by SIGKILL"),
    "hang": at_a_sample(_hang, "hangs"),
    "sample": sample,
}


class Outcome(NamedTuple):
    """How a run ended: its events, the error if there was one, and its last weights."""

    events: list[Any]
    error: AutotrainError | None
    weights: dict[str, torch.Tensor]


def carry_out(plan: Plan, case: Case) -> Outcome:
    kinds = (torch.optim.AdamW, torch.optim.SGD, torch.optim.RMSprop)
    before = [kind.step for kind in kinds]
    with tempfile.TemporaryDirectory() as folder:
        events: list[Any] = []
        error = None
        try:
            for kind in kinds:
                if case.step is not None:
                    kind.step = case.step(kind.step)  # type: ignore[method-assign]
            for event in train(plan, case.task, Path(folder), task_file=Path(folder) / "task.py"):
                events.append(event)
        except AutotrainError as caught:
            error = caught
        finally:
            for kind, step in zip(kinds, before, strict=True):
                kind.step = step  # type: ignore[method-assign]
        path, _ = checkpoint.newest_good(Path(folder))
        found = checkpoint.load(path).model.tensors if path else {}
        return Outcome(events, error, {key: value.clone() for key, value in found.items()})


def judged(outcome: Outcome, case: Case) -> str:
    """`healed`, `named`, or what else it was."""
    if not all(bool(value.isfinite().all()) for value in outcome.weights.values()):
        return "weights that are not finite"
    last = outcome.events[-1] if outcome.events else None
    if last is None or last.name != "stopped":
        return "no word at the end"
    told = [event.fault for event in outcome.events if event.name == "healed"]
    if outcome.error is not None:
        named = last.reason in ("not_finite", "out_of_memory")
        return "named" if named and case.told_by([*told, last.detail]) else str(outcome.error)
    finished = last.reason == "finished"
    return "healed" if finished and case.told_by(told) else f"{last.reason}, fault not told"


def difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max(float((one[k] - other[k]).abs().max() / one[k].abs().max()) for k in one)


def measured(name: str, times: int, seed: int) -> tuple[Counter[str], float]:
    """What became of so many runs with that fault, and how far the weights went astray."""
    found: Counter[str] = Counter()
    furthest = 0.0
    for number in range(seed, seed + times):
        case = CASES[name](random.Random(number))
        plan = plan_of(number, case.workers)
        outcome = carry_out(plan, case)
        verdict = judged(outcome, case)
        if verdict not in ("healed", "named"):
            print(f"  {name}, seed {number}: {verdict}", flush=True)
        found[verdict if verdict in ("healed", "named") else "else"] += 1
        if case.exact and outcome.weights:
            whole = carry_out(plan, Case(task_of())).weights
            furthest = max(furthest, difference(whole, outcome.weights))
    return found, furthest


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--only", default=",".join(CASES))
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'fault':10}{'runs':>6}{'healed':>8}{'named':>7}{'else':>6}   difference")
    for name in asked.only.split(","):
        found, furthest = measured(name, asked.times, asked.seed)
        shown = f"   {furthest:.1e}" if name in ("memory", "update") else ""
        counts = f"{found['healed']:8}{found['named']:7}{found['else']:6}"
        print(f"{name:10}{sum(found.values()):6}{counts}{shown}", flush=True)


if __name__ == "__main__":
    main()
