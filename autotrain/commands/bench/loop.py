"""`autotrain bench loop`: what autotrain's loop adds to a plan's step, beside a bare one."""

from __future__ import annotations

import json
import sys

from autotrain.bench import loop as figures
from autotrain.commands.bench import devices, outcome
from autotrain.commands.bench.asked import Named, next_run
from autotrain.commands.bench.devices import Planned
from autotrain.commands.bench.opened import opened
from autotrain.commands.streams import data_only
from autotrain.sensors import Quiet
from autotrain.units import seconds_text

# Between two looks at the clock lie about so many seconds, and no more than so many steps.
STRETCH_SECONDS, MOST_STEPS, STRETCHES = 0.2, 50, 5


def loop(named: Named, *, seconds: float, as_json: bool, calibrate: bool) -> int:
    """Measure and print; 130 if interrupted. Raises AutotrainError where a step fails."""
    with data_only() as out:
        _, here, about = opened(named, calibrate=calibrate)
        quiet = Quiet()
        print(f"{about}\ntraining by both loops, about {seconds_text(seconds)} ...",
              file=sys.stderr)  # fmt: skip
        try:
            found = _looped(here, seconds)
        except KeyboardInterrupt:
            print("\nstopped: nothing had been compared yet", file=sys.stderr)
            return 130
        others = quiet.disturbed()
        if as_json:
            print(json.dumps(_json(found, about, others), indent=1), file=out)
        else:
            from autotrain.report import bench_text

            bench_text.loop(found, about, others, out)
    print(f"\nnext        {next_run(named)}", file=sys.stderr)
    return 0


def _looped(here: Planned, seconds: float) -> figures.Added:
    from autotrain.bench.looping import Looped, LoopRequest
    from autotrain.child import ask

    step = here.plan.predicted.step_seconds.expected
    every = min(max(int(STRETCH_SECONDS / step), 1), MOST_STEPS)
    request = LoopRequest(
        take=devices.contender(here).request, stretches=STRETCHES, every=every, seconds=seconds
    )
    most = here.device.free_bytes if here.device.kind == "cpu" else None
    wait = 10 * (seconds + 6 * STRETCHES * every * step) + 180
    said = ask("autotrain.bench.looping", request, Looped, seconds=wait, most_bytes=most)
    found = outcome.answered(said)
    return figures.added(found.bare, found.ours, found.waits)


def _json(found: figures.Added, about: str, others: float | None) -> dict[str, object]:
    return {
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
    }
