"""`autotrain bench loop`: what autotrain's loop adds to a plan's step, beside a bare one."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, TextIO, cast

from autotrain.bench import loop as figures
from autotrain.child import CutError, ask
from autotrain.commands.bench import devices, outcome
from autotrain.commands.bench.asked import Named, next_run
from autotrain.commands.bench.devices import Planned
from autotrain.commands.bench.opened import opened
from autotrain.commands.streams import data_only
from autotrain.sensors import Quiet
from autotrain.units import seconds_text

if TYPE_CHECKING:
    from autotrain.bench.looping import Looped

# Between two looks at the clock lie about so many seconds, and no more than so many steps.
STRETCH_SECONDS, MOST_STEPS, STRETCHES = 0.2, 50, 5


def loop(named: Named, *, seconds: float, as_json: bool, calibrate: bool) -> int:
    """Measure and print; 130 if interrupted. Raises AutotrainError where a step fails."""
    with data_only() as out:
        _, here, about = opened(named, calibrate=calibrate)
        quiet = Quiet()
        print(f"{about}\ntraining by both loops, about {seconds_text(seconds)} ...",
              file=sys.stderr)  # fmt: skip
        stopped, found = False, None
        try:
            found = _looped(here, seconds)
        except CutError as cut:
            stopped, found = True, _added(outcome.answered(cast("Looped", cut.said)))
        except KeyboardInterrupt:
            stopped = True
        if found is not None:
            _show(found, about, quiet.disturbed(), out, stopped=stopped, as_json=as_json)
    if stopped:
        return outcome.stopped(something=found is not None)
    print(f"\nnext        {next_run(named)}", file=sys.stderr)
    return 0


def _looped(here: Planned, seconds: float) -> figures.Added:
    from autotrain.bench.looping import Looped, LoopRequest

    step = here.plan.predicted.step_seconds.expected
    every = min(max(int(STRETCH_SECONDS / step), 1), MOST_STEPS)
    request = LoopRequest(
        take=devices.contender(here).request, stretches=STRETCHES, every=every, seconds=seconds
    )
    most = here.device.free_bytes if here.device.kind == "cpu" else None
    wait = 10 * (seconds + 6 * STRETCHES * every * step) + 180
    said = ask("autotrain.bench.looping", request, Looped, seconds=wait, most_bytes=most)
    return _added(outcome.answered(said))


def _added(found: Looped) -> figures.Added:
    return figures.added(found.bare, found.ours, found.waits)


def _show(
    found: figures.Added,
    about: str,
    others: float | None,
    out: TextIO,
    *,
    stopped: bool,
    as_json: bool,
) -> None:
    if not as_json:
        from autotrain.report import bench_text

        bench_text.loop(found, about, others, out)
        return
    said = {
        "bench": "loop",
        "about": about,
        "rows": [
            {"loop": "bare", "step_seconds": found.bare.model_dump()},
            {
                "loop": "autotrain",
                "step_seconds": found.ours.model_dump(),
                "waits": found.waits,
            },
        ],
        "added_seconds": {"low": found.low, "middle": found.middle, "high": found.high},
        "rounds": found.rounds,
        "advice": figures.advice(found),
        "others_cpu": others,
        "stopped": stopped,
    }
    print(json.dumps(said, indent=1), file=out)
