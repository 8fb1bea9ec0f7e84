"""Ways to train the same model, on one device or on several, measured in turns.

Each contender is a process on its device (`probe.turns`); a round goes over all ways of all of
them. After some rounds the processes end and new ones go on: see `bench.spread`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import zip_longest
from statistics import median
from time import monotonic
from typing import NamedTuple

from autotrain.bench.spread import known
from autotrain.plan import compute, overlap
from autotrain.probe.child import Request
from autotrain.probe.limits import usable_cores
from autotrain.probe.turns import Taken, Took, Turn, Turns
from autotrain.schema import Plan, Variant

PROCESSES, LEAST_ROUNDS = 5, 3
# A turn takes as many steps as go into so many seconds.
TURN_SECONDS, MOST_STEPS = 0.1, 50
# What loading a task and building its model may take, and a single turn.
WAIT_SECONDS, TURN_LIMIT_SECONDS = 600.0, 180.0


class Way(NamedTuple):
    """How a step is taken: of `parts` micro-batches."""

    variant: Variant
    micro_batch: int
    parts: int = 1


def step_seconds(taken: Taken, way: Way, plan: Plan, parts: int) -> float:
    """An optimizer step of so many such micro-batches, put together as a plan's prediction is.

    Loading comes before the model, beside it where workers load, on a CPU by its cores, or is over
    where samples are kept.
    """
    fed, loader = taken.micro, plan.loader
    if loader.keep != "device":
        threads = way.variant.threads if plan.device.kind == "cpu" else 0
        fed = overlap.fed_seconds(
            taken.micro,
            overlap.Loading(taken.load),
            loader.workers,
            cores=usable_cores(),
            threads=threads,
        )
    return parts * fed + taken.update + compute.LOOP_SECONDS


class Contender(NamedTuple):
    """A plan's model on its device, and the ways to train it there, from small to large.

    `main`: the one that has to be known best. `most_bytes`: the RAM that it may hold.
    """

    name: str
    request: Request
    ways: tuple[Way, ...]
    main: Way
    most_bytes: int | None = None


@dataclass
class Tally:
    """What came of a contender's turns so far, at each way.

    `rounds`: seconds of a micro-batch and of the update, by process. `lost`: ways that failed, and
    how. `peaks`: the turn by which a way's memory was measured.
    """

    rounds: dict[Way, list[list[Taken]]] = field(default_factory=dict)
    lost: dict[Way, Took] = field(default_factory=dict)
    peaks: dict[Way, Took] = field(default_factory=dict)

    def taken(self, way: Way, seconds: Callable[[Taken], float]) -> list[list[float]]:
        """What a way took by that measure, by process and round."""
        return [[*map(seconds, rounds)] for rounds in self.rounds.get(way, []) if rounds]


def measure(
    contenders: Sequence[Contender],
    tallies: dict[str, Tally],
    seconds: float,
    *,
    processes: int | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> None:
    """Fill the tallies, one for each contender's name, in about `seconds` and some starts.

    What was measured is in them whenever this ends, be it by an interrupt. `processes`: how many of
    each contender, one after another; `tell` hears when each has done its part.
    """
    spent, processes = 0.0, processes or PROCESSES
    for number in range(processes):
        with _seated(contenders, tallies) as seats:
            for seat in seats:
                seat.warm_up()
            begun, share = monotonic(), (seconds - spent) / (processes - number)
            rounds = 0
            while any(seat.able for seat in seats):
                if rounds >= LEAST_ROUNDS and (
                    monotonic() - begun > share or all(seat.knows() for seat in seats)
                ):
                    break
                _round(seats, backwards=bool(rounds % 2))
                rounds += 1
            spent += monotonic() - begun
        tell(f"process {number + 1} of {processes}: {rounds} rounds")


def _round(seats: Sequence[_Seat], *, backwards: bool) -> None:
    """Every way once, the devices in turns; every other round the other way about."""
    each = [seat.able[:: -1 if backwards else 1] for seat in seats]
    for ways in zip_longest(*each):
        for seat, way in zip(seats, ways, strict=True):
            if way is not None and way not in seat.tally.lost:
                seat.take(way)


@contextmanager
def _seated(contenders: Sequence[Contender], tallies: dict[str, Tally]) -> Iterator[list[_Seat]]:
    """A process for each contender that is still able; all are gone on leaving."""
    seats = [_Seat(each, tallies.setdefault(each.name, Tally())) for each in contenders]
    try:
        yield [seat for seat in seats if seat.able]
    finally:
        for seat in seats:
            seat.end()


class _Seat:
    """A contender while one process of it runs; another takes its place where that ends early."""

    def __init__(self, contender: Contender, tally: Tally) -> None:
        self.contender, self.tally = contender, tally
        self._turns: Turns | None = None
        self._steps: dict[Way, int] = {}

    @property
    def able(self) -> list[Way]:
        """Ways that have not failed."""
        return [way for way in self.contender.ways if way not in self.tally.lost]

    def warm_up(self) -> None:
        """Two steps of each way, which do not count; the memory that they take does."""
        for way in self.contender.ways:
            self.tally.rounds.setdefault(way, []).append([])
        for way in self.able:
            if way in self.tally.lost:  # with a smaller one before it
                continue
            took = self._asked(way, 2, first=True)
            if took is None:
                continue
            each = sum(took.steps[-1])
            self._steps[way] = min(max(int(TURN_SECONDS / max(each, 1e-9)), 1), MOST_STEPS)
            self.tally.peaks.setdefault(way, took)

    def take(self, way: Way) -> None:
        """One turn, of which the median of each part counts.

        Of several ways not the first step: oneDNN has thrown its kernels away for the others'.
        """
        more = int(len(self.contender.ways) > 1)
        took = self._asked(way, self._steps.get(way, 1) + more)
        if took is None:
            return
        load, micro, update = (median(part) for part in zip(*took.steps[more:], strict=True))
        parts = way.parts
        self.tally.rounds[way][-1].append(Taken(load / parts, micro / parts, update))

    def knows(self) -> bool:
        """Whether this process would hardly find anything else for the main way."""
        rounds = self.tally.rounds[self.contender.main][-1]
        lost = self.contender.main in self.tally.lost
        return lost or known([sum(taken) for taken in rounds])

    def end(self) -> None:
        """The process is gone."""
        if self._turns is not None:
            self._turns.end()
            self._turns = None

    def _asked(self, way: Way, steps: int, *, first: bool = False) -> Took | None:
        turns = self._begun()
        if turns.over:
            self._lose(self.able, turns.begun)
            return None
        turn = Turn(
            variant=way.variant, micro_batch=way.micro_batch, parts=way.parts, steps=steps,
            first=first,
        )  # fmt: skip
        took = turns.take(turn, seconds=TURN_LIMIT_SECONDS)
        if took.outcome == "ok":
            return took
        if turns.over:
            self.end()
        self._lose(self._like(way, took), took)
        return None

    def _like(self, way: Way, took: Took) -> list[Way]:
        """The ways that fail with this one.

        What is larger, where memory or time ran out. Another fault may be of this size alone (a
        BatchNorm wants two samples), but where the main way has it, the rest says nothing.
        """
        if took.outcome in ("out_of_memory", "timed_out"):
            size = way.micro_batch * way.parts
            return [way, *(w for w in self.able if w.micro_batch * w.parts > size)]
        return self.able if way == self.contender.main else [way]

    def _begun(self) -> Turns:
        if self._turns is None:
            self._turns = Turns(
                self.contender.request,
                wait_seconds=WAIT_SECONDS,
                most_bytes=self.contender.most_bytes,
            )
        return self._turns

    def _lose(self, ways: Sequence[Way], took: Took) -> None:
        self.tally.lost |= dict.fromkeys(ways, took)
