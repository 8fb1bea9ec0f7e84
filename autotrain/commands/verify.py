"""`autotrain verify`: does a run that is stopped and resumed end as one that never was?

Shown with the user's own plan, model and machine: so many steps at once, and the same in two
halves, each in a process of its own, in folders beside where the run itself goes.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotrain import planfile
from autotrain import trust as trusting
from autotrain.commands.places import directory_of, located
from autotrain.errors import AutotrainError, UsageError
from autotrain.schema import Plan
from autotrain.units import seconds_text

if TYPE_CHECKING:
    from autotrain.run.keeping.likeness import Part


def verify(name: str, steps: int, *, trust: bool, as_json: bool) -> int:
    """Print a verdict per part; 0 where all are the same, or no less so than without a stop."""
    path = Path(name)
    plan = planfile.load(path)
    if plan.stage:
        stages = ", ".join(stage.name for stage in plan.stage)
        raise UsageError(
            f"{name}: a plan with stages ({stages}): each is a run of its own",
            hint=f"verify the copy of a stage's plan in its run's folder, {plan.run.directory}",
        )
    directory = directory_of(plan, path)
    folder = path.resolve().parent
    trusting.check(plan.task, trusting.task_path(plan.task, folder), accept=trust)
    trusting.check_places({"run.directory": str(directory)}, folder, name, accept=trust)
    place = _workplace(directory)
    try:
        found = _Proof(plan, path, place, trust=trust).found(steps)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    if found.exact:
        shutil.rmtree(place, ignore_errors=True)
    print(json.dumps(found.record()) if as_json else found.text(name, plan, place))
    return 0 if found.exact or found.no_worse else 1


def _workplace(directory: Path) -> Path:
    """A folder on the disk that the run itself would use."""
    parent = next(p for p in (directory.parent, *directory.parent.parents) if p.is_dir())
    try:
        return Path(tempfile.mkdtemp(prefix=f"{directory.name}.verify-", dir=parent))
    except OSError as error:
        raise AutotrainError(f"{parent}: {error.strerror}") from None


class _Found:
    """What was found: `parts` of the halves beside the whole, and of two whole runs where asked."""

    def __init__(self, steps: int, half: int, parts: list[Part], twice: list[Part] | None) -> None:
        self.steps, self.half, self.parts, self.twice = steps, half, parts, twice

    @property
    def exact(self) -> bool:
        return all(part.same for part in self.parts)

    @property
    def no_worse(self) -> bool:
        """Whether two runs that were never stopped differ in the same parts too."""
        unstopped = {part.name for part in self.twice or () if not part.same}
        return {part.name for part in self.parts if not part.same} <= unstopped

    def record(self) -> dict[str, Any]:
        """As JSON."""
        twice = None if self.twice is None else [asdict(part) for part in self.twice]
        parts = [asdict(part) for part in self.parts]
        return {
            "exact": self.exact, "no_worse": self.no_worse, "steps": self.steps,
            "stopped_after": self.half, "parts": parts, "two_unstopped_runs": twice,
        }  # fmt: skip

    def text(self, name: str, plan: Plan, place: Path) -> str:
        """For a person."""
        ways = f"{self.steps} steps at once, and {self.half} + {self.steps - self.half}"
        rows = [("verify", f"{ways} with a restart between, on {plan.device.kind}"), ("", "")]
        rows += [(part.name, part.said) for part in self.parts]
        if self.twice is not None:
            rows += [("", ""), ("without a stop", "the same run twice, from beginning to end")]
            rows += [(part.name, part.said) for part in self.twice if not part.same]
        rows += [("", ""), ("verdict", self._verdict()), ("", "")]
        if not self.exact:
            rows.append(("kept", str(place)))
        rows.append(("next", f"autotrain run {name}"))
        wide = max(len(head) for head, _ in rows) + 2
        return "\n".join(f"{head:{wide}}{said}".rstrip() for head, said in rows)

    def _verdict(self) -> str:
        if self.exact:
            return "a run that is stopped and resumed ends to the bit as one that never was"
        if self.no_worse:
            return (
                "not to the bit, but nor are two runs that are never stopped: operators of this "
                "device, or the task's own code, add up in another order or draw numbers of their "
                "own"
            )
        return (
            "the resumed run is another one. What the task keeps between steps outside of the "
            "model, and what it draws from a generator of its own, is in no checkpoint"
        )


class _Proof:
    """The runs that show it, in one folder."""

    def __init__(self, plan: Plan, path: Path, place: Path, *, trust: bool) -> None:
        folder = path.resolve().parent
        changed: dict[str, Any] = {"data": located(plan.task.data, folder)}
        if plan.task.file is not None:
            changed["file"] = str((folder / plan.task.file).resolve())
        task = plan.task.model_copy(update=changed)
        alone = plan.checkpoint.model_copy(update={"mirror": None})  # that is for the run itself
        self.plan = plan.model_copy(update={"task": task, "checkpoint": alone})
        self.place, self.trust = place, trust

    def found(self, steps: int) -> _Found:
        """Run, and compare."""
        each = self.plan.predicted.step_seconds.expected
        print(
            f"{steps} steps at once, then in two halves: about {seconds_text(2 * steps * each)} "
            "and the starts",
            file=sys.stderr,
        )
        from autotrain.run.keeping.likeness import compared

        taken = self._run("once", steps)
        if taken < 2:
            raise AutotrainError(
                f"the run has {taken} step: too few to stop between", "more epochs or samples"
            )
        half = taken // 2
        self._run("twice", half)
        self._run("twice", taken, "--resume")
        parts = compared(self._snapshot("once", taken), self._snapshot("twice", taken))
        if all(part.same for part in parts):
            return _Found(taken, half, parts, None)
        print("not the same: once more without a stop", file=sys.stderr)
        self._run("again", taken)
        unstopped = compared(self._snapshot("once", taken), self._snapshot("again", taken))
        return _Found(taken, half, parts, unstopped)

    def _run(self, name: str, steps: int, *flags: str) -> int:
        """Take a run of that name to that step; returns the step that it reached."""
        file = self.place / f"{name}.toml"
        run = self.plan.run.model_copy(update={"directory": name})
        planfile.save(self.plan.model_copy(update={"run": run}), file)
        command = [sys.executable, "-P", "-m", "autotrain", "run", str(file), "--json"]
        command += ["--max-steps", str(steps), *flags, *(["--trust"] if self.trust else [])]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        last = done.stdout.splitlines()[-1:]
        if done.returncode or not last:
            raise AutotrainError(
                f"a run for the comparison failed (exit {done.returncode}):\n{done.stderr.strip()}",
                "`autotrain run` shows whether the plan runs at all",
            )
        return int(json.loads(last[0])["step"])

    def _snapshot(self, name: str, step: int) -> Any:
        from autotrain.run.keeping import checkpoint

        path = checkpoint.folder(self.place / name, step)
        checkpoint.verify(path)
        return checkpoint.load(path)
