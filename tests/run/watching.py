"""Simulated runs for the tests of the red flags: figures in, warnings out, no training."""

import math
import random
from dataclasses import asdict, dataclass, field

from autotrain.events import Evaluated, Step, Warned
from autotrain.run.cadence import Cadence
from autotrain.run.watching import watch
from autotrain.run.watching.history import History

from .plans import make_plan

CONSTANT = {"name": "constant", "warmup_steps": 0, "min_lr": None}


def a_plan(epochs=60, log_every=10, clip_norm=None, name="adamw", **more):
    optimizer = {"name": name, "lr": 1e-2, "clip_norm": clip_norm}
    return make_plan(
        train={"epochs": epochs}, run={"log_every_steps": log_every}, optimizer=optimizer,
        schedule=CONSTANT, **more,
    )  # fmt: skip


def point(step, loss, **more):
    usual = {
        "epoch": 1, "parts": {}, "lr": 1e-2, "grad_norm": 1.0, "samples": 80, "weight": 80.0,
        "step_seconds": 0.1, "wait_seconds": 0.0, "device_bytes": 0, "peak_bytes": 0,
    }  # fmt: skip
    return Step(step=step, loss=loss, **{**usual, **more})


@dataclass
class Watched:
    """A run of epochs of 50 steps, a log point every 10, an evaluation every epoch."""

    plan: object = field(default_factory=a_plan)
    better: str = "lower"
    history: History = field(default_factory=History)
    told: list[Warned] = field(default_factory=list)
    step: int = 0

    @property
    def way(self):
        return Cadence.of(self.plan, 50)

    @property
    def messages(self):
        return [each.message for each in self.told]

    def log(self, loss=None, losses=(), **more):
        """Without a loss of its own: one that falls."""
        self.step += 10
        loss = 50 / (50 + self.step) if loss is None else loss
        made = point(self.step, loss, **more)
        losses = losses or [loss] * 10
        self.told += watch.log_point(self.history, made, losses, self.plan, self.way)

    def logs(self, count, loss=None, **more):
        for _ in range(count):
            self.log(loss, **more)

    def evaluate(self, loss=1.0, monitored=None, **metrics):
        event = Evaluated(
            step=self.step, epoch=self.step // 50, loss=loss, metrics=metrics, best=False,
            bad_evaluations=0, seconds=0.1,
        )  # fmt: skip
        figure = loss if monitored is None else monitored
        self.told += watch.evaluation(self.history, event, figure, self.better, self.plan, self.way)

    def epochs(self, count, train, valid, *, lr=lambda _: 1e-2, noise=0.0, seed=0):
        """`train`, `valid`: loss by step; noise as a share of them, from a seed of its own."""
        draw = random.Random(seed)
        for _ in range(count):
            for _ in range(5):
                at = self.step + 10
                losses = [train(n) * (1 + noise * draw.gauss(0, 1)) for n in range(at - 9, at + 1)]
                self.log(math.fsum(losses) / 10, losses, lr=lr(at))
            self.evaluate(valid(self.step) * (1 + noise / 3 * draw.gauss(0, 1)))

    def saved(self):
        """As it comes back from a checkpoint's JSON."""
        import json

        self.history = History(**json.loads(json.dumps(asdict(self.history))))
