"""The child process that runs a plan's model in several ways, in turns, and takes their time.

`commands.racing` has it started as `python -m autotrain.probe.race`: a RaceRequest on stdin, a
Race on stdout. Every way gets the same batches and the same weights to begin with; who computes
in fewer bits or in another order is only timed here, and what it learns is thrown away.
"""

from __future__ import annotations

from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any

from autotrain.device import device_of, kernels_kept, settings
from autotrain.probe import ways
from autotrain.probe.child import Request
from autotrain.probe.steps import Stepper, longest_samples
from autotrain.probe.trial import fault, serve
from autotrain.schema import Race, Raced, RacedCut, Record, Variant, leaders
from autotrain.task import load_task

# The first round warms every way up and does not count; of the others the median does.
LEAST_ROUNDS, MOST_ROUNDS = 2, 7
# Of all ways together. A run has one of them, and keeps no more than that needs: here each would
# push out those of the others, and be timed with making its own anew.
KERNELS = 1 << 14


class RaceRequest(Record):
    """`variants` of a plan, the plain one first, for about `seconds`.

    `cuts`: smaller sizes of micro-batch to try in the fastest way, and in the fastest of each other
    memory format that took at most `near` times as long. Another way than the plain one has to be
    faster by `margin`.
    """

    take: Request
    variants: tuple[Variant, ...]
    cuts: tuple[int, ...] = ()
    margin: float
    near: float
    seconds: float


_Way = tuple[Variant, int]  # and the size of its micro-batches
_Rounds = dict[_Way, list[ways.Seconds]]


def raced(request: RaceRequest) -> Race:
    """The race, whatever comes of it."""
    plan, path = request.take.plan, Path(request.take.task_file)
    begun = monotonic()
    about = {"micro_batch": plan.batch.micro_batch, "accum_steps": plan.batch.accum_steps}
    stepper: Stepper | None = None
    try:
        task = load_task(path, request.take.data, plan.task.options)
        stepper = Stepper(request.take, task, device_of(plan.device))
        with kernels_kept(KERNELS, KERNELS), settings(plan):
            stepper.build()
            said: dict[str, Any] = {"outcome": "ok", **_held(stepper, request)}
    except Exception as error:
        said = fault(path, error, stepper.doing if stepper is not None else "")
    return Race.model_validate({**about, **said, "seconds": monotonic() - begun})


def _held(stepper: Stepper, request: RaceRequest) -> dict[str, Any]:
    """Ways to run the model, and then sizes of micro-batch in the fastest of them."""
    batch = request.take.plan.batch
    whole = batch.micro_batch
    found = _rounds(stepper, request, [(variant, whole) for variant in request.variants])
    runs = [
        Raced(way[0], median(s.micro for s in rounds), median(s.update for s in rounds))
        for way, rounds in found.items()
    ]
    sizes = [size for size in request.cuts if size < whole]
    cuts: _Rounds = {}
    if sizes:
        able = leaders(runs, batch.accum_steps, request.margin, request.near)
        smaller = [(variant, size) for variant in able for size in sizes]
        cuts = _rounds(stepper, request, [(able[0], whole), *smaller])
    return {
        "rounds": max(len(rounds) for rounds in found.values()),
        "runs": tuple(runs),
        "cuts": tuple(
            RacedCut(*way, median(s.micro for s in rounds)) for way, rounds in cuts.items()
        ),
    }


def _rounds(stepper: Stepper, request: RaceRequest, entered: list[_Way]) -> _Rounds:
    """Rounds until half of the time is up; a way other than the first that fails is out.

    Every other round goes the other way about: who comes right after one on fewer threads is slow.
    """
    plan = request.take.plan
    samples = longest_samples(stepper.task, plan.batch.micro_batch)
    deadline = monotonic() + request.seconds / 2
    found: _Rounds = {way: [] for way in entered}
    for number in range(1 + MOST_ROUNDS):
        for variant, size in tuple(found)[:: -1 if number % 2 else 1]:
            window = [samples[at : at + size] for at in range(0, len(samples), size)]
            try:
                taken = ways.step(stepper, variant, window)
            except Exception:
                if (variant, size) == entered[0]:
                    raise
                del found[variant, size]
                continue
            if number:
                found[variant, size].append(taken)
        if number >= LEAST_ROUNDS and monotonic() > deadline:
            break
    return found


if __name__ == "__main__":
    serve(lambda line: raced(RaceRequest.model_validate_json(line)))
