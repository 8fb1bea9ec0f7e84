"""Copies of checkpoints elsewhere, `PLACE/RUN`: the way there, and the way back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autotrain import files
from autotrain.errors import AutotrainError
from autotrain.events import Warned
from autotrain.run.keeping import checkpoint, rewind
from autotrain.run.keeping.checkpoint import MANIFEST, TornError
from autotrain.run.keeping.copier import Copier, best_of, marks, remember
from autotrain.run.keeping.place import Place, said
from autotrain.schema import Plan


def fetch(url: str, name: str, directory: Path) -> tuple[int, list[str]]:
    """The newest checkpoint there that is whole, and the best, brought into a run's folder.

    `name`: of the run, which a mirror has a folder for. Returns its step, and what a person should
    know besides. Raises AutotrainError where there is none.
    """
    place = Place(url)
    try:
        places = [place] if place.steps() else []
        for each in () if places else dict.fromkeys((name, _of(name, directory))):
            places += place.within(each).runs()
        step, notes = _fetched(*_meant(places, directory), directory)
    except AutotrainError:
        raise
    except Exception as error:
        raise AutotrainError(f"{url}: {said(error)}", "try again: nothing is lost") from None
    if step is None:
        why = f": {notes[-1]}" if notes else ""
        raise AutotrainError(f"{url}: no checkpoint of {name} that is whole{why}")
    return step, notes


def _fetched(
    place: Place | None, others: list[Place], directory: Path
) -> tuple[int | None, list[str]]:
    """As `fetch`, of the one that is meant among others."""
    if place is None:
        return None, []
    notes = [
        f"{each.url} holds another run, up to step-{each.steps()[0]}: --from {each.url} is that one"
        for each in others
    ]
    for step in place.steps():
        try:
            path = _brought(place, step, directory)
        except TornError as error:
            notes.append(f"passed over a torn checkpoint: {error.message}")
            continue
        notes += _fetched_best(place, path, directory)
        if (owner := place.owner()) not in marks(directory):
            remember(directory, [owner])
        return step, notes
    return None, notes


def _meant(places: list[Place], directory: Path) -> tuple[Place | None, list[Place]]:
    """Of those that hold any the run's own folder, or else the last; and the others."""
    held = [place for place in places if place.steps()]
    mine = marks(directory)
    meant = next(reversed([each for each in held if each.owner() in mine] or held), None)
    return meant, [each for each in held if each is not meant]


def _brought(place: Place, step: int, directory: Path) -> Path:
    """Fetch a checkpoint, unless it is here and whole; another of that step is set aside."""
    checkpoint.insist_own(directory)
    target = checkpoint.folder(directory, step)
    if _is_whole(target, place.manifest(step)):
        return target
    fetched = place.get(step, directory)
    if target.exists():
        rewind.set_aside(directory, [step])
    fetched.rename(target)
    files.sync_folder(target.parent)
    return target


def _is_whole(path: Path, manifest: bytes) -> bool:
    """Whether a checkpoint here is what that manifest says."""
    try:
        if (path / MANIFEST).read_bytes() != manifest:
            return False
        checkpoint.verify(path)
    except (OSError, TornError):
        return False
    return True


def _fetched_best(place: Place, newest: Path, directory: Path) -> list[str]:
    """Bring the best one too, and point at both; what is wrong with it."""
    best, notes = best_of(newest), []
    if best in place.steps() and best is not None:
        try:
            _brought(place, best, directory)
        except TornError as error:
            notes.append(f"the best checkpoint is torn: {error.message}")
    for pointer, step in (("latest", checkpoint.step_of(newest)), ("best", best)):
        if step is not None and (path := checkpoint.folder(directory, step)).is_dir():
            files.write_atomic(path.with_name(pointer), f"{path.name}\n")
    return notes


def begun(plan: Plan, directory: Path, *, resume: bool) -> Copier:
    """The mirror that a plan names; from it comes what a resume lacks here. Raises AutotrainError.

    A run that goes on is not refused because its place is away: it may be back soon.
    """
    root = _root(plan, directory)
    if root.here and Path(root.root).resolve() == directory.resolve():
        raise AutotrainError(
            f"checkpoint.mirror: {root.url} is the run's own folder",
            "a place on another disk or machine",
        )
    lacks = resume and checkpoint.newest_good(directory)[0] is None
    notes = _recalled(root, directory) if lacks else []
    copier = Copier(root, directory, plan.checkpoint.keep, marks(directory) if resume else [])
    for note in notes:
        copier.tell(Warned(step=0, epoch=0, message=note))
    if not resume:
        copier.begin()
    return copier


def plan_there(plan: Plan, directory: Path) -> bytes:
    """As it ran, the plan of what a resume would fetch; empty where there is nothing.

    Raises AutotrainError where the mirror is away.
    """
    if plan.checkpoint.mirror is None:
        return b""
    root = _root(plan, directory)
    with _needed(root, directory):
        place, _ = _meant(root.runs(), directory)
        return b"" if place is None else place.plan()


def _recalled(root: Place, directory: Path) -> list[str]:
    """Fetch the newest checkpoint of a run that has none here; what a person should know."""
    with _needed(root, directory):
        place, others = _meant(root.runs(), directory)
        step, notes = _fetched(place, others, directory)
    if place is not None and step is not None:
        notes.append(f"no checkpoint was left here: step-{step} is from {place.url}")
    return notes


@contextmanager
def _needed(root: Place, directory: Path) -> Iterator[None]:
    """Within, a mirror is asked without which the run cannot go on."""
    try:
        yield
    except Exception as error:
        raise AutotrainError(
            f"{directory}: no checkpoint here, and the mirror could not be asked for one: "
            f"{root.url}: {said(error)}",
            "try again when it is back: nothing is lost; --fresh begins without it",
        ) from None


def _root(plan: Plan, directory: Path) -> Place:
    return Place(f"{str(plan.checkpoint.mirror).rstrip('/')}/{_of(plan.run.name, directory)}")


def _of(name: str, directory: Path) -> str:
    """A run's own folder in a mirror; a stage, whose folder has another name, has one in it."""
    return "/".join(dict.fromkeys((name, directory.name)))
