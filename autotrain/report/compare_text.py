"""Several machines beside each other: what one plan would be, take and cost on each of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import IO, Any, NamedTuple

from autotrain.report.table import show_table, wrapped
from autotrain.report.text import clean, interval
from autotrain.schema import Plan, Prediction
from autotrain.units import bytes_text, money_text, seconds_text


class Row(NamedTuple):
    """One machine: its plan, or why there is none and the mildest remedy.

    `machine` is what one calls it on the command line, `name` what its profile says; `gpus`: how
    many there are that a run could train on.
    """

    machine: str
    name: str
    device: str
    plan: Plan | None
    why: str = ""
    remedy: str = ""
    gpus: int = 0


class Best(NamedTuple):
    """The rows of the shortest run and of the cheapest, by what is expected.

    `limited`: a limit of time or money leaves some machines fewer epochs than others, so their
    runs are no match: the one with most epochs stands for the fastest, the cheapest epoch for the
    cheapest.
    """

    fastest: Row | None
    cheapest: Row | None
    limited: bool = False


def ordered(rows: Sequence[Row]) -> list[Row]:
    """The best first; those without a plan last, as they were asked for."""
    limited = _limited(rows)
    return sorted(rows, key=lambda row: _rank(row, limited=limited))


def best(rows: Sequence[Row]) -> Best:
    """Of the rows that have a plan; of equal ones the first."""
    limited = _limited(rows)
    planned = [row for row in ordered(rows) if row.plan is not None]
    priced = [row for row in planned if cost(row) is not None]
    cheapest = min(priced, key=lambda row: _price(row, limited=limited), default=None)
    return Best(planned[0] if planned else None, cheapest, limited)


def _limited(rows: Sequence[Row]) -> bool:
    """Whether the rows' runs are of different lengths because a limit cut some short."""
    trains = [row.plan.train for row in rows if row.plan is not None]
    limits = any(t.within_seconds is not None or t.spend_dollars is not None for t in trains)
    return limits and len({train.epochs for train in trains}) > 1


def _rank(row: Row, *, limited: bool) -> tuple[float, float]:
    """Less is better: of a limited run the epochs that it leaves out, then the time."""
    if row.plan is None:
        return math.inf, math.inf
    return -row.plan.train.epochs if limited else 0, _run(row).expected


def _price(row: Row, *, limited: bool) -> float:
    """Dollars of the run, or of an epoch."""
    return _spent(row).expected / (_plan(row).train.epochs if limited else 1)


def cost(row: Row) -> Prediction | None:
    """Dollars for the run, on as many such machines as it takes; None where nobody said what an
    hour costs.
    """
    price = row.plan.train.price_per_hour if row.plan is not None else None
    if row.plan is None or price is None:
        return None
    price *= machines(row)
    low, expected, high = (seconds * price / 3600 for seconds in _ends(_run(row)))
    return Prediction(low=low, expected=expected, high=high)


def machines(row: Row) -> int:
    """How many such machines the row's processes take, each with a GPU of its own."""
    return max(math.ceil(_plan(row).batch.world_size / row.gpus), 1) if row.gpus else 1


def as_json(rows: Sequence[Row]) -> dict[str, Any]:
    """The same for programs: a list in the table's order, and the two names beneath it.

    `limited`: as in `Best`.
    """
    found = best(rows)
    return {
        "machines": [_json(row) for row in ordered(rows)],
        "fastest": found.fastest.machine if found.fastest else None,
        "cheapest": found.cheapest.machine if found.cheapest else None,
        "limited": found.limited,
    }


def show(rows: Sequence[Row], out: IO[str]) -> None:
    """Print the table: Rich's on a terminal, plain lines in a pipe."""
    lines = _lines(ordered(rows))
    show_table(lines, out)
    print("\n".join(_beneath(rows)), file=out)


# --- a table -------------------------------------------------------------------------------

# Headings, and what stands below them in the row of a machine that has a plan.
_COLUMNS: dict[str, Callable[[Row], str]] = {
    "batch": lambda row: _batch(_plan(row)),
    "precision": lambda row: _plan(row).precision.dtype,
    "memory": lambda row: _memory(_plan(row)),
    "epochs": lambda row: str(_plan(row).train.epochs),
    "a step": lambda row: _with_interval(_plan(row).predicted.step_seconds),
    "the run": lambda row: _with_interval(_run(row)),
    "cost": lambda row: _money_interval(cost(row)),
}


def _lines(rows: Sequence[Row]) -> list[list[str]]:
    """The heading and a line for each machine; a column that says nothing is left out."""
    planned = [row for row in rows if row.plan is not None]
    said = dict(_COLUMNS)
    if len({_plan(row).train.epochs for row in planned}) < 2:  # only a limit makes them differ
        del said["epochs"]
    if all(cost(row) is None for row in planned):
        del said["cost"]
    cells = said.values() if planned else ()
    lines = [["machine", "fits", *(said if planned else ())]]
    for row in rows:
        fits = row.plan is not None
        own = [cell(row) if fits else "" for cell in cells]
        lines.append([clean(row.machine), "yes" if fits else "no", *own])
    return lines


def _batch(plan: Plan) -> str:
    cut = plan.batch
    ranks = f" x {cut.world_size}" if cut.world_size > 1 else ""
    if cut.buckets is not None and len(cut.buckets) > 1:
        return f"{cut.micro_batch}..{cut.buckets[0][1]} = {cut.global_batch}"
    return f"{cut.micro_batch} x {cut.accum_steps}{ranks}"


def _memory(plan: Plan) -> str:
    need, budget = plan.predicted.device_peak_bytes.expected, plan.memory.budget_bytes
    return f"{bytes_text(need)} of {bytes_text(budget)}"


def _with_interval(seconds: Prediction) -> str:
    return f"{seconds_text(seconds.expected)} ({interval('seconds', seconds)})"


def _money_interval(dollars: Prediction | None) -> str:
    if dollars is None:
        return ""
    low, expected, high = map(money_text, _ends(dollars))
    return f"{expected} ({low} to {high})"


def _beneath(rows: Sequence[Row]) -> list[str]:
    """What does not fit and why, and which is best."""
    lines: list[str] = []
    for row in ordered(rows):
        if row.plan is None:
            remedy = f"; {row.remedy}" if row.remedy else ""
            lines += ["", *wrapped(f"{row.machine}: {row.why}{remedy}")]
    lines += _idle(rows)
    words = _words(best(rows))
    return [*lines, *(["", *wrapped("; ".join(words))] if words else [])]


def _idle(rows: Sequence[Row]) -> list[str]:
    """Machines of which the row is about a part, though the price is for all of it."""
    lines: list[str] = []
    for row in ordered(rows):
        world = row.plan.batch.world_size if row.plan is not None else row.gpus
        if world < row.gpus:
            said = f"{row.machine}: its row is of {world} of its {row.gpus} GPUs"
            whole = (
                f", at the price of all of it: --set batch.world_size={row.gpus} for all of them"
            )
            lines += ["", *wrapped(said + whole)]
        elif 0 < row.gpus < world:
            lines += ["", *wrapped(f"{row.machine}: {_elsewhere(row, world)}")]
    return lines


def _elsewhere(row: Row, world: int) -> str:
    return (
        f"its row is of {world} processes, and it has {row.gpus} "
        f"GPU{'s' if row.gpus > 1 else ''}: it takes {machines(row)} such machines, and costs what "
        "all of them do"
    )


def _words(found: Best) -> list[str]:
    """Which is best, in what."""
    if found.fastest is None:
        return []
    row, limited = found.fastest, found.limited
    seconds, epochs = seconds_text(_run(row).expected), _plan(row).train.epochs
    words = [f"fastest: {row.machine}, {seconds}"]
    if limited:
        words = [f"most epochs within the limit: {row.machine}, {epochs} in {seconds}"]
    if found.cheapest is not None:
        dollars = money_text(_price(found.cheapest, limited=limited))
        what = "cheapest epoch" if limited else "cheapest"
        words.append(f"{what}: {found.cheapest.machine}, {dollars}")
    return [*words, "by what is expected: intervals that overlap leave it open"]


def _json(row: Row) -> dict[str, Any]:
    head = {"machine": row.machine, "name": row.name, "device": row.device}
    if row.plan is None:
        return {**head, "fits": False, "why": row.why, "remedy": row.remedy}
    plan, spent = row.plan, cost(row)
    return {
        **head,
        "fits": True,
        "world_size": plan.batch.world_size,
        "gpus": row.gpus,
        "machines": machines(row),
        "micro_batch": plan.batch.micro_batch,
        "accum_steps": plan.batch.accum_steps,
        "global_batch": plan.batch.global_batch,
        "dtype": plan.precision.dtype,
        "epochs": plan.train.epochs,
        "device_peak_bytes": plan.predicted.device_peak_bytes.model_dump(),
        "budget_bytes": plan.memory.budget_bytes,
        "step_seconds": plan.predicted.step_seconds.model_dump(),
        "run_seconds": plan.predicted.run_seconds.model_dump(),
        "price_per_hour": plan.train.price_per_hour,
        "cost_dollars": spent.model_dump() if spent else None,
    }


def _plan(row: Row) -> Plan:
    assert row.plan is not None
    return row.plan


def _run(row: Row) -> Prediction:
    return _plan(row).predicted.run_seconds


def _spent(row: Row) -> Prediction:
    spent = cost(row)
    assert spent is not None
    return spent


def _ends(prediction: Prediction) -> tuple[float, float, float]:
    return prediction.low, prediction.expected, prediction.high
