"""`autotrain run` of a plan with stages: one after another, each a run in a folder of its own."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from autotrain import earlier, files, parsing, planfile
from autotrain.commands import places, report
from autotrain.commands import run as single
from autotrain.commands.places import Asked
from autotrain.commands.streams import data_only
from autotrain.errors import AutotrainError, UsageError
from autotrain.events import Event, Started, Stopped, from_json
from autotrain.near import near_name
from autotrain.report.stages import DONE
from autotrain.schema import Plan, Stage

# After these the next stage begins: a run of a few steps of every stage is a trial of them all.
_GOES_ON = (*DONE, "max_steps")
# What lies in the folder of them all.
_WRITTEN = ("plan.toml", "report.json", ".lock")


class Part(NamedTuple):
    """A stage, its own plan, and where it runs; `before`: the stage before it."""

    number: int
    stage: Stage
    plan: Plan
    place: Path
    before: Part | None


def run(plan: Plan, asked: Asked) -> int:
    """Carry the stages out in turn, or the one asked for; returns the exit code."""
    root = places.directory_of(plan, asked.path)
    parts = _parts(plan, root)
    chosen = _chosen(parts, asked)
    if asked.back_to is not None and asked.stage is None:
        raise UsageError("--from: of which stage?", hint="--stage NAME --resume --from STEP")
    if asked.import_weights is not None and chosen[0].before is not None:
        raise UsageError(
            f"--import-weights: {asked.stage} begins with the weights of the stage before it",
            hint=f"the first stage can begin with a file's: --stage {parts[0].stage.name}",
        )
    task_file = single.allowed(plan, root, asked)
    for part in chosen:
        single.allowed(part.plan, part.place, asked)
    if asked.stage is None and not asked.resume:
        places.check_free(plan, root, asked)
    for part in chosen:
        places.check_free(part.plan, part.place, asked._replace(stage=part.stage.name))
    data = places.located(plan.task.data, asked.path.resolve().parent)
    with data_only() as out, _room(root, whole=asked.fresh and asked.stage is None):
        places.keep_plan(plan, root, task_file, data)
        try:
            code = _in_turn(chosen, asked, out, of=len(parts))
        finally:
            said = _summary(plan, root, asked.name)
    if not asked.as_json:
        print(f"\n{said}", file=sys.stderr)
    return code


def _in_turn(chosen: list[Part], asked: Asked, out: TextIO, *, of: int) -> int:
    """The exit code of the stage that ended the run: the last one, or one that was stopped."""
    from autotrain.device import kernels_kept

    later = False
    # The library looks once how many to keep, in the first stage.
    with kernels_kept(max(part.plan.device.kernels or 0 for part in chosen) or None):
        for part in chosen:
            ended = _one(part, asked._replace(later=later), out, of=of)
            later |= ended is not None
            if ended is not None and not _goes_on(ended):
                return single.exit_code(ended)
    return 0


def _parts(plan: Plan, root: Path) -> list[Part]:
    from autotrain.report import stages

    found: list[Part] = []
    each = zip(planfile.stages(plan), stages.places(plan, root), strict=True)
    for number, ((stage, own), place) in enumerate(each, start=1):
        found.append(Part(number, stage, own, place, found[-1] if found else None))
    return found


def _chosen(parts: list[Part], asked: Asked) -> list[Part]:
    """All, or the one that `--stage` names. Raises UsageError where there is none of that name."""
    if asked.stage is None:
        return parts
    names = [part.stage.name for part in parts]
    if not names:
        raise UsageError(f"--stage {asked.stage}: the plan has no stages", hint="leave --stage out")
    if asked.stage not in names:
        near = near_name(asked.stage, names)
        raise UsageError(f"--stage: no stage {asked.stage!r}{near}", hint=f"of {', '.join(names)}")
    return [part for part in parts if part.stage.name == asked.stage]


def _one(part: Part, asked: Asked, out: TextIO, *, of: int) -> Event | None:
    """Carry one stage out: begin it, or go on with it; None where it has finished already."""
    plan, begins = part.plan, _begins(part)
    head = f"stage {part.number} of {of}, {part.stage.name}"
    if begins:
        inputs = plan.inputs.model_copy(update={"asked": {**plan.inputs.asked, **begins}})
        plan = plan.model_copy(update={"inputs": inputs})
    held = places.holds_run(part.place)
    if held and not asked.fresh and _other_weights(part, begins):
        kept = places.put_aside(part.place)
        print(f"{head}: the stage before has other weights now; its run is kept in {kept}",
              file=sys.stderr)  # fmt: skip
        held = False
    if held and asked.resume and asked.back_to is None and finished(part.place):
        print(f"{head}: finished already", file=sys.stderr)
        return None
    print(head, file=sys.stderr)
    known = held or part.before is None or asked.back_to is not None
    resume = asked.resume and (known or _is_mirrored(part, begins, asked.path.resolve().parent))
    fresh = asked.fresh and held
    _free()
    given = asked.import_weights if part.before is None else None
    mine = asked._replace(resume=resume, fresh=fresh, stage=part.stage.name, import_weights=given)
    return single.carry_out(plan, part.place, mine, out)


def _begins(part: Part) -> dict[str, Any]:
    """What a stage takes over: checkpoints, and the digests of their weights. Often nothing.

    That is the checkpoint that its model begins with, and those that its task's options mean.
    Raises AutotrainError where one of those stages has not ended, or left nothing that is whole.
    """
    found: dict[str, Any] = {}
    if part.before is not None and part.stage.weights != "none":
        path, digest = _left_by(part.before, part.stage.weights, part)
        found |= {"weights": path, "weights_sha256": digest}
    wanted = set(earlier.named(part.plan.task.options).values())
    if meant := [each for each in _all_before(part) if each.stage.name in wanted]:
        left = {each.stage.name: _left_by(each, "best", part) for each in meant}
        found[earlier.PATHS] = {name: path for name, (path, _) in left.items()}
        found[earlier.DIGESTS] = {name: digest for name, (_, digest) in left.items()}
    return found


def _all_before(part: Part) -> Iterator[Part]:
    while part.before is not None:
        part = part.before
        yield part


def _left_by(before: Part, which: str, part: Part) -> tuple[str, str]:
    """The checkpoint that `part` wants of a stage before it, and the digest of its weights."""
    from autotrain.run.keeping import handover

    name = before.stage.name
    ended = last_stop(before.place)
    if ended is None or not _goes_on(ended):
        raise AutotrainError(
            f"stage {part.stage.name}: begins with the {which} weights of {name}, which has not "
            "finished",
            "run the plan without --stage: --resume begins with the first unfinished stage",
        )
    try:
        path = handover.source(before.place, which)
    except AutotrainError as error:
        raise AutotrainError(
            f"stage {part.stage.name}: the {which} weights of {name}: {error.message}",
            f"`--fresh --stage {name}` trains {name} again",
        ) from None
    return str(path.resolve()), handover.weights_digest(path)


def _other_weights(part: Part, begins: dict[str, Any]) -> bool:
    """Whether the run that is there began with other weights than the stages before have now."""
    try:
        before = planfile.load(part.place / "plan.toml", consistent=False)
    except AutotrainError:
        return bool(begins)
    return _differ(before.inputs.asked, begins)


def _differ(asked: Mapping[str, Any], begins: Mapping[str, Any]) -> bool:
    return any(asked.get(key) != begins.get(key) for key in ("weights_sha256", earlier.DIGESTS))


def _is_mirrored(part: Part, begins: Mapping[str, Any], folder: Path) -> bool:
    """Whether the plan's mirror has the stage, begun with the weights of those before it here."""
    from autotrain.run.keeping import mirror

    plan = mirror.plan_there(single.with_mirror(part.plan, folder), part.place)
    try:
        asked = parsing.toml(plan)["inputs"]["asked"]
    except (ValueError, KeyError, TypeError):
        return False
    return isinstance(asked, dict) and not _differ(asked, begins)


def _goes_on(event: Event) -> bool:
    return isinstance(event, Stopped) and event.reason in _GOES_ON


def last_stop(place: Path) -> Stopped | None:
    """How the run in a folder ended, if it did and has not begun again since."""
    try:
        with files.open_regular(place / "events.jsonl") as file:
            lines = file.read().decode().splitlines()
    except (OSError, ValueError):
        return None
    for line in reversed(lines):
        try:
            event = from_json(line)
        except ValueError:  # torn by a kill
            continue
        if isinstance(event, Started | Stopped):
            return event if isinstance(event, Stopped) else None
    return None


def finished(place: Path) -> bool:
    """Whether a run has gone its whole way, and the checkpoints that count are whole."""
    from autotrain.run.keeping import checkpoint
    from autotrain.run.keeping.keeper import pointed

    stopped = last_stop(place)
    if stopped is None or stopped.reason not in DONE:
        return False
    try:
        for step in {stopped.step, *pointed(place).values()}:
            checkpoint.verify(checkpoint.folder(place, step))
    except AutotrainError:
        return False
    return True


def _free() -> None:
    """Give back what the stage before held: this process goes on."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _summary(plan: Plan, root: Path, name: str) -> str:
    """Write `report.json` of all stages so far; what it says. One that fails hides nothing."""
    try:
        return report.summarise(plan, root, Path(name))[1]
    except Exception as error:
        why = str(error).partition("\n")[0] or type(error).__name__
        return f"warning: no report of the stages: {why}; `autotrain report {root}` retries"


@contextmanager
def _room(root: Path, *, whole: bool) -> Iterator[None]:
    """Within, the stages run. Where none could begin, everything is as it was.

    `whole`: an earlier run of all stages is put aside first.
    """
    from autotrain.run.lock import held

    aside = places.put_aside(root) if whole and places.holds_run(root) else None
    there = [root / name for name in _WRITTEN if os.path.lexists(root / name)]
    kept = {path: path.read_bytes() if path.is_file() else None for path in there}
    new = [place for place in (root, *root.parents) if not place.exists()]
    try:
        with held(root):
            yield
    finally:
        begun = any(root.glob("[1-9]*-*/plan.toml"))
        if not begun:
            _undo(root, new, kept)
            if aside is not None and not root.exists():
                aside.rename(root)
        elif aside is not None:
            print(f"the earlier run is kept in {aside}", file=sys.stderr)


def _undo(root: Path, new: list[Path], kept: dict[Path, bytes | None]) -> None:
    """Leave no trace of a run of which not even the first stage began; `kept` was there before."""
    with suppress(OSError, AutotrainError):  # what holds anything else stays
        for path in (root / name for name in _WRITTEN):
            if path not in kept:
                path.unlink(missing_ok=True)
            elif (before := kept[path]) and path.read_bytes() != before:
                files.write_atomic(path, before)
        for place in new:
            place.rmdir()
