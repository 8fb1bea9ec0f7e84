"""Invented runs: curves of many shapes, with noise of many kinds, as events.

Nothing here knows the rules that are to judge them. What a run has is said by how it is made:
validation that turns up, losses that stand still, steps that wait. Scale, length, noise, how often
is logged and evaluated are drawn anew for each seed.
"""

import math
import random

from plans import a_plan, a_step, evaluated, started, stopped

from autotrain.report.result import collect

LENGTHS = (12, 20, 30, 50, 80, 120)  # epochs
SHAPES = {
    "exponential": lambda x, k: math.exp(-k * x),
    "power": lambda x, k: (1 + 9 * k * x) ** -1.0,
    "logistic": lambda x, k: 1 / (1 + math.exp(3 * k * (x - 0.8 / k))) * (1 + math.exp(-2.4)),
}


class Made:
    """A run in the making; `train` and `valid` are losses by the share of the way, 0 to 1."""

    def __init__(self, seed, train, valid, **more):
        self.random = random.Random(seed)
        draw = self.random
        self.epochs = more.get("epochs") or draw.choice(LENGTHS)
        self.per_epoch = more.get("per_epoch") or draw.choice((5, 10, 40, 100))
        self.log_every = more.get("log_every") or draw.choice((1, 2, 5))
        self.eval_every = more.get("eval_every", 1)
        self.noise = more.get("noise", math.exp(draw.uniform(math.log(0.003), math.log(0.05))))
        self.valid_noise = more.get(
            "valid_noise", math.exp(draw.uniform(math.log(0.003), math.log(0.05)))
        )
        self.keeps = more.get(
            "keeps", draw.choice((0.0, 0.0, 0.5, 0.8))
        )  # of itself, from one to the next
        self.scale = more.get("scale", 10 ** draw.uniform(-2, 2))
        self.train, self.valid = train, valid
        self.lr = more.get("lr", draw.choice((constant, constant, cosine)))
        self.wait = more.get("wait", lambda: draw.uniform(0.0, 0.08))
        self.step_seconds = more.get("step_seconds", 10 ** draw.uniform(-1.5, 0.5))
        self.tails = more.get("tails", draw.choice((False, False, True)))
        self.spoil = more.get("spoil")
        self.end = more.get("end", "finished")
        self.stop_at = more.get("stop_at", 1.0)
        self.metric = more.get("metric")

    def gauss(self):
        if self.tails and self.random.random() < 0.05:
            return self.random.gauss(0, 3)
        return self.random.gauss(0, 1)

    def events(self):
        total = self.epochs * self.per_epoch
        monitor = {"monitor": self.metric[0], "better": self.metric[1]} if self.metric else {}
        events = [
            started(
                epochs=self.epochs,
                per_epoch=self.per_epoch,
                **monitor,
                valid_count=self.random.choice((100, 1000, 5000)),
            )
        ]
        best, wander = math.inf, 0.0
        last = round(total * self.stop_at)
        for step in range(1, last + 1):
            x = step / total
            if step % self.log_every == 0:
                loss = self.scale * self.train(x) * (1 + self.noise * self.gauss())
                if self.spoil:
                    loss = self.spoil(step, total, loss, self.random)
                seconds = self.step_seconds * math.exp(self.random.gauss(0, 0.08))
                events.append(
                    a_step(
                        step,
                        self.per_epoch,
                        loss=loss,
                        lr=1e-3 * self.lr(x),
                        step_seconds=seconds,
                        wait_seconds=min(self.wait(), 1.0) * seconds,
                        samples=8 * self.log_every,
                        parts={},
                    )
                )
            if step % (self.per_epoch * self.eval_every) == 0:
                wander = self.keeps * wander + math.sqrt(1 - self.keeps**2) * self.gauss()
                loss = self.scale * self.valid(x) * (1 + self.valid_noise * wander)
                if self.spoil:
                    loss = self.spoil(step, total, loss, self.random)
                metrics = {}
                figure = loss
                if self.metric:
                    value = self.metric[2](x) + self.metric[3] * self.gauss()
                    metrics = {self.metric[0]: value}
                    figure = value if self.metric[1] == "lower" else -value
                events.append(
                    evaluated(
                        step, loss, best=figure < best, per_epoch=self.per_epoch, metrics=metrics
                    )
                )
                best = min(best, figure) if figure == figure else best
        if self.end:
            events.append(stopped(last, self.end))
        return events

    def result(self, **plan):
        plan = a_plan(
            run={"log_every_steps": self.log_every},
            train={"epochs": self.epochs},
            early_stop={"patience": None},
            **plan,
        )
        return collect(self.events(), plan), plan


def constant(_x):
    return 1.0


def cosine(x):
    return 0.5 * (1 + math.cos(math.pi * x)) + 1e-4


def overfitting(seed, **more):
    draw = random.Random(seed + 1000)
    shape = SHAPES[draw.choice([*SHAPES])]
    turn, height = draw.uniform(0.15, 0.6), draw.uniform(0.15, 1.0)
    floor, k = draw.uniform(0.1, 0.5), draw.uniform(3, 8)

    def train(x):
        return 0.02 + 2.2 * shape(x, k) * (1 - 0.3 * x)

    def valid(x):
        low = floor + 2.0 * shape(min(x, turn), k)
        return low + height * low * max(x - turn, 0) / (1 - turn) * 1.2

    return Made(seed, train, valid, **more)


def plateau(seed, **more):
    draw = random.Random(seed + 2000)
    floor = draw.uniform(0.35, 0.7)
    k = draw.uniform(10, 30)
    gap = draw.uniform(1.0, 1.15)
    more.setdefault("lr", constant)

    def train(x):
        return 2.3 * (floor + (1 - floor) * math.exp(-k * x))

    return Made(seed, train, lambda x: gap * train(x), **more)


def converged(seed, **more):
    draw = random.Random(seed + 3000)
    floor, k, gap = draw.uniform(0.01, 0.1), draw.uniform(6, 15), draw.uniform(1.0, 1.3)

    def train(x):
        return 2.3 * (floor + (1 - floor) * math.exp(-k * x))

    return Made(seed, train, lambda x: gap * train(x), **more)


def underfitting(seed, **more):
    draw = random.Random(seed + 4000)
    kind = draw.choice(("slow", "flat"))
    drop, gap = draw.uniform(0.05, 0.4), draw.uniform(1.0, 1.08)
    more.setdefault("noise", draw.uniform(0.003, 0.03))
    more.setdefault("valid_noise", draw.uniform(0.003, 0.03))

    def train(x):
        return 2.3 * (1 - drop * x) if kind == "slow" else 2.3 * (1 - 0.2 * drop * min(5 * x, 1))

    return Made(seed, train, lambda x: gap * train(x), **more)


def improving(seed, **more):
    draw = random.Random(seed + 5000)
    k, gap = draw.uniform(1.5, 2.6), draw.uniform(1.0, 1.1)
    more.setdefault("lr", constant)

    def train(x):
        return 2.3 * (0.02 + 0.98 * math.exp(-k * x))

    return Made(seed, train, lambda x: gap * train(x), **more)


def starved(seed, **more):
    draw = random.Random(seed + 6000)
    share = draw.uniform(0.3, 0.85)
    more.setdefault("wait", lambda: share * math.exp(draw.gauss(0, 0.15)))
    return draw.choice((converged, improving, plateau))(seed, **more)


def nan(seed, **more):
    draw = random.Random(seed + 7000)
    begin, kind = draw.uniform(0.1, 0.9), draw.choice(("for good", "once", "infinite", "rising"))

    def spoil(step, total, loss, _draw):
        x = step / total
        if x < begin:
            return loss
        if kind == "for good":
            return math.nan
        if kind == "infinite":
            return math.inf
        if kind == "once":
            return math.nan if x < begin + 0.05 else loss
        return loss * math.exp(12 * (x - begin)) if x < begin + 0.2 else math.nan

    return draw.choice((converged, improving))(
        seed, spoil=spoil, end=draw.choice(("finished", "not_finite")), **more
    )


def diverging(seed, **more):
    draw = random.Random(seed + 8000)
    turn, rate = draw.uniform(0.2, 0.7), draw.uniform(5, 9)

    def spoil(step, total, loss, _draw):
        return loss * math.exp(rate * max(step / total - turn, 0))

    return improving(seed, spoil=spoil, **more)


def spiky(seed, **more):
    def spoil(step, total, loss, draw):
        return loss * draw.uniform(3, 20) if draw.random() < 0.03 else loss

    more.setdefault("epochs", 50)
    more.setdefault("per_epoch", 40)
    return converged(seed, spoil=spoil, **more)


def too_large(seed, **more):
    draw = random.Random(seed + 9000)
    more.setdefault("per_epoch", draw.choice((1, 2, 3)))
    more.setdefault("log_every", 1)
    more.setdefault("epochs", draw.choice((12, 20, 30, 60)))
    more.setdefault("noise", draw.uniform(0.002, 0.01))
    drop = draw.uniform(0.1, 0.4)

    def train(x):
        return 2.3 * (1 - drop * x)

    return Made(seed, train, lambda x: 1.02 * train(x), **more)


KINDS = {
    "overfitting": overfitting, "plateau": plateau, "converged": converged,
    "underfitting": underfitting, "improving": improving, "starved": starved, "nan": nan,
    "diverging": diverging, "spiky": spiky, "too_large": too_large,
}  # fmt: skip
VERDICTS = {
    "nan": "unstable",
    "diverging": "unstable",
    "spiky": "unstable",
    "too_large": "batch_too_large",
}
