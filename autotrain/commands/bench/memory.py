"""`autotrain bench`: how good the predictions are on this machine."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from autotrain import files
from autotrain.bench import memory as figures
from autotrain.bench.memory import Row
from autotrain.commands.bench import outcome
from autotrain.commands.bench.asked import at_size
from autotrain.commands.decide import Case, Decision, Source
from autotrain.commands.plan import Wish, goal_of, hardware_of, source_of
from autotrain.commands.streams import data_only
from autotrain.commands.trying import take
from autotrain.errors import AutotrainError
from autotrain.goal import parse_settings
from autotrain.schema import Goal, HardwareProfile

# Sizes tried of each model: one sample, as planned, and this many times as many.
MORE = 4
# One that is interrupted says what it measured within so many.
LAST_SECONDS = 10.0


def memory(
    data: str | None,
    templates: Sequence[str],
    task: str | None,
    settings: Sequence[str],
    *,
    tensors: bool,
    as_json: bool,
) -> int:
    """Plan, try, and print both beside each other. 1 where nothing could be measured."""
    asked = _asked(data, templates, task, tuple(settings))
    rows: list[Row] = []
    stopped = False
    with data_only() as out:
        try:
            for row in _each(asked, tensors=tensors):
                rows.append(row)  # an interrupt may end it
        except KeyboardInterrupt:
            stopped = True
        if rows or not stopped:
            _show(rows, out, stopped=stopped, as_json=as_json)
    if stopped:
        return outcome.stopped(something=bool(rows))
    print("\nnext        autotrain plan DATA", file=sys.stderr)
    return 0 if any(row.outcome == "ok" for row in rows) else 1


def _asked(
    data: str | None, templates: Sequence[str], task: str | None, settings: tuple[str, ...]
) -> list[tuple[str, Wish]]:
    """What was named, or every template that comes along."""
    if task is None and data is not None and len(templates) != 1:
        raise AutotrainError(f"{data}: data for what?", "name one --template, or a --task")
    names = list(templates) or ([] if task else files.shipped_names("templates"))
    own = data if task is None else None
    wishes = [(name, Wish(own, name, None, None, None, settings)) for name in names]
    if task is not None:
        wishes.append((task, Wish(data, None, task, None, None, settings)))
    return wishes


def _each(asked: Sequence[tuple[str, Wish]], *, tensors: bool) -> Iterator[Row]:
    if len(asked) == 1:
        ((name, wish),) = asked
        yield from _here(name, wish, tensors=tensors)
        return
    for _, wish in asked:
        yield from _apart(wish, tensors=tensors)


def _apart(wish: Wish, *, tensors: bool) -> Iterator[Row]:
    """The same of one model, in a process of its own.

    What a plan measures of its process, the imports of a task, is there only once.
    """
    command = [sys.executable, "-P", "-m", "autotrain", "bench", "memory", "--json"]
    command += ["--template", wish.template] if wish.template else ["--task", str(wish.task)]
    command += [part for text in wish.settings for part in ("--set", text)]
    command += ["--tensors"] if tensors else []
    command += [wish.data] if wish.data is not None else []
    stopped = False
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            said, _ = process.communicate()
        except KeyboardInterrupt:
            stopped, said = True, _cut(process)
    with suppress(ValueError, KeyError):  # it has said why on stderr
        yield from [Row.model_validate(row) for row in json.loads(said)["rows"]]
    if stopped:
        raise KeyboardInterrupt


def _cut(process: subprocess.Popen[str]) -> str:
    """What it still says once it is interrupted too."""
    if sys.platform != "win32":  # there, a console has told it
        process.send_signal(signal.SIGINT)
    try:
        return process.communicate(timeout=LAST_SECONDS)[0]
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        process.kill()
        return ""


def _here(name: str, wish: Wish, *, tensors: bool) -> Iterator[Row]:
    """The rows of one model, in this process."""
    hardware = hardware_of(None, Path.cwd(), calibrate=False)
    with tempfile.TemporaryDirectory(prefix="autotrain-bench-") as folder:
        yield from _rows(name, wish, hardware, Path(folder), tensors=tensors)


def _rows(
    name: str, wish: Wish, hardware: HardwareProfile, folder: Path, *, tensors: bool
) -> Iterator[Row]:
    """Of one model, at each size that fits."""
    source = _source(wish, folder)
    settings, options = parse_settings(list(wish.settings))
    # A trial has no loader workers: what is predicted for it has none either.
    settings.setdefault("loader.workers", 0)
    goal = goal_of(wish, source, settings, options, Path("plan.toml"))
    case = Case.open(source, hardware, goal)
    for made in _sizes(case, goal):
        plan = made.plan
        print(f"{name}: micro_batch {plan.batch.micro_batch} ...", file=sys.stderr, flush=True)
        trial = take(source, plan, hardware, tensors=tensors)
        if trial.outcome != "ok":
            print(f"{name}: {trial.outcome}: {trial.message}", file=sys.stderr)
        yield figures.row(name, plan, trial)


def _source(wish: Wish, folder: Path) -> Source:
    """As `plan` finds it; a template that brings no data gets noise of its kind."""
    if wish.template is not None and wish.data is None:
        template = files.shipped("templates") / wish.template / "template.toml"
        content = files.read_toml(template) if template.is_file() else {}
        write = figures.WRITERS.get(content.get("kind", ""))
        if write is not None and "data" not in content:
            write(folder / "noise")
            wish = wish._replace(data=str(folder / "noise"))
    return source_of(wish)


def _sizes(case: Case, goal: Goal) -> Iterator[Decision]:
    """The plan as it is, of one sample, and of MORE times as many, where these differ and fit."""
    planned = case.decide()
    micro = planned.plan.batch.micro_batch
    fixed = "batch.micro_batch" in goal.user
    for size in (1, micro, MORE * micro):
        if size == micro:
            yield planned
        elif not fixed and (made := at_size(case, goal, size)) is not None:
            yield made


def _show(rows: Sequence[Row], out: TextIO, *, stopped: bool, as_json: bool) -> None:
    """JSON, or a table, a line for each figure, and what follows."""
    found = figures.figures(rows)
    if as_json:
        said = {
            "bench": "memory",
            "rows": [row.model_dump(mode="json") for row in rows],
            "figures": [figure.model_dump(mode="json") for figure in found],
            "advice": figures.advice(rows),
            "stopped": stopped,
        }
        print(json.dumps(said, indent=1), file=out)
        return
    from autotrain.report import bench_text

    about = "memory of a step: predicted without a trial, and measured by one"
    texts = [*map(figures.summary, found), figures.advice(rows)]
    bench_text.page(about, figures.lines(rows), texts, out)
