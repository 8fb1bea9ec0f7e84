"""A plan's settings beside every other way to run the same step: is it the fastest?

python benchmarks/choice.py [--models a,b] [--batch 32] [--compile]

For each model of cells.py with a global batch of 32: plans without and with a trial, then a sweep
over micro_batch x threads x precision x memory format, and for the fastest of those loader workers
(and, with --compile, the compiled model too). All are runs of autotrain's own loop. The sweep
takes four steps of each; the fastest few, the plans' own and the plain way (fp32, the batch at
once) then run again in turns, and only these count. Nothing else should be running.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path
from typing import NamedTuple

import cells

from autotrain import planfile
from autotrain.events import Step
from autotrain.run.loop import train

HERE = Path(__file__).parent
AUTOTRAIN = [sys.executable, "-m", "autotrain"]
SWEPT_STEPS, STEPS, LEFT_OUT, ROUNDS, FINALISTS = 4, 8, 2, 5, 4


class Way(NamedTuple):
    """How a step is run."""

    micro_batch: int
    threads: int
    dtype: str
    memory_format: str
    compile: bool
    workers: int


def way_of(plan):
    """How that plan, of `plan --json` or a Plan, runs a step."""
    model = plan["model"]
    return Way(
        plan["batch"]["micro_batch"], plan["device"]["threads"], plan["precision"]["dtype"],
        model["memory_format"], model["compile"], plan["loader"]["workers"],
    )  # fmt: skip


def planned(name, batch, place, *flags):
    """A plan of that model and batch, written to `place`."""
    settings = {
        "task.model": name, "batch.global_batch": batch, "run.log_every_steps": 1,
        "train.epochs": 100, "evaluate.every_epochs": 100, "checkpoint.every_epochs": 100,
    }  # fmt: skip
    sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    plan = [*AUTOTRAIN, "plan", "--task", HERE / "cells.py", *sets, "-o", place, "--json"]
    done = subprocess.run([*plan, *flags], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def as_way(plan, way):
    """The plan, run that way."""
    accum = math.ceil(plan.batch.global_batch / way.micro_batch)
    changed = {
        "batch": {"micro_batch": way.micro_batch, "accum_steps": accum},
        "device": {"threads": way.threads},
        "precision": {"dtype": way.dtype},
        "model": {"memory_format": way.memory_format, "compile": way.compile},
        "loader": {"workers": way.workers},
    }
    return plan.model_copy(
        update={key: getattr(plan, key).model_copy(update=new) for key, new in changed.items()}
    )


def taken(plan, name, way, steps):
    """Seconds of each step but the first few of a run that way."""
    with tempfile.TemporaryDirectory() as folder:
        events = train(
            as_way(plan, way), cells.task(None, name), Path(folder),
            task_file=HERE / "cells.py", max_steps=steps,
        )  # fmt: skip
        seconds = [event.step_seconds for event in events if isinstance(event, Step)]
    return [s for s in seconds if s > 0][min(LEFT_OUT, steps - 2) :]


def swept(plan, name, ways):
    """The median of a few steps of each way."""
    return {way: statistics.median(taken(plan, name, way, SWEPT_STEPS)) for way in ways}


def compared(plan, name, ways):
    """The median of each, run in turns."""
    seconds = {way: [] for way in ways}
    for _ in range(ROUNDS):
        for way in ways:
            seconds[way] += taken(plan, name, way, STEPS)
    return {way: statistics.median(found) for way, found in seconds.items()}


def judge(place, name, chosen, *, compile):
    """{way: seconds} of the finalists among them the plain way and the chosen ones."""
    plan = planfile.load(Path(place))
    batch, cores = plan.batch.global_batch, len(os.sched_getaffinity(0))
    sizes = sorted({batch // 8, batch // 4, batch // 2, batch, *(w.micro_batch for w in chosen)})
    # To a model without weights of four dimensions channels_last is nothing: the same way twice.
    pictures = any(weight.dim() == 4 for weight in cells.task(None, name).model().parameters())
    formats = ("contiguous", "channels_last") if pictures else ("contiguous",)
    grid = [
        Way(*made, False, 0)
        for made in product(sizes, sorted({1, cores}), ("fp32", "bf16"), formats)
    ]
    found = swept(plan, name, grid)
    best = sorted(found, key=found.__getitem__)[:FINALISTS]
    more = [best[0]._replace(workers=many) for many in (1, 2)]
    more += [way._replace(compile=True) for way in best[:2] if compile]
    found |= swept(plan, name, more)
    plain = Way(batch, cores, "fp32", "contiguous", False, 0)
    finalists = {*sorted(found, key=found.__getitem__)[:FINALISTS], *chosen, plain}
    return plain, compared(plan, name, [*finalists])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default=",".join(cells.HELD_OUT))
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--judge", help=argparse.SUPPRESS)  # the child: a plan, a model, ways
    arguments = parser.parse_args()
    if arguments.judge:
        place, name, chosen = json.loads(arguments.judge)
        chosen = [Way(*way) for way in chosen]
        plain, found = judge(place, name, chosen, compile=arguments.compile)
        print(json.dumps([plain, [[way, seconds] for way, seconds in found.items()]]))
        return
    shares = {"no trial": [], "trial": [], "beside plain": []}
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.models.split(","):
            place, other = (Path(folder) / f"{name}-{kind}.toml" for kind in ("blind", "tried"))
            blind = way_of(planned(name, arguments.batch, place, "--no-trial"))
            tried = way_of(planned(name, arguments.batch, other, "--trial"))
            given = json.dumps([str(place), name, [blind, tried]])
            command = [sys.executable, __file__, "--judge", given]
            command += ["--compile"] if arguments.compile else []
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            plain, rows = json.loads(done.stdout.splitlines()[-1])
            seconds = {Way(*way): taken for way, taken in rows}
            best = min(seconds, key=seconds.__getitem__)
            shares["no trial"].append(seconds[best] / seconds[blind])
            shares["trial"].append(seconds[best] / seconds[tried])
            shares["beside plain"].append(seconds[Way(*plain)] / seconds[tried])
            print(f"{name:18} best {seconds[best] * 1e3:8.2f} ms {describe(best)}; no trial "
                  f"{shares['no trial'][-1]:4.0%} {describe(blind)}; trial "
                  f"{shares['trial'][-1]:4.0%} {describe(tried)}; "
                  f"{shares['beside plain'][-1]:.2f} x plain", flush=True)  # fmt: skip
    for kind in ("no trial", "trial"):
        print(f"{kind}: of the best, median {statistics.median(shares[kind]):.0%}, worst "
              f"{min(shares[kind]):.0%}")  # fmt: skip
    ratios = shares["beside plain"]
    print(f"beside plain: {statistics.geometric_mean(ratios):.2f} x, {min(ratios):.2f} x at least")


def describe(way):
    words = [f"{way.micro_batch}", f"{way.threads}t", way.dtype]
    words += ["cl"] * (way.memory_format == "channels_last") + ["compiled"] * way.compile
    return "(" + " ".join(words + [f"{way.workers}w"] * bool(way.workers)) + ")"


if __name__ == "__main__":
    main()
