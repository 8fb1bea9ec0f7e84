"""The child process of `bench data`: a plan's samples, read as a run reads them and not trained on.

`python -m autotrain.bench.feeding`: a FeedRequest on stdin, a Fed on stdout.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import torch
from pydantic import Field

from autotrain.device import settings
from autotrain.probe.child import Request
from autotrain.probe.trial import fault, serve
from autotrain.run.assemble import feed_of
from autotrain.run.loading import data
from autotrain.run.loading.itinerary import Itinerary
from autotrain.run.seeds import seed_all
from autotrain.schema import Outcome, Plan, Record, Whole
from autotrain.task import Task, load_task

ROUNDS = 5
# Micro-batches that do not count: workers start, and what they hold ready is there at once.
LEFT_OUT = 2
# Samples read one by one for no longer than this share of the time.
ALONE_SHARE = 0.2
# So many of the slowest are read again.
AGAIN = 10


class FeedRequest(Record):
    """Read with each of these numbers of `workers`, in turns, for about `seconds` together."""

    take: Request
    workers: tuple[Whole, ...]
    seconds: float


class Alone(NamedTuple):
    """A sample of the training set by its number, and the seconds that reading it took."""

    place: int
    seconds: float


class Fed(Record):
    """`rates`: samples a second by number of workers, round by round. `alone`: samples by one."""

    outcome: Outcome
    message: str = ""
    hint: str = ""
    rates: dict[int, tuple[float, ...]] = Field(default_factory=dict)
    alone: tuple[Alone, ...] = ()


def fed(request: FeedRequest) -> Iterator[Fed]:
    """What reading takes, whatever comes of it; more of it with each answer."""
    plan, path = request.take.plan, Path(request.take.task_file)
    try:
        task = load_task(path, request.take.data, plan.task.options)
        with settings(plan):
            alone = _alone(data.split(task, plan), plan.run.seed, ALONE_SHARE * request.seconds)
            for rates in _rates(request, task, path):
                yield Fed(outcome="ok", rates=rates, alone=alone)
    except Exception as error:
        yield Fed.model_validate(fault(path, error, "reading the samples: "))


def _alone(parts: data.Split, seed: int, seconds: float) -> tuple[Alone, ...]:
    """Samples one after another, spread over the set, until the time is up.

    The slowest are read again, and the faster reading counts: another program may have come in
    between.
    """
    seed_all(seed, torch.device("cpu"))
    deadline, count = perf_counter() + seconds, parts.train_count
    stride = next(s for s in range(max(round(0.618 * count), 1), count + 2) if _no_common(s, count))
    found: list[Alone] = []
    for place in range(count):
        found.append(_timed(parts, place * stride % count))
        if perf_counter() > deadline:
            break
    found.sort(key=lambda each: each.seconds)
    for slow in found[-AGAIN:]:
        again = _timed(parts, slow.place)
        found[found.index(slow)] = min(slow, again, key=lambda each: each.seconds)
    return tuple(found)


def _timed(parts: data.Split, place: int) -> Alone:
    begun = perf_counter()
    parts.train[place]
    return Alone(place, perf_counter() - begun)


def _no_common(one: int, other: int) -> bool:
    while other:
        one, other = other, one % other
    return one == 1


def _rates(request: FeedRequest, task: Task, path: Path) -> Iterator[dict[int, tuple[float, ...]]]:
    """What is known after each turn; each is by new workers, and the first round warms the disk's
    cache up.
    """
    each = (1 - ALONE_SHARE) * request.seconds / (ROUNDS + 1) / len(request.workers)
    found: dict[int, tuple[float, ...]] = {}
    for number in range(ROUNDS + 1):
        for many in request.workers:
            rate = _rate(request.take.plan, task, path, many, each)
            if number:
                found[many] = (*found.get(many, ()), rate)
                yield found


def _rate(plan: Plan, task: Task, path: Path, workers: int, seconds: float) -> float:
    """Samples a second, of the micro-batches of a run in its order."""
    chosen: dict[str, Any] = {"workers": workers, "keep": None}
    plan = plan.model_copy(
        update={
            "loader": plan.loader.model_copy(update=chosen),
            "train": plan.train.model_copy(update={"epochs": 1_000_000}),
        }
    )
    parts = data.split(task, plan)
    with tempfile.TemporaryDirectory() as folder:
        feed, _ = feed_of(plan, parts, task, torch.nn.Identity(), path, Path(folder), None)
        with closing(feed):
            return _drained(feed, feed.itinerary, seconds)


def _drained(feed: Any, itinerary: Itinerary, seconds: float) -> float:
    count, begun = 0, perf_counter()
    for number, request in enumerate(iter(itinerary)):
        feed.take(request.epoch)
        now = perf_counter()
        if number < LEFT_OUT:
            begun = now
            continue
        count += len(request.indices)
        if now - begun > seconds:
            return count / (now - begun)
    return count / max(perf_counter() - begun, 1e-9)


if __name__ == "__main__":
    serve(lambda line: fed(FeedRequest.model_validate_json(line)))
