"""Samples per second of a plan, beside the loop that one writes by hand with torch's defaults.

python benchmarks/naive.py [--tasks a,b] [--batch 32] [--epochs 3] [--rounds 5]

Both train the same model of learnable.py with the same global batch, optimizer settings and
schedule, each in a process of its own. The plain loop is torch as it comes: fp32, a DataLoader
that shuffles, the batch at once, the optimizer's default implementation, no setting of the
environment. The plan is what `autotrain plan` decides, its trial and race included, and `run`
carries it out with logging, checkpoints and healing armed; the report of a first evaluation, which
would be written during most of so short a run, is off (report_cost.py has it). Runs take turns;
of each one the median of its steps counts, those of the first epoch left out, and of all rounds
the median of their ratios, with the lowest and the highest. The validation losses at the end stand
beside each other: each run's own start and order of samples differ. Nothing else should be
running.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import learnable
import torch
from torch.utils.data import DataLoader

from autotrain import Task, optimizer, planfile
from autotrain.run.schedule import Schedule

HERE = Path(__file__).parent
AUTOTRAIN = [sys.executable, "-m", "autotrain"]
LOG_EVERY = 4


def planned(
    place: Path, settings: dict[str, object], *flags: str, file: str = "learnable.py"
) -> dict:
    """A plan of a task of that file, `task.name` among its settings, written to `place`."""
    sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    plan = [*AUTOTRAIN, "plan", "--task", HERE / file, *sets, "-o", place, "--json"]
    return json.loads(
        subprocess.run([*plan, *flags], capture_output=True, text=True, check=True).stdout
    )


def ours(place: Path, number: int) -> tuple[list[float], float]:
    """Seconds a step of each stretch behind the first epoch, and the last validation loss."""
    command = [*AUTOTRAIN, "run", place, "--json", *(["--fresh"] if number else [])]
    quiet = {**os.environ, "AUTOTRAIN_REPORTS": "off"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=quiet)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    evaluated = [event for event in events if event["event"] == "evaluated"]
    taken = [e["step_seconds"] for e in events
             if e["event"] == "step" and e["step"] > evaluated[0]["step"] + LOG_EVERY]  # fmt: skip
    return taken, evaluated[-1]["loss"]


def plain(place: Path, seed: int) -> None:
    """The loop by hand, in this process; prints what `ours` returns."""
    plan = planfile.load(place)
    torch.manual_seed(seed)
    task = learnable.task(None, plan.task.options["name"])
    model = task.model()
    usual = plan.optimizer.model_copy(update={"implementation": "for-loop"})
    made, clip = optimizer.build(usual, model), plan.optimizer.clip_norm
    batches = DataLoader(task.train, batch_size=plan.batch.global_batch, shuffle=True)
    epochs = plan.train.epochs
    schedule = Schedule(plan.schedule, plan.optimizer.lr, epochs * len(batches))
    taken: list[float] = []
    for epoch in range(epochs):
        asked = perf_counter()
        for number, batch in enumerate(batches):
            optimizer.set_rate(made, schedule.at(epoch * len(batches) + number))
            loss = task.loss(model, batch)
            (loss.total / loss.weight).backward()
            if clip is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
            made.step()
            made.zero_grad()
            now = perf_counter()
            if epoch and number:
                taken.append(now - asked)
            asked = now
    print(json.dumps([taken, validated(task, model, plan.batch.global_batch)]))


@torch.no_grad()
def validated(task: Task, model: torch.nn.Module, batch: int) -> float:
    """The mean validation loss."""
    model.eval()
    found = [task.loss(model, each) for each in DataLoader(task.valid, batch_size=batch)]
    return float(sum(each.total for each in found) / sum(each.weight for each in found))


def theirs(place: Path, number: int) -> tuple[list[float], float]:
    """`plain` in a process that autotrain has set nothing of."""
    command = [sys.executable, __file__, "--plain", place, "--seed", str(number)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return tuple(json.loads(done.stdout.splitlines()[-1]))


def compared(name: str, arguments: argparse.Namespace) -> float:
    """How many times as fast the plan is; prints it, and what was learned."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "plan.toml")
        made = planned(place, {
            "task.name": name, "batch.global_batch": arguments.batch,
            "run.log_every_steps": LOG_EVERY, "train.epochs": arguments.epochs,
        })  # fmt: skip
        taken: dict[str, list[float]] = {"plan": [], "plain": []}
        losses: dict[str, list[float]] = {"plan": [], "plain": []}
        for number in range(arguments.rounds):
            for who, run in (("plan", ours), ("plain", theirs)):
                seconds, loss = run(place, number)
                taken[who].append(statistics.median(seconds))
                losses[who].append(loss)
    ratios = [slow / fast for slow, fast in zip(taken["plain"], taken["plan"], strict=True)]
    fast, slow = (statistics.median(taken[who]) for who in ("plan", "plain"))
    ended = {who: f"{min(found):.4g} to {max(found):.4g}" for who, found in losses.items()}
    print(f"{name:18} plain {slow * 1e3:6.1f} ms, plan {fast * 1e3:6.1f} ms: "
          f"{statistics.median(ratios):.2f} x ({min(ratios):.2f} to {max(ratios):.2f}): "
          f"{made['precision']['dtype']}, {made['model']['memory_format']}, "
          f"{made['device']['threads']} threads, {made['batch']['micro_batch']} x "
          f"{made['batch']['accum_steps']}; loss {ended['plain']}, {ended['plan']}",
          flush=True)  # fmt: skip
    return statistics.median(ratios)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", default=",".join(learnable.TASKS))
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--plain", type=Path, help=argparse.SUPPRESS)  # the child: its plan
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.plain:
        plain(arguments.plain, arguments.seed)
        return
    unknown = {*arguments.tasks.split(",")} - {*learnable.TASKS}
    assert not unknown, f"no such tasks: {unknown}"
    ratios = [compared(name, arguments) for name in arguments.tasks.split(",")]
    print(f"{len(ratios)} tasks: {statistics.geometric_mean(ratios):.2f} x on the geometric mean, "
          f"{min(ratios):.2f} x at least")  # fmt: skip


if __name__ == "__main__":
    main()
