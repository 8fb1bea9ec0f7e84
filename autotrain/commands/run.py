"""`autotrain run`: carry out a plan, show it, and keep what happened."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from autotrain import amending, earlier, files, planfile, presence
from autotrain import trust as trusting
from autotrain.commands import member, present, remember, report, waiting
from autotrain.commands.places import (
    Asked,
    check_free,
    check_memory,
    check_room,
    directory_of,
    keep_plan,
    located,
    room,
)
from autotrain.commands.present import Present
from autotrain.commands.streams import data_only
from autotrain.errors import AutotrainError, UsageError
from autotrain.events import Event, Healed, Started, Stopped, from_json, to_json
from autotrain.run.signals import outlive_line
from autotrain.schema import Plan, TaskSection
from autotrain.task import Task, load_task

if TYPE_CHECKING:
    from autotrain.foreign.weights import Foreign

_EXIT = {"interrupted": 130, "terminated": 143}


def run(asked: Asked) -> int:
    """Train as the plan says, alone or as one of several; returns the exit code."""
    outlive_line()
    return member.take_part(asked, _run) if member.expected() else _run(asked)


def check(asked: Asked) -> None:
    """Raise AutotrainError for flags that do not go together, or a tracker that is not there."""
    if asked.resume and asked.fresh:
        raise UsageError("--resume and --fresh exclude each other", hint="choose one of them")
    if asked.back_to is not None and not asked.resume:
        raise UsageError("--from says where --resume goes on from", hint="add --resume")
    if asked.import_weights is not None and asked.resume:
        raise UsageError(
            "--import-weights is for a run that begins; --resume has the weights of its checkpoint",
            hint="leave it out, or begin anew: --fresh --import-weights",
        )
    if asked.track:
        from autotrain.report import tracking

        tracking.check(asked.track)


def _run(asked: Asked) -> int:
    check(asked)
    plan = planfile.load(asked.path)
    if plan.stage or asked.stage is not None:
        from autotrain.commands import in_turn

        return in_turn.run(plan, asked)
    with data_only() as out:
        return exit_code(carry_out(plan, directory_of(plan, asked.path), asked, out))


def exit_code(event: Event) -> int:
    """Of a run that ended with this event."""
    return _EXIT.get(event.reason, 0) if isinstance(event, Stopped) else 0


def carry_out(plan: Plan, directory: Path, asked: Asked, out: TextIO) -> Event:
    """Train as a plan without stages says; returns the last event."""
    resume, folder = asked.resume, asked.path.resolve().parent
    task_file = allowed(plan, directory, asked)
    check_free(plan, directory, asked)
    check_room(plan, directory)
    check_memory(plan)
    if asked.back_to is not None:
        _go_back(plan, directory, asked.back_to)
    before = _so_far(directory) if resume else None
    if before is not None:
        plan = amending.applied(plan, before)
    elif not resume:
        plan = amending.forgotten(plan)
    plan = with_mirror(plan, folder)
    data = located(plan.task.data, folder)
    waiting.settle(plan.device.threads)  # before torch is loaded
    task = load_task(task_file, data, earlier.filled(plan.task.options, plan.inputs.asked))
    here = _look(plan, task, task_file, data)
    watch = remember.Watch(plan, remember.loaded_bytes())
    weights = begins_with(plan, directory, asked)
    mine, ranks = plan, asked.ranks
    if ranks is not None:
        mine = member.lead(ranks, member.Order(plan, directory, resume, weights))

    from autotrain.commands import lent
    from autotrain.run.loop import train
    from autotrain.run.signals import Stop

    with Stop().catch() as stop, ExitStack() as stack:
        events = train(
            mine, task, directory, task_file=task_file, resume=resume,
            max_steps=asked.max_steps, stop=stop, weights=weights, ranks=ranks,
        )  # fmt: skip
        events = lent.told(events, mine)
        with room(directory, fresh=asked.fresh):
            started = _of_stage(next(events), asked)
            stack.enter_context(_summary(plan, directory, asked.name, quiet=asked.as_json))
            shown = out if asked.as_json else None
            consumers = _consumers(plan, directory, stack, shown, asked)
            keep_plan(plan, directory, task_file, data)
        told = present.told(plan, started, here, asked.path, before)
        for event in chain([started], told, events):
            for consume in (*consumers, watch.see):
                consume(event)
        if ranks is not None:  # the next plan is made from what one process took
            return event
        # What an earlier stage left in this process makes a later one's memory look smaller.
        remember.keep(watch, here, by_length=task.length is not None or asked.later)
    return event


def _go_back(plan: Plan, directory: Path, name: str) -> None:
    """Have the resume go on from that checkpoint, of this run or of a mirror of it."""
    from autotrain.run.keeping import mirror, rewind
    from autotrain.run.lock import held

    elsewhere = "://" in name or Path(name).is_dir()
    if not elsewhere and not (directory / "checkpoints").is_dir():
        raise AutotrainError(f"--from {name}: no run in {directory}", "leave --from out")
    directory.mkdir(parents=True, exist_ok=True)
    with held(directory):
        if elsewhere:
            step, notes = mirror.fetch(name, plan.run.name, directory)
            for note in notes:
                print(f"warning: {note}", file=sys.stderr)
            print(f"fetched step-{step} from {name}", file=sys.stderr)
            name = f"step-{step}"
        print(rewind.go_back(directory, name), file=sys.stderr)


def with_mirror(plan: Plan, folder: Path) -> Plan:
    """A mirror that is a relative path lies beside the plan, wherever the command is typed."""
    where = plan.checkpoint.mirror
    if where is None or "://" in where:
        return plan
    there = plan.checkpoint.model_copy(update={"mirror": str(folder / where)})
    return plan.model_copy(update={"checkpoint": there})


def begins_with(plan: Plan, directory: Path, asked: Asked) -> Path | Foreign | None:
    """Whose weights a run begins with: a checkpoint's that its plan names, or a file's.

    Raises AutotrainError where it cannot begin with them.
    """
    if asked.import_weights is not None:
        from autotrain.foreign.weights import read

        return read(Path(asked.import_weights))
    if asked.resume:
        _insist_on_imported(plan, directory)
    named = plan.inputs.asked.get("weights")
    return Path(named) if isinstance(named, str) else None


def _insist_on_imported(plan: Plan, directory: Path) -> None:
    """Raise AutotrainError for a run that lost the weights that it began with: it was killed
    before they were saved, and would go on from others."""
    from autotrain.run.keeping import checkpoint, mirror

    first = files.first_line(directory / "events.jsonl")
    try:
        event = from_json(first)
    except ValueError:
        return
    if not isinstance(event, Started) or event.weights_sha256 is None:
        return
    lost = checkpoint.newest_good(directory)[0] is None
    if lost and not mirror.plan_there(plan, directory):
        raise AutotrainError(
            f"{directory}: no checkpoint to resume from, and it began with the weights of "
            f"{event.weights_from}",
            f"begin anew: --fresh --import-weights {event.weights_from}",
        )


def _of_stage(event: Event, asked: Asked) -> Event:
    """With what the loop does not know: the stage, and which process this is to others."""
    if not isinstance(event, Started):
        return event
    return replace(event, stage=asked.stage, process=presence.mark())


def _look(plan: Plan, task: Task, task_file: Path, data: str | None) -> Present | None:
    """What is here now; None, and a word about it, where that cannot be found out."""
    try:
        return present.look(plan, task, task_file, data)
    except Exception as error:
        why = str(error).partition("\n")[0] or type(error).__name__
        print(f"warning: not compared with what the plan was made from: {why}", file=sys.stderr)
        return None


def _so_far(directory: Path) -> Plan | None:
    """The plan that a run was last carried out by."""
    path = directory / "plan.toml"
    return planfile.load(path) if path.exists() else None


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
        text = f"\n{report.write(plan, directory, Path(plan_file))[1]}"
    except Exception as error:
        why = str(error).partition("\n")[0] or type(error).__name__
        text, quiet = f"warning: no report: {why}; `autotrain report {directory}` retries", False
    if not quiet:
        Tolerant(sys.stderr).line(text)


def allowed(plan: Plan, directory: Path, asked: Asked) -> Path:
    """A plan's code. Raises AutotrainError where it, or where it writes, is not trusted here."""
    folder = asked.path.resolve().parent
    task_file = code_of(plan.task, folder, accept=asked.trust)
    places = {"run.directory": str(directory), "checkpoint.mirror": plan.checkpoint.mirror}
    trusting.check_places(places, folder, asked.name, accept=asked.trust)
    return task_file


def code_of(task: TaskSection, folder: Path, *, accept: bool) -> Path:
    """A plan's code. Raises AutotrainError where it is not trusted here."""
    path = trusting.task_path(task, folder)
    trusting.check(task, path, accept=accept)
    return path


def _consumers(
    plan: Plan, directory: Path, stack: ExitStack, out: TextIO | None, asked: Asked
) -> list[Callable[[Event], None]]:
    """Who sees every event: the log, TensorBoard, and a person, or a program that reads `out`."""
    from autotrain.commands.reporting import reports
    from autotrain.commands.tracking import tracked
    from autotrain.report.console import viewer
    from autotrain.report.log import event_log
    from autotrain.report.scalars import scalars
    from autotrain.report.stream import Tolerant

    log = stack.enter_context(event_log(directory / "events.jsonl"))
    board = stack.enter_context(scalars(directory / "metrics"))
    written = stack.enter_context(reports(directory))
    sent = stack.enter_context(tracked(directory, asked.track))

    def amend(event: Event) -> None:
        if isinstance(event, Healed) and event.amends:
            try:
                amending.write(event, directory / "plan.toml")
            except AutotrainError as error:  # the run itself goes on as it says
                print(f"warning: the plan was not amended: {error.message}", file=sys.stderr)

    if out is not None:
        lines = Tolerant(out)
        told = [amend, log, board.write, lambda event: lines.line(to_json(event))]
    else:
        told = [amend, log, board.write]
        told.append(stack.enter_context(viewer(plan, sys.stderr, max_steps=asked.max_steps)))
    return [*told, written.see, sent.see]
