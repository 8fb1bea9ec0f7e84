"""`autotrain plan --compare`: the same task on several machines, one table, no plan file."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from autotrain.commands import stages
from autotrain.commands.decide import Case, Source
from autotrain.commands.limits import dollars
from autotrain.commands.plan import Wish, goal_of, hardware_of, say_left_out, source_of
from autotrain.commands.shared import shared
from autotrain.commands.stages import Several
from autotrain.commands.streams import data_only
from autotrain.errors import AutotrainError, DoesNotFitError, UsageError
from autotrain.goal import parse_settings
from autotrain.plan.choices import choose_device, reach
from autotrain.plan.inversion import priced
from autotrain.report.compare_text import Row, as_json, best, show
from autotrain.schema import Goal, HardwareProfile, Plan, whole

HERE = "here"
_PRICE = "train.price_per_hour"


class Machine(NamedTuple):
    """One of those to compare: what to call it, and its own price where one was said."""

    called: str
    hardware: HardwareProfile
    price: float | None


def compare(wish: Wish, machines: str, *, json_asked: bool, calibrate: bool) -> int:
    """Plan for each machine and print the table. 4 where the task fits none of them."""
    pairs, own = stages.apart(wish.settings)
    settings, options = parse_settings(pairs)
    with data_only() as out:
        asked = named(machines.split(","), calibrate, flag="--compare")
        source = source_of(wish)
        goal = goal_of(wish, source, settings, options, Path("plan.toml"))
        say_left_out(goal)
        several = Several(stages.asked(source, wish.recipe, wish.stages), options, own)
        rows = _rows(asked, source, goal, several)
        if json_asked:
            print(json.dumps(as_json(rows), indent=1), file=out)
        else:
            show(rows, out)
    fastest = best(rows).fastest
    if fastest is None:
        return DoesNotFitError.exit_code
    price = next(machine.price for machine in asked if machine.called == fastest.machine)
    said = _command(wish, fastest.machine, price)
    print(f"\nno plan was written\n\nnext: {said}", file=sys.stderr)
    return 0


def alone(others: dict[str, bool]) -> None:
    """Raises UsageError where something was asked for that only one machine's plan can have.

    `others`: flags, and whether they were given.
    """
    faults = [f"--compare and {flag} exclude each other" for flag, given in others.items() if given]
    if faults:
        raise UsageError(*faults, hint="--compare writes no plan: compare, then plan for one")


def named(machines: Iterable[str], calibrate: bool, *, flag: str) -> list[Machine]:
    """Every machine named, once. Raises UsageError with all faults."""
    found: dict[str, Machine] = {}
    faults: list[str] = []
    hints: list[str] = []
    for item in filter(None, (part.strip() for part in machines)):
        try:
            machine = _one(item, calibrate)
            found[machine.called] = _same(found.get(machine.called, machine), machine)
        except AutotrainError as error:
            faults += error.message.splitlines()
            hints += [error.hint] if error.hint else []
    if faults:
        alike = len(set(hints)) == 1
        raise UsageError(*faults, hint=hints[0] if alike else "--machine NAME says more of each")
    if not found:
        raise UsageError(f"{flag}: no machine is named", hint=f"{flag} t4-16gb, or rtx-4090")
    return list(found.values())


def _same(before: Machine, now: Machine) -> Machine:
    """A machine that was named twice, at the price that was said. Raises UsageError."""
    if None not in (before.price, now.price) and before.price != now.price:
        raise UsageError(
            f"--compare {now.called}: two prices for it, {before.price:g} and {now.price:g}",
            hint="name it once",
        )
    return now if before.price is None else before


def _one(item: str, calibrate: bool) -> Machine:
    """`NAME`, `FILE` or `here`, with `=PRICE` behind it or not."""
    name, equals, said = item.rpartition("=")
    name = name if equals else item
    price = dollars(said, f"--compare {name}=", least=0.0) if equals else None
    if name == HERE:
        return Machine(HERE, hardware_of(None, Path.cwd(), calibrate), price)
    hardware = hardware_of(name, Path.cwd(), calibrate)
    called = name if Path(name).is_file() else hardware.name
    return Machine(called, hardware, price)


def _rows(asked: list[Machine], source: Source, goal: Goal, several: Several) -> list[Row]:
    """A row for each machine. What is wrong with the task, or with all of them, is raised."""
    goals, names = stages.goals(goal, several), [stage.name for stage in several.stages]
    rows: list[Row] = []
    errors: list[AutotrainError] = []
    cases: list[Case | None] = [None] * len(goals)
    for machine in asked:
        hardware = priced(machine.hardware, machine.price)
        wishes = [_at_price(goal, machine.price) for goal in goals]
        row = Row(machine.called, hardware.name, "", None)
        try:
            device = choose_device(hardware, wishes[0])
            gpus = len(reach(hardware, device)) if device.kind != "cpu" else 0
            row = row._replace(device=device.name, gpus=gpus)
        except AutotrainError as error:
            errors.append(error)
            rows.append(row._replace(why=error.message, remedy=error.hint))
            continue
        try:
            made = []
            for place, wish in enumerate(wishes):
                cases[place] = case = _case(cases[place], source, hardware, wish)
                made.append(case.decide())
            _, made = shared(hardware, goal, names, wishes, made)
            rows.append(row._replace(plan=_whole([one.plan for one in made])))
        except DoesNotFitError as error:
            rows.append(row._replace(why=error.message, remedy=mildest(error.hint)))
        except UsageError as error:
            errors.append(error)
            rows.append(row._replace(why=error.message, remedy=error.hint))
    if len(errors) == len(rows):
        raise errors[0]
    return rows


def _whole(plans: list[Plan]) -> Plan:
    """Of stages the one that takes the most memory, with the time of all of them."""
    largest = max(plans, key=lambda plan: plan.predicted.device_peak_bytes.high)
    seconds = whole([plan.predicted.run_seconds for plan in plans])
    predicted = largest.predicted.model_copy(update={"run_seconds": seconds})
    return largest.model_copy(update={"predicted": predicted})


def _case(case: Case | None, source: Source, hardware: HardwareProfile, goal: Goal) -> Case:
    """The task opened once; for every further machine only what looks different is traced."""
    if case is None:
        return Case.open(source, hardware, goal)
    return replace(case, goal=goal).on(hardware)


def _at_price(goal: Goal, price: float | None) -> Goal:
    """A price of one machine's own stands above one for all."""
    if price is None:
        return goal
    return goal.model_copy(update={"user": {k: v for k, v in goal.user.items() if k != _PRICE}})


def mildest(hint: str) -> str:
    """The first of the remedies that a plan names."""
    return hint.partition(", or ")[0]


def _command(wish: Wish, machine: str, price: float | None) -> str:
    """What to type for the plan itself; a price of the machine's own stands above one for all."""
    words = ["autotrain", "plan", *([wish.data] if wish.data is not None else [])]
    named = {"--template": wish.template, "--task": wish.task, "--recipe": wish.recipe}
    words += [part for flag, value in named.items() if value for part in (flag, value)]
    words += [part for stage in wish.stages for part in ("--stage", stage)]
    own = price is not None
    pairs = [x for x in wish.settings if not (own and x.partition("=")[0].strip() == _PRICE)]
    words += [part for pair in pairs for part in ("--set", pair)]
    words += ["--price", f"{price:g}"] if own else []
    return shlex.join([*words, *(["--machine", machine] if machine != HERE else [])])
