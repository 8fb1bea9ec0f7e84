"""Devices beside each other: what was measured here, what is predicted elsewhere, what to do.

Pure: rows in, the size from which a GPU wins and a sentence of advice out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from autotrain.schema import DeviceKind, Outcome, Plan, Prediction, Record
from autotrain.units import money_text, seconds_text

# Who would save less than this by another machine need not look for one.
WORTH_SECONDS = 60.0
# From this share of a step on, what loads the samples decides and not the device.
STARVED = 0.5
ANOTHER = "--machine rtx-4060-laptop-8gb, say, predicts for one"


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


def base_of(rows: Sequence[Row]) -> Row | None:
    """What the others are held against: the CPU here, else the first row with figures."""
    able = [row for row in rows if row.run_seconds is not None]
    own = [row for row in able if row.machine == HERE and row.kind == "cpu"]
    return next(iter(own or able), None)


def best_of(rows: Sequence[Row]) -> Row | None:
    """Where to train: what is surely faster by what is worth it, else where one is."""
    base = base_of(rows)
    able = [row for row in rows if row.run_seconds is not None and row != base]
    if base is None or not able:
        return base
    best = min(able, key=lambda row: _run(row).expected)
    return best if _surely(best, base) and _saved(best, base) >= WORTH_SECONDS else base


def advice(rows: Sequence[Row]) -> str:
    """One sentence: where to train, and why."""
    base = base_of(rows)
    if base is None:
        return "there is nothing to compare: no device has figures"
    able = [row for row in rows if row.run_seconds is not None and row != base]
    if able:
        return _verdict(base, min(able, key=lambda row: _run(row).expected))
    own = f"stay on {base.name}, which takes {_time(base)} for the run"
    lost = next((row for row in rows if row.why), None)
    return f"{own}: {lost.name} has no figures" if lost else f"{own}; {ANOTHER}"


def _verdict(base: Row, best: Row) -> str:
    ratio = _run(base).expected / max(_run(best).expected, 1e-9)
    beside = f"takes {_time(best)} for the run and {base.name} {_time(base)}"
    if _surely(base, best):
        words = [f"stay on {base.name}: {best.name} {beside}", *_crossed(base, best)]
    elif not _surely(best, base):
        words = [
            f"it is open between {base.name} and {best.name}, which {beside}: the intervals "
            "overlap",
            *_crossed(base, best),
        ]
    elif _saved(best, base) < WORTH_SECONDS:
        words = [
            f"stay on {base.name}: {best.name} is {times(ratio)} as fast, and would save "
            f"{seconds_text(_saved(best, base))}"
        ]
    else:
        words = [f"train on {best.name}: it {beside}, {times(ratio)} as fast"]
    return "; ".join([*words, *_money(base, best), *_starved(best), *_doubt(best)])


def times(ratio: float) -> str:
    """`0.52 x`, `3.1 x`, `104 x`."""
    return f"{ratio:.0f} x" if ratio >= 9.95 else f"{ratio:.2g} x"


def _surely(one: Row, other: Row) -> bool:
    """Whether even the slow end of the one is faster than the fast end of the other."""
    return _run(one).high < _run(other).low


def _saved(one: Row, other: Row) -> float:
    return _run(other).expected - _run(one).expected


def _crossed(base: Row, best: Row) -> list[str]:
    """From which size the GPU wins, where one of the two is none."""
    found = crossing(base, best) if (base.kind == "cpu") != (best.kind == "cpu") else None
    if found is None:
        return []
    if found.expected is None:
        return [f"at no micro_batch up to {found.most} is {best.name} the faster one"]
    if found.expected == found.least:
        return []
    return [f"{best.name} is the faster one from micro_batch {found.expected} on"]


def _money(base: Row, best: Row) -> list[str]:
    known = [row for row in (base, best) if row.cost is not None]
    if not known:
        return []
    said = (f"{money_text(_cost(row), row.currency)} on {row.name}" for row in known)
    return [f"it costs {' and '.join(said)}"]


def _starved(best: Row) -> list[str]:
    if best.loading < STARVED:
        return []
    return [
        f"there {best.loading:.0%} of a step would be waiting for samples: make loading faster "
        "first (autotrain bench data)"
    ]


def _doubt(best: Row) -> list[str]:
    return [f"{best.name} is predicted, not measured"] if best.source == "predicted" else []


def _run(row: Row) -> Prediction:
    assert row.run_seconds is not None
    return row.run_seconds


def _time(row: Row) -> str:
    run = _run(row)
    return (
        f"{seconds_text(run.expected)} ({seconds_text(run.low)} to {seconds_text(run.high)})"
        if row.source == "predicted"
        else seconds_text(run.expected)
    )


def _cost(row: Row) -> float:
    assert row.cost is not None
    return row.cost.expected
