"""Devices beside each other: what was measured here, what is predicted elsewhere.

Pure: rows in, the size from which a GPU wins out; `verdict` says what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from autotrain.schema import DeviceKind, Outcome, Plan, Prediction, Record

# A trial's outcomes, and those of what was not tried.
RowOutcome = Outcome | Literal["does_not_fit", "refused", "stopped"]


class Point(Record):
    """Samples a second in micro-batches of one size, without accumulation."""

    micro_batch: int
    samples_per_second: Prediction


class Row(Record):
    """A device with its own plan, or why there are no figures (`why`) and what to do (`remedy`).

    `outcome` says the same in a word.

    `source` says of all its figures whether they were measured; then an interval is what rounds of
    the same step scattered. `run_seconds` is put together from the step and from what evaluations
    and saves are predicted to take, in either case. `loading`: the share of a step in which the
    model waits for samples. `machine`: as one calls it on the command line.
    """

    machine: str
    device: str
    kind: DeviceKind
    source: Literal["measured", "predicted"]
    outcome: RowOutcome = "ok"
    why: str = ""
    remedy: str = ""
    micro_batch: int = 0
    accum_steps: int = 0
    global_batch: int = 0
    epochs: int = 0
    dtype: str = ""
    threads: int = 0
    step_seconds: Prediction | None = None
    samples_per_second: Prediction | None = None
    memory_bytes: Prediction | None = None
    budget_bytes: int = 0
    run_seconds: Prediction | None = None
    loading: float = 0.0
    price_per_hour: float | None = None
    currency: str = ""
    cost: Prediction | None = None
    rounds: int = 0
    processes: int = 0
    curve: tuple[Point, ...] = ()

    @property
    def name(self) -> str:
        """`the CPU here`, `the GPU here`, or the machine's."""
        if self.machine != HERE:
            return self.machine
        return "the CPU here" if self.kind == "cpu" else "the GPU here"


HERE = "here"


def settings_of(plan: Plan) -> dict[str, object]:
    """Of a plan what a row says."""
    cut = plan.batch
    return {
        "micro_batch": cut.micro_batch,
        "accum_steps": cut.accum_steps,
        "global_batch": cut.global_batch,
        "epochs": plan.train.epochs,
        "dtype": plan.precision.dtype,
        "threads": plan.device.threads,
        "budget_bytes": plan.memory.budget_bytes,
    }


def rate(samples: float, seconds: Prediction) -> Prediction:
    """Samples a second of so many in that time."""
    low, expected, high = (max(s, 1e-12) for s in (seconds.high, seconds.expected, seconds.low))
    return Prediction(low=samples / low, expected=samples / expected, high=samples / high)


def cost(run: Prediction | None, price: float | None) -> Prediction | None:
    """What a run costs where an hour costs `price`."""
    if run is None or price is None:
        return None
    low, expected, high = (s * price / 3600 for s in (run.low, run.expected, run.high))
    return Prediction(low=low, expected=expected, high=high)


class Crossing(NamedTuple):
    """The smallest micro_batch from which on the GPU is faster at every size looked at.

    `sure`: even the slow end of its interval is faster than the CPU's fast end. None: there is
    none. `least`, `most`: the sizes looked at on both.
    """

    expected: int | None
    sure: int | None
    least: int
    most: int


def crossing(cpu: Row, gpu: Row) -> Crossing | None:
    """Where the two curves cross; None where they share no size."""
    other = {point.micro_batch: point.samples_per_second for point in gpu.curve}
    pairs = [
        (point.micro_batch, point.samples_per_second, other[point.micro_batch])
        for point in cpu.curve
        if point.micro_batch in other
    ]
    if not pairs:
        return None
    faster = {size: theirs.expected > own.expected for size, own, theirs in pairs}
    surely = {size: theirs.low > own.high for size, own, theirs in pairs}
    return Crossing(_from(faster), _from(surely), pairs[0][0], pairs[-1][0])


def crossings(rows: Sequence[Row]) -> list[tuple[Row, Crossing]]:
    """Each GPU beside the CPU that the others are held against, where both have a curve."""
    base = base_of(rows)
    if base is None or base.kind != "cpu":
        return []
    found = [(row, crossing(base, row)) for row in rows if row.kind != "cpu"]
    return [(row, crossed) for row, crossed in found if crossed is not None]


def _from(wins: dict[int, bool]) -> int | None:
    """The smallest size from which on it is so at every size."""
    found = None
    for size in sorted(wins, reverse=True):
        if not wins[size]:
            break
        found = size
    return found


def able_of(rows: Sequence[Row]) -> list[Row]:
    """Those with figures."""
    return [row for row in rows if row.run_seconds is not None]


def base_of(rows: Sequence[Row]) -> Row | None:
    """What the others are held against: the CPU here, else the first row with figures."""
    able = able_of(rows)
    own = [row for row in able if row.machine == HERE and row.kind == "cpu"]
    return next(iter(own or able), None)
