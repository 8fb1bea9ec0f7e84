"""Where a run goes: its folder, free or not, and the copy of the plan that is kept there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from autotrain import files, planfile
from autotrain.errors import AutotrainError, UsageError
from autotrain.schema import Plan
from autotrain.task import file_sha256
from autotrain.units import bytes_text

if TYPE_CHECKING:
    from autotrain.run.processes.ranks import Ranks

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


class Asked(NamedTuple):
    """The command line: the plan's file as it was named, and how to begin.

    `stage`: of a plan with stages, the one that is to be carried out; `later`: it is not the
    first that this process trains. `ranks`: the processes that train together, this one first.
    `back_to`: the checkpoint that a resume goes on from, where it is not the newest.
    `import_weights`: the file whose weights a new run begins with. `track`: who is sent figures.
    """

    name: str
    resume: bool
    fresh: bool
    max_steps: int | None
    trust: bool
    as_json: bool
    stage: str | None = None
    later: bool = False
    ranks: Ranks | None = None
    back_to: str | None = None
    import_weights: str | None = None
    track: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """The plan's file."""
        return Path(self.name)


class Processes(NamedTuple):
    """How many are to train together: `nproc` on each of `nodes` machines.

    `endpoint`: where the machines find one another; `node_rank`: which of them this is.
    """

    nproc: int | None = None
    nodes: int | None = None
    endpoint: str | None = None
    node_rank: int | None = None

    @property
    def asked(self) -> bool:
        """Whether the command line says anything about it."""
        return any(each is not None for each in self)

    @property
    def several(self) -> bool:
        """Whether it is more than one."""
        return (self.nproc or 1) * (self.nodes or 1) > 1


def located(data: str | None, folder: Path) -> str | None:
    """Where a plan's data lies: beside the plan where a path was given, else as it is."""
    if data is None:
        return None
    there = folder / data
    return str(there) if there.exists() else data


def is_runs_own(path: Path) -> bool:
    """Whether a plan is the copy in a run's folder, which says what ran there."""
    folder = path.resolve().parent
    stages = folder.glob("[1-9]*-*/events.jsonl")
    return path.name == "plan.toml" and ((folder / "events.jsonl").is_file() or any(stages))


def directory_of(plan: Plan, path: Path) -> Path:
    """Where the run goes. The copy of a plan in a run's folder is about that folder, moved or not.

    Raises UsageError where the plan itself would lie inside the run.
    """
    folder = path.resolve().parent
    if is_runs_own(path):
        return folder
    directory = folder / plan.run.directory
    if folder.is_relative_to(directory.resolve()):
        raise UsageError(
            f"{path}: run.directory: {plan.run.directory!r} holds the plan itself",
            hint=f"a folder of the run's own, such as runs/{plan.run.name}",
        )
    return directory


def holds_run(directory: Path) -> bool:
    """Whether a run has begun there."""
    return (directory / "plan.toml").exists() or (directory / "checkpoints").exists()


def check_free(plan: Plan, directory: Path, asked: Asked) -> None:
    """Refuse a folder that holds a run, or a resume of one that was another."""
    if not holds_run(directory) or asked.fresh:
        return
    if not asked.resume:
        raise AutotrainError(
            f"{directory}: holds a run already",
            f"`autotrain run {asked.name} --resume` goes on with it; --fresh puts it aside first",
        )
    if (directory / "plan.toml").exists():
        name = f"{asked.name}: stage {asked.stage}" if asked.stage else asked.name
        _check_same(plan, planfile.load(directory / "plan.toml"), name)


def check_room(plan: Plan, directory: Path) -> None:
    """Refuse a disk that cannot hold one checkpoint; say so where it cannot hold all."""
    place = next(p for p in (directory, *directory.parents) if p.is_dir())
    free, said = files.room(place)
    size, keep = plan.predicted.checkpoint_bytes.expected, plan.checkpoint.keep + 1
    held = sum(1 for _ in directory.glob("checkpoints/step-*"))  # their place is used again
    if free < size and not held:
        raise AutotrainError(
            f"{place}: free {said}; a checkpoint takes {bytes_text(size)}",
            "free that much, or plan from a folder on a larger disk",
        )
    need = max(keep - held, 1) * size
    if free < need:
        print(
            f"warning: {place}: free {said}; the checkpoints that are kept, and one "
            f"being written, take {bytes_text(need)}",
            file=sys.stderr,
        )


def check_memory(plan: Plan) -> None:
    """Say that a run may be killed for what it takes: before anything large is loaded."""
    from autotrain.probe.limits import usable_memory

    need = plan.predicted.device_peak_bytes
    most = usable_memory().total_bytes if plan.device.kind == "cpu" else need.low
    if most < need.low:
        print(
            f"warning: this process may hold {bytes_text(most)} of memory (`ulimit -v`, a "
            f"container's limit), and the run is to take {bytes_text(need.low)} to "
            f"{bytes_text(need.high)}: it may be killed",
            file=sys.stderr,
        )


@contextmanager
def room(directory: Path, *, fresh: bool) -> Iterator[None]:
    """Within, a run begins. One that cannot leaves everything as it was."""
    aside = put_aside(directory) if fresh and holds_run(directory) else None
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


def put_aside(directory: Path) -> Path:
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


def keep_plan(plan: Plan, directory: Path, task_file: Path, data: str | None) -> None:
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
