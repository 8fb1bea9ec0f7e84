"""A step by loader workers and threads, where loading computes on the model's cores, or waits.

python benchmarks/sharing.py [--name tones_separable] [--loading 16,48] [--waits 0,1] [--rounds 3]

The model and data of a task of learnable.py, each sample of which computes, or waits, for its part
of `--loading` milliseconds when it is read. Every way to share the cores takes a few steps of our
loop in turns: threads of the model x loader workers. Beside the medians: what a plan's formula says
of each way, and what a plan without trials chooses, against the best of them. Nothing else should
be running.
"""

import argparse
import dataclasses
import itertools
import statistics
import tempfile
import time
from pathlib import Path

import learnable
from choice import as_way, way_of
from naive import LOG_EVERY, planned
from torch.utils.data import Dataset

from autotrain import planfile
from autotrain.events import Step
from autotrain.run.loop import train

BATCH, STEPS = 32, 28
WAYS = [*itertools.product((2, 1), (0, 1, 2))]


class Slow(Dataset):
    """Samples that compute for so many seconds when they are read, and wait for so many."""

    def __init__(self, inner, computing, waiting):
        self.inner, self.computing, self.waiting = inner, computing, waiting

    def __len__(self):
        return len(self.inner)

    def __getitem__(self, index):
        until = time.thread_time() + self.computing
        while time.thread_time() < until:
            pass
        if self.waiting:
            time.sleep(self.waiting)
        return self.inner[index]


def task(data, name="tones_separable", milliseconds=0.0, waits=0.0):
    made = learnable.TASKS[name]()
    each = milliseconds / 1e3 / BATCH
    train = Slow(made.train, (1 - waits) * each, waits * each)
    return dataclasses.replace(made, train=train)


def taken(plan, options):
    """Seconds of each stretch of a run of that plan, the first left out."""
    with tempfile.TemporaryDirectory() as folder:
        events = train(plan, task(None, **options), Path(folder), task_file=Path(__file__),
                       max_steps=STEPS)  # fmt: skip
        seconds = [event.step_seconds for event in events if isinstance(event, Step)]
    return seconds[1:]


def measured(options, rounds):
    settings = {f"task.{key}": value for key, value in options.items()}
    settings |= {"batch.global_batch": BATCH, "precision.dtype": "fp32", "train.epochs": 3,
                 "run.log_every_steps": LOG_EVERY, "loader.keep": "off"}  # fmt: skip
    found, said = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "plan.toml")
        flags = ["--no-trial"]
        chosen = way_of(planned(place, settings, *flags, file=__file__))
        plan = planfile.load(place)
        for threads, workers in WAYS:
            fixed = settings | {"device.threads": threads, "loader.workers": workers}
            made = planned(Path(folder, "way.toml"), fixed, *flags, file=__file__)
            said[threads, workers] = made["predicted"]["step_seconds"]["expected"]
    own = chosen.threads, chosen.workers
    for _ in range(rounds):
        for threads, workers in dict.fromkeys([*WAYS, own]):
            way = chosen._replace(threads=threads, workers=workers)
            found.setdefault((threads, workers), []).extend(taken(as_way(plan, way), options))
    took = {way: statistics.median(seconds) for way, seconds in found.items()}
    told = [f"{t} x {w}: {took[t, w] * 1e3:.0f} ({said[t, w] * 1e3:.0f})" for t, w in WAYS]
    share = min(took.values()) / took[own]
    which = f"{options['milliseconds']:g} ms, {options['waits']:.0%} waiting"
    print(f"{which}: ms by threads x workers "
          f"(said): {', '.join(told)}; chosen {own[0]} x {own[1]}, {share:.0%} of the best",
          flush=True)  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", default="tones_separable")
    parser.add_argument("--loading", default="16,48,96")
    parser.add_argument("--waits", default="0,1")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    for waits, loading in itertools.product(
        map(float, arguments.waits.split(",")), map(float, arguments.loading.split(","))
    ):
        options = {"name": arguments.name, "milliseconds": loading, "waits": waits}
        measured(options, arguments.rounds)


if __name__ == "__main__":
    main()
