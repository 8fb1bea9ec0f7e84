"""`autotrain run`: carry out a plan, show it, and keep what happened."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import TextIO

from autotrain import amending, files, planfile
from autotrain import trust as trusting
from autotrain.commands import present, remember, report
from autotrain.commands.present import Present
from autotrain.commands.streams import data_only
from autotrain.errors import AutotrainError, UsageError
from autotrain.events import Event, Healed, Started, Stopped, Warned, to_json
from autotrain.schema import Plan, TaskSection
from autotrain.task import Task, file_sha256, load_task

# What a checkpoint depends on; anything else may be changed on resume.
_MUST_NOT_CHANGE = (
    "batch.global_batch",
    "batch.buckets",
    "batch.target_items",
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
        raise UsageError("--resume and --fresh exclude each other", hint="choose one of them")
    path = Path(plan_file)
    plan = planfile.load(path)
    folder = path.resolve().parent
    task_file = _code(plan.task, folder, accept=trust)
    directory = _directory(plan, path)
    _check_free(plan, directory, resume=resume, fresh=fresh, name=plan_file)
    if resume and (directory / "plan.toml").exists():
        plan = amending.applied(plan, planfile.load(directory / "plan.toml"))
    data = located(plan.task.data, folder)
    with data_only() as out:
        task = load_task(task_file, data, plan.task.options)
        here = _look(plan, task, task_file, data)
        watch = remember.Watch(plan, remember.loaded_bytes())

        from autotrain.run.loop import train
        from autotrain.run.signals import Stop

        with Stop().catch() as stop, ExitStack() as stack:
            events = train(
                plan, task, directory, task_file=task_file, resume=resume,
                max_steps=max_steps, stop=stop,
            )  # fmt: skip
            with _room(directory, fresh=fresh):
                started = next(events)
                stack.enter_context(_summary(plan, directory, plan_file, quiet=as_json))
                consumers = _consumers(plan, directory, stack, out if as_json else None, max_steps)
                _keep_plan(plan, directory, task_file, data)
            told = _told(plan, started, here, path)
            for event in chain([started], told, events):
                for consume in (*consumers, watch.see):
                    consume(event)
            remember.keep(watch, here, by_length=task.length is not None)
    return _EXIT.get(event.reason, 0) if isinstance(event, Stopped) else 0


def _look(plan: Plan, task: Task, task_file: Path, data: str | None) -> Present | None:
    """What is here now; None, and a word about it, where that cannot be found out."""
    try:
        return present.look(plan, task, task_file, data)
    except Exception as error:
        why = str(error).partition("\n")[0] or type(error).__name__
        print(f"warning: not compared with what the plan was made from: {why}", file=sys.stderr)
        return None


def _told(plan: Plan, started: Event, here: Present | None, path: Path) -> list[Event]:
    """A warning for each thing that is no longer as the plan says, with the way out."""
    found = [*here.changes] if here is not None else []
    if isinstance(started, Started):
        found += present.model_changed(plan, started.parameters)
    advice = f"`autotrain plan --refresh {path}` makes the plan for what is here"
    if (path.resolve().parent / "events.jsonl").is_file():  # a run's own copy stays as it ran
        advice = f"`autotrain plan --refresh {path} -o plan.toml` makes a plan for what is here"
    return [
        Warned(step=started.step, epoch=started.epoch, message=str(change), advice=advice)
        for change in found
    ]


@contextmanager
def _summary(plan: Plan, directory: Path, plan_file: str, *, quiet: bool) -> Iterator[None]:
    """On leaving, also by an error: the report. The second ^C stops at once and gets none."""
    try:
        yield
    except Exception:
        _report(plan, directory, plan_file, quiet=quiet)
        raise
    _report(plan, directory, plan_file, quiet=quiet)


def _report(plan: Plan, directory: Path, plan_file: str, *, quiet: bool) -> None:
    """Write the report and print what it says. Nothing here can undo, or hide, the training."""
    from autotrain.report.stream import Tolerant

    try:
        text = f"\n{report.write(plan, directory, plan_file)[1]}"
    except Exception as error:
        why = str(error).partition("\n")[0] or type(error).__name__
        text, quiet = f"warning: no report: {why}; `autotrain report {directory}` retries", False
    if not quiet:
        Tolerant(sys.stderr).line(text)


def _code(task: TaskSection, folder: Path, *, accept: bool) -> Path:
    path = trusting.task_path(task, folder)
    trusting.check(task, path, accept=accept)
    return path


def located(data: str | None, folder: Path) -> str | None:
    """Where a plan's data lies: beside the plan where a path was given, else as it is."""
    if data is None:
        return None
    there = folder / data
    return str(there) if there.exists() else data


def _directory(plan: Plan, path: Path) -> Path:
    """Where the run goes. The copy of a plan in a run's folder is about that folder, moved or not.

    Raises UsageError where the plan itself would lie inside the run.
    """
    folder = path.resolve().parent
    if path.name == "plan.toml" and (folder / "events.jsonl").is_file():
        return folder
    directory = folder / plan.run.directory
    if folder.is_relative_to(directory.resolve()):
        raise UsageError(
            f"{path}: run.directory: {plan.run.directory!r} holds the plan itself",
            hint=f"a folder of the run's own, such as runs/{plan.run.name}",
        )
    return directory


def _holds_run(directory: Path) -> bool:
    return (directory / "plan.toml").exists() or (directory / "checkpoints").exists()


def _check_free(plan: Plan, directory: Path, *, resume: bool, fresh: bool, name: str) -> None:
    """Refuse a folder that holds a run, or a resume of one that was another."""
    if not _holds_run(directory) or fresh:
        return
    if not resume:
        raise AutotrainError(
            f"{directory}: holds a run already",
            f"`autotrain run {name} --resume` goes on with it; --fresh puts it aside first",
        )
    if (directory / "plan.toml").exists():
        _check_same(plan, planfile.load(directory / "plan.toml"), name)


@contextmanager
def _room(directory: Path, *, fresh: bool) -> Iterator[None]:
    """Within, a run begins. One that cannot leaves everything as it was."""
    aside = _put_aside(directory) if fresh and _holds_run(directory) else None
    made = [place for place in (directory, *directory.parents) if not place.exists()]
    try:
        yield
    except BaseException:
        with suppress(OSError):  # what holds anything stays
            if made:
                (directory / ".lock").unlink(missing_ok=True)
            for place in made:
                place.rmdir()
        if aside is not None and not directory.exists():
            aside.rename(directory)
        raise
    if aside is not None:
        print(f"the earlier run is kept in {aside}", file=sys.stderr)


def _put_aside(directory: Path) -> Path:
    """Rename an earlier run's folder. Raises AutotrainError where that run still goes on."""
    from autotrain.run.lock import held

    with held(directory):
        aside = files.aside(directory)
    try:
        return directory.rename(aside)
    except OSError as error:
        raise AutotrainError(
            f"{directory}: {error.strerror}", "choose another run.name when planning"
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
        raise UsageError(
            *changed, hint="a run cannot go on with these changed; --fresh starts anew"
        )


def _keep_plan(plan: Plan, directory: Path, task_file: Path, data: str | None) -> None:
    """The plan as run, in the run's folder, with paths that hold from there."""
    changed = {"data": data, "sha256": file_sha256(task_file)}
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
    plan: Plan, directory: Path, stack: ExitStack, out: TextIO | None, max_steps: int | None
) -> list[Callable[[Event], None]]:
    """Who sees every event: the log, TensorBoard, and a person, or a program that reads `out`."""
    from autotrain.report.console import viewer
    from autotrain.report.log import event_log
    from autotrain.report.scalars import scalars
    from autotrain.report.stream import Tolerant

    log = stack.enter_context(event_log(directory / "events.jsonl"))
    board = stack.enter_context(scalars(directory / "metrics"))

    def amend(event: Event) -> None:
        if isinstance(event, Healed) and event.amends:
            amending.write(event, directory / "plan.toml")

    if out is not None:
        lines = Tolerant(out)
        return [log, board.write, amend, lambda event: lines.line(to_json(event))]
    show = stack.enter_context(viewer(plan, sys.stderr, max_steps=max_steps))
    return [log, board.write, amend, show]
