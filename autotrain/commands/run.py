"""`autotrain run`: carry out a plan, show it, and keep what happened."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from autotrain import planfile, trust
from autotrain.commands import report
from autotrain.errors import AutotrainError, UsageError
from autotrain.events import Event, Stopped, to_json
from autotrain.schema import Plan, TaskSection
from autotrain.task import load_task

# What a checkpoint depends on; anything else may be changed on resume.
_MUST_NOT_CHANGE = (
    "batch.global_batch",
    "optimizer.name",
    "run.seed",
    "data.valid_share",
    "task.options",
)
_EXIT = {"interrupted": 130, "terminated": 143}


def run(
    plan_file: str, *, resume: bool, fresh: bool, max_steps: int | None, trust: bool, as_json: bool
) -> int:
    """Train as the plan says; returns the exit code."""
    if resume and fresh:
        raise UsageError("--resume and --fresh exclude each other")
    path = Path(plan_file)
    plan = planfile.load(path)
    folder = path.resolve().parent
    task_file = _code(plan.task, folder, accept=trust)
    directory = folder / plan.run.directory
    _prepare(plan, directory, resume=resume, fresh=fresh, name=plan_file)
    data = located(plan.task.data, folder)
    task = load_task(task_file, data, plan.task.options)
    _keep_plan(plan, directory, task_file, data)

    from autotrain.run.loop import train
    from autotrain.run.signals import Stop

    stop, last = Stop(), None
    try:
        with stop.catch(), ExitStack() as stack:
            consumers = _consumers(plan, directory, stack, as_json=as_json, max_steps=max_steps)
            for event in train(
                plan, task, directory, task_file=task_file, resume=resume,
                max_steps=max_steps, stop=stop,
            ):  # fmt: skip
                for consume in consumers:
                    consume(event)
                last = event
    finally:
        if isinstance(last, Stopped):
            _summarise(plan, directory, plan_file, as_json=as_json)
    return _EXIT.get(last.reason, 0) if isinstance(last, Stopped) else 0


def _summarise(plan: Plan, directory: Path, plan_file: str, *, as_json: bool) -> None:
    from autotrain.report.stream import Tolerant

    _, text = report.write(plan, directory, plan_file)
    if not as_json:
        Tolerant(sys.stderr).line(f"\n{text}")


def _code(task: TaskSection, folder: Path, *, accept: bool) -> Path:
    path = trust.task_path(task, folder)
    trust.check(task, path, accept=accept)
    return path


def located(data: str | None, folder: Path) -> str | None:
    """Where a plan's data lies: beside the plan where a path was given, else as it is."""
    if data is None:
        return None
    there = folder / data
    return str(there) if there.exists() else data


def _prepare(plan: Plan, directory: Path, *, resume: bool, fresh: bool, name: str) -> None:
    """Refuse a folder that holds a run, put it aside, or check that it may be resumed."""
    holds = (directory / "plan.toml").exists() or (directory / "checkpoints").exists()
    if holds and fresh:
        number = 1
        while (aside := directory.with_name(f"{directory.name}.before-{number}")).exists():
            number += 1
        directory.rename(aside)
        print(f"the earlier run is kept in {aside}", file=sys.stderr)
    elif holds and not resume:
        raise AutotrainError(
            f"{directory}: holds a run already",
            f"`autotrain run {name} --resume` goes on with it; --fresh puts it aside first",
        )
    elif holds and (directory / "plan.toml").exists():
        _check_same(plan, planfile.load(directory / "plan.toml"), name)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AutotrainError(
            f"{directory}: {error.strerror}", "--set run.directory=... when planning"
        ) from None


def _check_same(plan: Plan, before: Plan, name: str) -> None:
    def value(of: Plan, key: str) -> object:
        section, field = key.split(".")
        return getattr(getattr(of, section), field)

    changed = [
        f"{name}: {key}: {value(plan, key)} here, {value(before, key)} in the run"
        for key in _MUST_NOT_CHANGE
        if value(plan, key) != value(before, key)
    ]
    if changed:
        raise AutotrainError(
            "\n".join(changed), "a run cannot go on with these changed; --fresh starts anew"
        )


def _keep_plan(plan: Plan, directory: Path, task_file: Path, data: str | None) -> None:
    """The plan as run, in the run's folder, with paths that hold from there."""
    changed = {"data": data}
    if data is not None and Path(data).exists():
        changed["data"] = str(Path(data).resolve())
    if plan.task.file is not None:
        changed["file"] = str(task_file.resolve())
    kept = plan.model_copy(
        update={
            "task": plan.task.model_copy(update=changed),
            "run": plan.run.model_copy(update={"directory": str(directory.resolve())}),
        }
    )
    planfile.save(kept, directory / "plan.toml")


def _consumers(
    plan: Plan, directory: Path, stack: ExitStack, *, as_json: bool, max_steps: int | None
) -> list[Callable[[Event], None]]:
    """Who sees every event: the log, TensorBoard, and a person or a program."""
    from autotrain.report.console import viewer
    from autotrain.report.log import event_log
    from autotrain.report.scalars import scalars
    from autotrain.report.stream import Tolerant

    log = stack.enter_context(event_log(directory / "events.jsonl"))
    board = stack.enter_context(scalars(directory / "metrics"))
    if as_json:
        out = Tolerant(sys.stdout)
        return [log, board.write, lambda event: out.line(to_json(event))]
    show = stack.enter_context(viewer(plan, sys.stderr, max_steps=max_steps))
    return [log, board.write, show]
