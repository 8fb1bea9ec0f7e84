"""A run that is there, opened to use what it learned: its plan, task, code and a checkpoint."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from autotrain import earlier, planfile
from autotrain.commands.places import directory_of, located
from autotrain.commands.run import code_of
from autotrain.errors import AutotrainError, DoesNotFitError, UsageError
from autotrain.near import near_name
from autotrain.schema import DeviceKind, Plan
from autotrain.task import Kept, Task, load_task

if TYPE_CHECKING:
    from autotrain.run.trained import SplitName, Trained

_DEVICE = re.compile(rf"({'|'.join(get_args(DeviceKind))})(?::([0-9]{{1,3}}))?")


class Wanted(NamedTuple):
    """The command line: which run, stage and checkpoint, on which device."""

    run: str
    checkpoint: str = "best"
    stage: str | None = None
    device: str | None = None
    trust: bool = False


class Opened(NamedTuple):
    """A run's own plan and task, its folder, and the checkpoint that was asked for.

    `asked`: as in `Wanted`; `command`: what names the run on a command line. `split`: whose samples
    the task has; `kept`: it was made of what the checkpoint says of the data.
    """

    asked: Wanted
    plan: Plan
    task: Task
    task_file: Path
    place: Path
    checkpoint: Path
    split: SplitName | None
    kept: bool

    @property
    def name(self) -> str:
        """For a person: `my-task`, or `signs (2-student)` of a stage."""
        name, folder = self.plan.run.name, self.place.resolve().name
        return name if folder == name else f"{name} ({folder})"

    @property
    def command(self) -> str:
        """What names this run, and its checkpoint, on a command line."""
        words = [shlex.quote(str(self.place))]
        if self.asked.checkpoint != "best":
            words.append(f"--checkpoint {shlex.quote(self.asked.checkpoint)}")
        return " ".join(words)

    def load(self) -> Trained:
        """The model, with the weights of the checkpoint. Raises AutotrainError."""
        from autotrain.run import trained

        try:
            return trained.load(
                self.plan, self.task, self.checkpoint, task_file=self.task_file,
                folder=self.place, split=self.split, kept=self.kept,
            )  # fmt: skip
        except Exception as error:
            raise explained(error, f"loading {self.name}") from error


def open_run(wanted: Wanted, split: SplitName | None = None) -> Opened:
    """Open it. Its code runs only where it is trusted here, as for `run`.

    Where the checkpoint says what its model needs to know of the data, those of `split` are read
    and nothing else, without a split none at all; else the task is made as it was for training.

    Raises AutotrainError: no run there, code that is not trusted, no such checkpoint.
    """
    place = _place(wanted)
    plan = planfile.load(place / "plan.toml", consistent=False)
    plan = plan if wanted.device is None else _on(plan, wanted.device)
    task_file = code_of(plan.task, place, accept=wanted.trust)

    from autotrain.run import trained

    _insist_on_device(plan)
    path = trained.checkpoint_of(place, wanted.checkpoint)
    facts = trained.facts_of(path)
    task = _task_of(plan, task_file, place, facts, split)
    return Opened(wanted, plan, task, task_file, place, path, split, facts is not None)


def _task_of(
    plan: Plan, task_file: Path, place: Path, facts: dict[str, Any] | None, split: str | None
) -> Task:
    options = earlier.filled(plan.task.options, plan.inputs.asked)
    data = located(plan.task.data, place)
    if facts is None:
        return load_task(task_file, data, options)
    return load_task(task_file, None if split is None else data, options, Kept(facts, split))


def _place(wanted: Wanted) -> Path:
    """The folder of the run, or of its stage. Raises AutotrainError where there is none."""
    root = Path(wanted.run)
    if root.is_file():
        root = directory_of(planfile.load(root, consistent=False), root)
    if not (root / "plan.toml").is_file():
        raise AutotrainError(f"{root}: holds no run", "name a folder such as runs/my-task")
    plan = planfile.load(root / "plan.toml", consistent=False)
    if not plan.stage:
        if wanted.stage is not None:
            raise UsageError(
                f"--stage {wanted.stage}: {root} has no stages", hint="leave --stage out"
            )
        return root
    return _stage(plan, root, wanted.stage)


def _stage(plan: Plan, root: Path, name: str | None) -> Path:
    """The folder of the stage that is named, or of the last."""
    from autotrain.report import stages

    names = [stage.name for stage in plan.stage]
    if name is not None and name not in names:
        near = near_name(name, names)
        raise UsageError(f"--stage: no stage {name!r}{near}", hint=f"of {', '.join(names)}")
    places = dict(zip(names, stages.places(plan, root), strict=True))
    place = places[name or names[-1]]
    if not (place / "plan.toml").is_file():
        begun = [each for each, where in places.items() if (where / "plan.toml").is_file()]
        raise AutotrainError(
            f"{root}: its stage {name or names[-1]} has not begun",
            f"--stage {begun[-1]}" if begun else f"autotrain run {root / 'plan.toml'} --resume",
        )
    return place


def _insist_on_device(plan: Plan) -> None:
    from autotrain.device import device_of

    try:
        device_of(plan.device)
    except AutotrainError as error:
        raise AutotrainError(error.message, "--device cpu, or another that is here") from None


def _on(plan: Plan, name: str) -> Plan:
    """The plan for another device. How the model is run was chosen for the one that it names:
    on a device of another kind it runs as it was written, in fp32.
    """
    from autotrain.run.trained import plainly

    found = _DEVICE.fullmatch(name)
    if found is None:
        raise UsageError(f"--device {name}: no such device", hint="cpu, cuda, cuda:1 or mps")
    kind, index = found[1], int(found[2] or 0)
    device = plan.device.model_copy(update={"kind": kind, "index": index})
    loader = plan.loader.model_copy(update={"pin_memory": False})
    there = plan.model_copy(update={"device": device, "loader": loader})
    return there if kind == plan.device.kind else plainly(there)


def explained(error: Exception, doing: str) -> AutotrainError:
    """The error to raise in its place; an AutotrainError stays what it is."""
    from autotrain.device import out_of_memory
    from autotrain.run.healing import faults

    if out_of_memory(error):
        said = str(error).partition("\n")[0]
        return DoesNotFitError(f"{doing}: out of memory: {said}", "free memory, or --device cpu")
    return faults.explained(error, doing)
