"""`autotrain bench data`: how fast a plan's samples are read, beside how fast the model learns."""

from __future__ import annotations

import json
import sys
from typing import TextIO

from autotrain.bench import data as figures
from autotrain.bench.data import Row, Slowest
from autotrain.bench.rounds import Tally, measure
from autotrain.bench.spread import spread
from autotrain.commands.bench import devices, outcome
from autotrain.commands.bench.asked import Named, next_run
from autotrain.commands.bench.devices import Planned
from autotrain.commands.bench.opened import opened
from autotrain.commands.streams import data_only
from autotrain.schema import HardwareProfile
from autotrain.sensors import Quiet
from autotrain.units import seconds_text

# Of all the time, what the model's own steps are given.
MODEL_SHARE = 1 / 3
MOST_WORKERS = 8


def data(named: Named, *, seconds: float, as_json: bool, calibrate: bool) -> int:
    """Measure and print; 130 if interrupted. Raises AutotrainError where either cannot be done."""
    with data_only() as out:
        hardware, here, about = opened(named, calibrate=calibrate)
        quiet = Quiet()
        print(f"{about}\nreading samples, and training on some, about "
              f"{seconds_text(seconds)} ...", file=sys.stderr)  # fmt: skip
        try:
            model = _model(here, MODEL_SHARE * seconds)
            rows, alone = _read(here, hardware, (1 - MODEL_SHARE) * seconds, model)
        except KeyboardInterrupt:
            print("\nstopped: nothing had been compared yet", file=sys.stderr)
            return 130
        _show(here, rows, alone, model, about, quiet.disturbed(), out, as_json=as_json)
    other = figures.better(rows, here.plan.loader.keep)
    changed = [] if other is None else [f"loader.workers={other.workers}"]
    print(f"\nnext        {next_run(named, *changed)}", file=sys.stderr)
    return 0


def _model(here: Planned, seconds: float) -> float:
    """Samples a second that the model could take if none of them had to be read."""
    main, tally = here.main, Tally()
    contender = devices.contender(here._replace(ways=(main,)))
    measure([contender], {here.name: tally}, seconds, processes=1)
    outcome.insist(tally, main)
    accum = here.plan.batch.accum_steps
    step = spread(tally.taken(main, lambda t: accum * t.micro + t.update)).middle
    return accum * main.micro_batch / step


def _read(
    here: Planned, hardware: HardwareProfile, seconds: float, model: float
) -> tuple[list[Row], Slowest | None]:
    """By several numbers of workers, up to one a core."""
    from autotrain.bench.feeding import Fed, FeedRequest
    from autotrain.child import ask

    own = here.plan.loader.workers
    cores = min(hardware.cpu.cores, MOST_WORKERS)
    doubled = [1 << power for power in range(cores.bit_length())]
    counts = tuple(sorted({0, own, *(many for many in doubled if many <= cores)}))
    request = FeedRequest(take=devices.contender(here).request, workers=counts, seconds=seconds)
    most = here.device.free_bytes if here.device.kind == "cpu" else None
    said = ask("autotrain.bench.feeding", request, Fed, seconds=10 * seconds + 180, most_bytes=most)
    found = outcome.answered(said)
    rows = [
        figures.row(many, spread([rates]), model, chosen=many == own)
        for many, rates in found.rates.items()
    ]
    return rows, figures.slowest(found.alone)


def _show(
    here: Planned,
    rows: list[Row],
    alone: Slowest | None,
    model: float,
    about: str,
    others: float | None,
    out: TextIO,
    *,
    as_json: bool,
) -> None:
    from autotrain.report import bench_text

    keep = here.plan.loader.keep
    advice = figures.advice(rows, model, keep, on_cpu=here.device.kind == "cpu")
    if not as_json:
        last = [*bench_text.disturbed(others), advice]
        bench_text.data(rows, alone, model, about, last, out)
        return
    said = {
        "bench": "data",
        "about": about,
        "model_samples_per_second": model,
        "rows": [row.model_dump(mode="json") for row in rows],
        "alone": alone.model_dump(mode="json") if alone is not None else None,
        "keep": keep,
        "advice": advice,
        "others_cpu": others,
    }
    print(json.dumps(said, indent=1), file=out)
