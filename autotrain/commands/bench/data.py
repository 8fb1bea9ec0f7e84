"""`autotrain bench data`: how fast a plan's samples are read, beside how fast the model learns."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, NamedTuple, TextIO, cast

from autotrain.bench import data as figures
from autotrain.bench.data import Row, Slowest
from autotrain.bench.rounds import Tally, measure
from autotrain.bench.spread import spread
from autotrain.child import CutError, ask
from autotrain.commands.bench import devices, outcome
from autotrain.commands.bench.asked import Named, next_run
from autotrain.commands.bench.devices import Planned
from autotrain.commands.bench.opened import opened
from autotrain.commands.streams import data_only
from autotrain.schema import HardwareProfile
from autotrain.sensors import Quiet
from autotrain.units import seconds_text

if TYPE_CHECKING:
    from autotrain.bench.feeding import Fed

# Of all the time, what the model's own steps are given.
MODEL_SHARE = 1 / 3
MOST_WORKERS = 8


class Found(NamedTuple):
    """Samples a second that the `model` could take if none of them had to be read, and the rest.

    `alone`: of samples read one by one.
    """

    model: float
    rows: list[Row]
    alone: Slowest | None
    stopped: bool

    @property
    def advises(self) -> bool:
        """Whether the plan's own number of workers is known, and others to hold it against."""
        return len(self.rows) > 1 and any(row.chosen for row in self.rows)


def data(named: Named, *, seconds: float, as_json: bool, calibrate: bool) -> int:
    """Measure and print; 130 if interrupted. Raises AutotrainError where either cannot be done."""
    with data_only() as out:
        hardware, here, about = opened(named, calibrate=calibrate)
        quiet = Quiet()
        print(f"{about}\nreading samples, and training on some, about "
              f"{seconds_text(seconds)} ...", file=sys.stderr)  # fmt: skip
        found = _found(here, hardware, seconds)
        if found is None:
            return outcome.stopped(something=False)
        _show(here, found, about, quiet.disturbed(), out, as_json=as_json)
    if found.stopped:
        return outcome.stopped(something=True)
    other = figures.better(found.rows, here.plan.loader.keep)
    changed = [] if other is None else [f"loader.workers={other.workers}"]
    print(f"\nnext        {next_run(named, *changed)}", file=sys.stderr)
    return 0


def _found(here: Planned, hardware: HardwareProfile, seconds: float) -> Found | None:
    """None where an interrupt came before anything was known."""
    tally, stopped = Tally(), False
    try:
        _train(here, tally, MODEL_SHARE * seconds)
    except KeyboardInterrupt:
        stopped = True
    model = _speed(here, tally)
    if model is None or stopped:
        return None if model is None else Found(model, [], None, stopped)
    try:
        fed = _read(here, hardware, (1 - MODEL_SHARE) * seconds)
    except CutError as cut:
        stopped, fed = True, outcome.answered(cast("Fed", cut.said))
    except KeyboardInterrupt:
        return Found(model, [], None, stopped=True)
    rows = [
        figures.row(many, spread([rates]), model, chosen=many == here.plan.loader.workers)
        for many, rates in fed.rates.items()
    ]
    return Found(model, rows, figures.slowest(fed.alone), stopped)


def _train(here: Planned, tally: Tally, seconds: float) -> None:
    contender = devices.contender(here._replace(ways=(here.main,)))
    measure([contender], {here.name: tally}, seconds, processes=1)
    outcome.insist(tally, here.main)


def _speed(here: Planned, tally: Tally) -> float | None:
    accum = here.plan.batch.accum_steps
    taken = tally.taken(here.main, lambda t: accum * t.micro + t.update)
    return accum * here.main.micro_batch / spread(taken).middle if taken else None


def _read(here: Planned, hardware: HardwareProfile, seconds: float) -> Fed:
    """By several numbers of workers, up to one a core."""
    from autotrain.bench.feeding import Fed, FeedRequest

    own = here.plan.loader.workers
    cores = min(hardware.cpu.cores, MOST_WORKERS)
    doubled = [1 << power for power in range(cores.bit_length())]
    counts = tuple(sorted({0, own, *(many for many in doubled if many <= cores)}))
    request = FeedRequest(take=devices.contender(here).request, workers=counts, seconds=seconds)
    most = here.device.free_bytes if here.device.kind == "cpu" else None
    said = ask("autotrain.bench.feeding", request, Fed, seconds=10 * seconds + 180, most_bytes=most)
    return outcome.answered(said)


def _show(
    here: Planned,
    found: Found,
    about: str,
    others: float | None,
    out: TextIO,
    *,
    as_json: bool,
) -> None:
    from autotrain.report import bench_text

    keep, advice = here.plan.loader.keep, ""
    if found.advises:
        advice = figures.advice(found.rows, found.model, keep, on_cpu=here.device.kind == "cpu")
    if not as_json:
        last = [*bench_text.disturbed(others), *([advice] if advice else [])]
        bench_text.data(found.rows, found.alone, found.model, about, last, out)
        return
    said = {
        "bench": "data",
        "about": about,
        "model_samples_per_second": found.model,
        "rows": [row.model_dump(mode="json") for row in found.rows],
        "alone": found.alone.model_dump(mode="json") if found.alone is not None else None,
        "keep": keep,
        "advice": advice,
        "others_cpu": others,
        "stopped": found.stopped,
    }
    print(json.dumps(said, indent=1), file=out)
