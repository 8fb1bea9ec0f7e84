"""Validation: sums over the whole set, divided once, so that no batch split changes a figure."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from autotrain.errors import AutotrainError
from autotrain.run import faults
from autotrain.run.meter import Number, Tally
from autotrain.run.seeds import VALID_FORWARD, mixed, seed_all
from autotrain.run.signals import Stop
from autotrain.run.state import Run


@dataclass(frozen=True)
class Figures:
    """Means over the validation set: the loss per weight, each measure per its count."""

    loss: float
    metrics: dict[str, float]

    def monitored(self, name: str) -> float:
        """The figure a task monitors. Raises AutotrainError where there is none of that name."""
        if name == "loss":
            return self.loss
        if name not in self.metrics:
            known = ", ".join(["loss", *self.metrics])
            raise AutotrainError(
                f"the task monitors {name!r}, which its measure does not return",
                f"monitor one of: {known}",
            )
        return self.metrics[name]


def evaluate(run: Run, stop: Stop) -> Figures | None:
    """One pass over the validation set in eval mode; None if asked to stop on the way.

    Sums stay on the device until the end and are added up in float64.
    """
    tally = Tally()
    run.model.eval()
    try:
        # no_grad, not inference_mode: a cache that a model fills here must serve in training.
        with torch.no_grad():
            for number, _ in enumerate(run.feed.itinerary.validation()):
                if stop.reason is not None:
                    return None
                batch = run.form.batch(run.feed.take(None))
                seed_all(mixed(run.plan.run.seed, VALID_FORWARD, number), run.device)
                tally.add(_row(run, batch))
    except Exception as error:
        if stop.reason and faults.lost_workers(error):
            return None
        raise
    finally:
        run.model.train()
    return _figures(tally.read())


def _row(run: Run, batch: object) -> dict[str, Number]:
    loss = run.loss(batch)
    row: dict[str, Number] = {"loss sum": loss.total, "loss count": loss.weight}
    if run.task.measure is not None:
        with run.precision.autocast():
            measured = run.task.measure(run.model, batch)
        for name, (total, count) in measured.items():
            row[f"measure {name} sum"], row[f"measure {name} count"] = total, count
    return row


def _figures(sums: dict[str, float]) -> Figures:
    names = [key.removesuffix(" sum") for key in sums if key.endswith(" sum")]
    means = {name: _mean(sums[f"{name} sum"], sums[f"{name} count"]) for name in names}
    loss = means.pop("loss")
    return Figures(loss, {name.removeprefix("measure "): mean for name, mean in means.items()})


def _mean(total: float, count: float) -> float:
    return total / count if count else math.nan
