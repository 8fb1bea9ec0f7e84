"""Where to train: the device of a bench's rows, and one sentence why. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from autotrain.bench.cpu_vs_gpu import HERE, Row, able_of, base_of, crossing
from autotrain.schema import Prediction
from autotrain.units import money_text, seconds_text

# Who would save less than this by another machine need not look for one.
WORTH_SECONDS = 60.0
# From this share of a step on, what loads the samples decides and not the device.
STARVED = 0.5
ANOTHER = "--machine rtx-4060-laptop-8gb, say, predicts for one"


def best_of(rows: Sequence[Row]) -> Row | None:
    """Where to train: what is surely faster, here first, then where it is worth looking for."""
    best = base_of(rows)
    if best is None:
        return None
    for here in (True, False):
        better = [
            row
            for row in able_of(rows)
            if (row.machine == HERE) is here and _surely(row, best) and _worth_it(row, best)
        ]
        best = min(better, key=lambda row: _run(row).high, default=best)
    return best


def advice(rows: Sequence[Row]) -> str:
    """One sentence: where to train, and why."""
    base, best = base_of(rows), best_of(rows)
    if base is None or best is None:
        return "there is nothing to compare: no device has figures"
    others = [row for row in able_of(rows) if row not in (base, best)]
    if best != base:
        return _chosen(base, best, others)
    if others:
        return _stay(base, _rival(base, others))
    own = f"stay on {base.name}, which takes {_time(base)} for the run"
    lost = next((row for row in rows if row.why), None)
    return f"{own}: {lost.name} has no figures" if lost else f"{own}; {ANOTHER}"


def _rival(base: Row, others: Sequence[Row]) -> Row:
    """Whom the base is held against: the surest that is faster, else the fastest that may be."""
    surely = [row for row in others if _surely(row, base)]
    if surely:
        return min(surely, key=lambda row: _run(row).high)
    perhaps = [row for row in others if not _surely(base, row)]
    return min(perhaps or others, key=lambda row: _run(row).expected)


def _chosen(base: Row, best: Row, others: Sequence[Row]) -> str:
    words = [f"train on {best.name}: it {_beside(base, best)}, {_as_fast(base, best)}"]
    said = _sentence(base, best, words)
    fastest = min((best, *others), key=lambda row: _run(row).expected)
    return said if fastest == best else f"{said}; {_faster_still(best, fastest)}"


def _faster_still(best: Row, other: Row) -> str:
    """What is said of one that is expected to be faster than the best, and is not advised."""
    said = f"{other.name}, {other.source} to take {_time(other)}, "
    if _surely(other, best):
        return f"{said}would save {seconds_text(_saved(other, best))} more"
    return f"{said}may be faster or slower"


def _stay(base: Row, other: Row) -> str:
    beside = _beside(base, other)
    if _surely(base, other):
        words = [f"stay on {base.name}: {other.name} {beside}", *_crossed(base, other)]
    elif not _surely(other, base):
        words = [
            f"it is open between {base.name} and {other.name}, which {beside}: the intervals "
            "overlap",
            *_crossed(base, other),
        ]
    else:
        words = [
            f"stay on {base.name}: {other.name} is {_as_fast(base, other)}, and would save "
            f"{seconds_text(_saved(other, base))}"
        ]
    return _sentence(base, other, words)


def _beside(base: Row, other: Row) -> str:
    return f"takes {_time(other)} for the run and {base.name} {_time(base)}"


def _as_fast(base: Row, other: Row) -> str:
    return f"{times(_run(base).expected / max(_run(other).expected, 1e-9))} as fast"


def _sentence(base: Row, other: Row, words: Sequence[str]) -> str:
    return "; ".join([*words, *_money(base, other), *_starved(other), *_doubt(other)])


def times(ratio: float) -> str:
    """`0.52 x`, `3.1 x`, `104 x`."""
    return f"{ratio:.0f} x" if ratio >= 9.95 else f"{ratio:.2g} x"


def _surely(one: Row, other: Row) -> bool:
    """Whether even the slow end of the one is faster than the fast end of the other."""
    return _run(one).high < _run(other).low


def _worth_it(one: Row, other: Row) -> bool:
    """What is here need not be looked for."""
    return one.machine == HERE or _saved(one, other) >= WORTH_SECONDS


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
