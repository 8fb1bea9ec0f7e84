"""`autotrain bench choice`: the plan's way to take a step beside every other, in turns."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import NamedTuple, TextIO

from autotrain.bench import choice as figures
from autotrain.bench.choice import Row, advice
from autotrain.bench.rounds import Contender, Tally, Way, measure, step_seconds
from autotrain.bench.spread import spread
from autotrain.commands.bench import devices, outcome
from autotrain.commands.bench.asked import Named, at_size, next_run
from autotrain.commands.bench.devices import Planned
from autotrain.commands.bench.opened import opened
from autotrain.commands.streams import data_only
from autotrain.plan import race as races
from autotrain.schema import Variant
from autotrain.sensors import Quiet
from autotrain.units import seconds_text

# So many of the fastest ways run on beside the plan's and the plain one; the first look at all of
# them takes its share of the time.
FINALISTS, FIRST_SHARE = 4, 1 / 3


class Grid(NamedTuple):
    """Ways, and of how many micro-batches a step of each really is."""

    accum_steps: dict[Way, int]
    own: Way
    plain: Way


def choice(named: Named, *, seconds: float, as_json: bool, calibrate: bool) -> int:
    """Measure and print; 130 if interrupted. Raises AutotrainError where no way works."""
    with data_only() as out:
        _, here, about = opened(named, calibrate=calibrate)
        quiet, grid = Quiet(), _grid(here)
        print(
            f"{about}\ncomparing {len(grid.accum_steps)} ways to take a step, about "
            f"{seconds_text(seconds)} ...",
            file=sys.stderr,
        )
        rows, stopped = _rows(here, grid, seconds)
        others = quiet.disturbed()
        if rows or not stopped:
            _show(rows, about, others, out, stopped=stopped, as_json=as_json)
    if stopped:
        return outcome.stopped(something=bool(rows))
    print(f"\nnext        {next_run(named, *_changed(rows))}", file=sys.stderr)
    return 0


def _grid(here: Planned) -> Grid:
    """Every precision, format and number of threads, at the planned size and at parts of it."""
    assert here.made is not None
    assert here.case is not None
    plan, model = here.plan, here.made.model
    cut, free = plan.batch, frozenset[str]()
    whole = cut.micro_batch * cut.accum_steps
    at_once = whole if not model.mixes and at_size(here.case, here.case.goal, whole) else None
    sizes = {cut.micro_batch, *([at_once] if at_once else []), *races.cuts(plan, model, free)}
    cores = here.case.hardware.cpu.cores
    able = races.variants(plan, model, here.device, free, cores)
    variants = {devices.variant_of(plan), *able}
    accum = {
        Way(variant, size, min(-(-whole // size), 2)): -(-whole // size)
        for size in sorted(sizes)
        for variant in sorted(variants)
    }
    threads = max(variant.threads for variant in variants)
    plain = Variant("fp32", "contiguous", threads)
    size = at_once or cut.micro_batch
    return Grid(accum, here.main, Way(plain, size, min(-(-whole // size), 2)))


def _rows(here: Planned, grid: Grid, seconds: float) -> tuple[list[Row], bool]:
    """All ways, the best of them measured again; and whether somebody put an end to it."""
    ways = {*grid.accum_steps, grid.own, grid.plain}
    first, last, stopped = Tally(), Tally(), False
    try:
        everything = _contender(here, ways, grid.own)
        measure([everything], {here.name: first}, FIRST_SHARE * seconds, processes=1)
        outcome.insist(first, grid.own)
        found = {way: _taken(first, way, here, grid) for way in ways}
        fast = sorted((way for way in ways if found[way]), key=lambda w: spread(found[w]).middle)
        final = {*fast[:FINALISTS], grid.own, grid.plain} - first.lost.keys()
        best = _contender(here, final, grid.own)
        measure([best], {here.name: last}, (1 - FIRST_SHARE) * seconds, tell=outcome.progress)
    except KeyboardInterrupt:
        stopped = True
    rows = []
    for way in ways:
        again = _taken(last, way, here, grid)
        taken = again or _taken(first, way, here, grid)
        if taken:
            marks = {"chosen": way == grid.own, "plain": way == grid.plain, "final": bool(again)}
            accum = _accum(way, here, grid)
            rows.append(figures.row(way.variant, way.micro_batch, accum, spread(taken), **marks))
    return figures.ordered(rows), stopped


def _contender(here: Planned, ways: set[Way], main: Way) -> Contender:
    by_size = sorted(ways, key=lambda w: (w.micro_batch * w.parts, w.parts, w.variant))
    return devices.contender(here._replace(ways=tuple(by_size)))._replace(main=main)


def _taken(tally: Tally, way: Way, here: Planned, grid: Grid) -> list[list[float]]:
    plan, accum = here.plan, _accum(way, here, grid)
    return tally.taken(way, lambda taken: step_seconds(taken, way, plan, accum))


def _accum(way: Way, here: Planned, grid: Grid) -> int:
    """Micro-batches of a step that way."""
    cut = here.plan.batch
    whole = cut.micro_batch * cut.accum_steps
    return grid.accum_steps.get(way) or -(-whole // way.micro_batch)


def _changed(rows: Sequence[Row]) -> list[str]:
    """The settings that the advice names."""
    own = next((row for row in rows if row.chosen and row.final), None)
    if own is None or not advice(rows).startswith("change"):
        return []
    return rows[0].settings(own)


def _show(
    rows: list[Row],
    about: str,
    others: float | None,
    out: TextIO,
    *,
    stopped: bool,
    as_json: bool,
) -> None:
    from autotrain.report import bench_text

    if as_json:
        said = {
            "bench": "choice",
            "about": about,
            "rows": [row.model_dump(mode="json") for row in rows],
            "share": figures.share(rows),
            "advice": advice(rows),
            "others_cpu": others,
            "stopped": stopped,
        }
        print(json.dumps(said, indent=1), file=out)
        return
    bench_text.choice(rows, about, others, out)
