"""Validation: sums over the whole set, divided once, so that no batch split changes a figure."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from autotrain.errors import AutotrainError
from autotrain.run.healing import faults
from autotrain.run.loading.feed import NOTHING
from autotrain.run.losses import sound
from autotrain.run.meter import Number, Tally, detached
from autotrain.run.seeds import VALID_FORWARD, mixed, seed_all
from autotrain.run.signals import Stop
from autotrain.run.state import Run
from autotrain.run.trained import Trained

if TYPE_CHECKING:
    from autotrain.run.processes.ranks import Ranks

# Micro-batches of each process between two looks at whether another one wishes to stop.
MEET_EVERY = 8


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


Also = Callable[[Any], None]


def evaluate(run: Run | Trained, stop: Stop, also: Also | None = None) -> Figures | None:
    """One pass over the validation set in eval mode; None if asked to stop on the way.

    Of a run that averages its weights, these are tried; whatever happens here, it goes on with
    its own. Sums stay on the device until the end and are added up in float64. `also` is given
    each micro-batch, once it has been counted.
    """
    tally = Tally()
    run.model.eval()
    try:
        # no_grad, not inference_mode: a cache that a model fills here must serve in training.
        with _weights(run), torch.no_grad():
            if isinstance(run, Run) and run.ranks is not None:
                return _shared(run, run.ranks)
            for number, _ in enumerate(run.feed.itinerary.validation()):
                if stop.reason is not None:
                    return None
                _try(run, number, tally, also)
    except Exception as error:
        if stop.reason and faults.lost_workers(error):
            return None
        raise
    finally:
        run.model.train()
    return _figures(tally.read())


def _try(run: Run | Trained, number: int, tally: Tally, also: Also | None = None) -> None:
    """Count one micro-batch."""
    taken = run.feed.take(None)
    if taken is not NOTHING:
        batch = run.form.batch(taken)
        seed_all(mixed(run.plan.run.seed, VALID_FORWARD, number), run.device)
        tally.add(_row(run, batch))
        if also is not None:
            also(batch)


def _shared(run: Run, ranks: Ranks) -> Figures | None:
    """The pass where each process tries its share; all stop together, or fail together."""
    from autotrain.run.processes import sharing

    sharing.share_all(run.model, ranks.buffers)
    doing = f"evaluating after step {run.state.step}"
    with nullcontext() if run.shards is None else run.shards.whole(doing):
        return _in_turn(run, ranks, doing)


def _in_turn(run: Run, ranks: Ranks, doing: str) -> Figures | None:
    tally, error, count = Tally(), None, len(run.feed.itinerary.validation())
    for turn, first in enumerate(range(0, count, ranks.world)):
        if turn % MEET_EVERY == 0:
            ranks.meet({}, {}, error, doing)
            if ranks.stop.reason is not None:
                return None
        try:
            if error is None and first + ranks.rank < count:
                _try(run, first + ranks.rank, tally)
        except Exception as caught:
            error = caught
    ranks.compare(error, doing)
    return _figures(ranks.total(tally.read()))


def _weights(run: Run | Trained) -> AbstractContextManager[None]:
    """Within, the model has the weights that are tried: those of a checkpoint it has already."""
    average = run.average if isinstance(run, Run) else None
    return nullcontext() if average is None else average.in_place()


def _row(run: Run | Trained, batch: object) -> dict[str, Number]:
    loss = run.loss(batch)
    row: dict[str, Number] = {"loss sum": loss.total, "loss count": sound(detached(loss.weight))}
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
