"""`autotrain bench cpu-vs-gpu`: measured on what is here, predicted for what is named."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from autotrain import files
from autotrain.bench import cpu_vs_gpu as figures
from autotrain.bench import verdict
from autotrain.bench.cpu_vs_gpu import HERE, Point, Row, settings_of
from autotrain.bench.rounds import Tally, measure
from autotrain.commands import compare
from autotrain.commands.bench import devices, outcome
from autotrain.commands.bench.asked import Asked, Named, at_size, look_up, next_run, told
from autotrain.commands.bench.devices import Planned
from autotrain.commands.compare import Machine, mildest
from autotrain.commands.decide import Case, Decision
from autotrain.commands.limits import price
from autotrain.commands.plan import hardware_of
from autotrain.commands.streams import data_only
from autotrain.errors import AutotrainError, DoesNotFitError, UsageError
from autotrain.near import near_name
from autotrain.plan import overlap
from autotrain.plan.choices import choose_device
from autotrain.schema import Goal, HardwareProfile
from autotrain.sensors import Quiet
from autotrain.units import seconds_text

# Measuring takes about so long, beside planning and the starts of processes.
SECONDS = 45.0
PICTURE = "cpu-vs-gpu.png"
_PNG = b"\x89PNG"


class Wanted(NamedTuple):
    """The command line beside what is trained. `prices`: each `NAME=MONEY`."""

    machines: tuple[str, ...] = ()
    prices: tuple[str, ...] = ()
    seconds: float = SECONDS
    picture: str = PICTURE
    as_json: bool = False


class Found(NamedTuple):
    """All that is told in the end.

    `others`: the share of the cores that other programs took, if that was felt.
    """

    about: str
    rows: list[Row]
    others: float | None
    stopped: bool


def cpu_vs_gpu(named: Named, wanted: Wanted, *, calibrate: bool) -> int:
    """Measure, predict, print and draw; 130 if interrupted, with what was measured so far.

    Raises AutotrainError where the task's own step fails, or no device has any figures.
    """
    machines = _machines(wanted.machines)
    prices = _prices(wanted.prices, [HERE, *(machine.called for machine in machines)])
    picture = _free(Path(wanted.picture))
    with data_only() as out:
        asked = look_up(named)
        hardware = hardware_of(None, Path.cwd(), calibrate)
        found = _found(asked, hardware, machines, wanted.seconds)
        own = {HERE: hardware.price_per_hour}
        own |= {machine.called: machine.hardware.price_per_hour for machine in machines}
        rows = [_priced(row, own[row.machine], prices) for row in found.rows]
        if not found.stopped:
            _insist(rows)
        _show(found._replace(rows=rows), picture, out, as_json=wanted.as_json)
    return _ending(named, rows, stopped=found.stopped)


def _found(
    asked: Asked, hardware: HardwareProfile, machines: Sequence[Machine], seconds: float
) -> Found:
    """A row for each device that is here, then one for each machine."""
    every = devices.planned(asked, hardware)
    able = [here for here in every if here.made is not None]
    sizes = devices.sizes(able, seconds)
    predicted = [_elsewhere(asked, able, machine, sizes) for machine in machines]
    every = [devices.with_ways(here, sizes) for here in every]
    quiet, tallies = Quiet(), dict[str, Tally]()
    stopped = _measured(every, tallies, seconds)
    others = quiet.disturbed()
    measured = [devices.row(here, tallies.get(here.name, Tally()), others) for here in every]
    about = told(asked, able[0].made.model) if able and able[0].made else asked.name
    return Found(about, [*measured, *predicted], others, stopped)


def _machines(names: Sequence[str]) -> list[Machine]:
    """Those named, once each; what is here is measured anyway. Raises UsageError."""
    priced = [name for name in names if "=" in name]
    if priced:
        raise UsageError(
            *(f"--machine {name}: no machine is called so" for name in priced),
            hint=f"--price {priced[0]} says what an hour of it costs",
        )
    wanted = [name for name in names if name != HERE]
    return compare.named(wanted, calibrate=False, flag="--machine") if wanted else []


def _prices(said: Sequence[str], names: Sequence[str]) -> dict[str, tuple[float, str]]:
    """What an hour costs, by machine. Raises UsageError with all faults."""
    found: dict[str, tuple[float, str]] = {}
    faults = []
    for text in said:
        name, equals, amount = text.rpartition("=")
        meant = [each for each in names if each == name or _same_machine(each, name)]
        if not equals:
            faults.append(f"--price {text}: of which machine? expected NAME=MONEY")
        elif not meant:
            faults.append(f"--price {text}: {name!r} is not compared{near_name(name, [*names])}")
        else:
            try:
                found[meant[0]] = price(amount, f"--price {name}=")
            except UsageError as error:
                faults += error.faults
    if faults:
        raise UsageError(*faults, hint=f"such as --price {names[-1]}=0.35EUR/h")
    return found


def _same_machine(called: str, name: str) -> bool:
    """Whether another spelling means the same machine, as it may for --machine."""
    try:
        return name != HERE and compare.named([name], False, flag="")[0].called == called
    except AutotrainError:
        return False


def _free(path: Path) -> Path:
    """Where the picture goes. Raises AutotrainError where something else lies there."""
    if path.exists() and not (path.is_file() and path.read_bytes().startswith(_PNG)):
        raise AutotrainError(f"{path}: exists and is not a picture", "choose another name with -o")
    folder = path.resolve().parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        what = "not writable" if folder.is_dir() else "no such folder"
        raise AutotrainError(f"{path.parent}: {what}", "choose another place with -o")
    return path


def _elsewhere(
    asked: Asked, able: Sequence[Planned], machine: Machine, sizes: Sequence[int]
) -> Row:
    """What is predicted for a machine that is not here."""
    hardware = machine.hardware
    goal = asked.goal.model_copy(update={"user": devices.same_batch(asked)})
    first = hardware.devices[0]
    row = Row(machine=machine.called, device=first.name, kind=first.kind, source="predicted")
    try:
        device = choose_device(hardware, goal)
        row = row.model_copy(update={"device": device.name, "kind": device.kind})
        case = _case(able[0].case if able else None, asked, hardware, goal)
        made = case.decide()
    except AutotrainError as error:
        kind = "does_not_fit" if isinstance(error, DoesNotFitError) else "refused"
        said = {"outcome": kind, "why": error.message, "remedy": mildest(error.hint)}
        return row.model_copy(update=said)
    return _predicted(row, case, made, sizes)


def _case(case: Case | None, asked: Asked, hardware: HardwareProfile, goal: Goal) -> Case:
    """The task as it was opened here, for another machine: what looks alike is not traced again."""
    if case is None:
        return Case.open(asked.source, hardware, goal)
    return replace(case, goal=goal, measured={}).on(hardware)


def _predicted(row: Row, case: Case, made: Decision, sizes: Sequence[int]) -> Row:
    plan, said = made.plan, made.plan.predicted
    load = overlap.loading_seconds(made.model.sample_seconds, plan.batch.micro_batch)
    known = {
        **settings_of(plan),
        "step_seconds": said.step_seconds,
        "samples_per_second": figures.rate(plan.batch.global_batch, said.step_seconds),
        "memory_bytes": said.device_peak_bytes,
        "run_seconds": said.run_seconds,
        "loading": devices.loading(load, plan, said.step_seconds.expected),
        "curve": tuple(_points(case, {*sizes, plan.batch.micro_batch})),
    }
    return row.model_copy(update=known)


def _points(case: Case, sizes: set[int]) -> Iterator[Point]:
    """The curve, as far as it fits."""
    for size in sorted(sizes):
        made = at_size(case, case.goal, size)
        if made is None:
            return
        speed = figures.rate(size, made.plan.predicted.step_seconds)
        yield Point(micro_batch=size, samples_per_second=speed)


def _measured(every: Sequence[Planned], tallies: dict[str, Tally], seconds: float) -> bool:
    """Fill the tallies; whether somebody put an end to it."""
    able = [here for here in every if here.ways]
    if not able:
        return False
    names = " and ".join("the CPU" if h.device.kind == "cpu" else h.device.name for h in able)
    print(f"measuring on {names}, about {seconds_text(seconds)} ...", file=sys.stderr, flush=True)
    try:
        measure([devices.contender(here) for here in able], tallies, seconds, tell=outcome.progress)
    except KeyboardInterrupt:
        return True
    return False


def _priced(row: Row, own: float | None, prices: dict[str, tuple[float, str]]) -> Row:
    """With what its run costs: at the price said, or else its profile's `own`."""
    each, currency = prices.get(row.machine, (own, "$"))
    spent = figures.cost(row.run_seconds, each)
    return row.model_copy(update={"price_per_hour": each, "currency": currency, "cost": spent})


def _insist(rows: Sequence[Row]) -> None:
    """Raise AutotrainError where the task's own step fails, DoesNotFitError where it fits nowhere.

    What is predicted of a step that fails is worth nothing.
    """
    here = [row for row in rows if row.source == "measured"]
    broken = [row for row in here if row.outcome in ("failed", "not_finite")]
    if here and len(broken) == len(here):
        raise AutotrainError(f"in the bench: {broken[0].why}", broken[0].remedy)
    if any(row.run_seconds is not None or row.curve for row in rows):
        return
    lost = next(row for row in rows if row.why)
    raise DoesNotFitError(f"{lost.name}: {lost.why}", lost.remedy)


def _show(found: Found, picture: Path, out: TextIO, *, as_json: bool) -> None:
    from autotrain.report import versus_picture, versus_text

    files.write_atomic(picture, versus_picture.png(found.rows, found.about))
    if as_json:
        print(json.dumps(_json(found, picture), indent=1), file=out)
        return
    versus_text.show(found.rows, found.about, found.others, out)
    print(f"\npicture     {picture}", file=out)


def _json(found: Found, picture: Path) -> dict[str, Any]:
    return {
        "bench": "cpu-vs-gpu",
        "about": found.about,
        "rows": [row.model_dump(mode="json") for row in found.rows],
        "wins": [
            {"machine": row.machine, "device": row.device, **crossed._asdict()}
            for row, crossed in figures.crossings(found.rows)
        ],
        "advice": verdict.advice(found.rows),
        "others_cpu": found.others,
        "picture": str(picture),
        "stopped": found.stopped,
    }


def _ending(named: Named, rows: Sequence[Row], *, stopped: bool) -> int:
    """The last word, on stderr, and the exit code."""
    if stopped:
        return outcome.stopped(something=True)
    best = verdict.best_of(rows)
    machine = best.machine if best is not None and best.machine != HERE else None
    print(f"\nnext        {next_run(named, machine=machine)}", file=sys.stderr)
    return 0
