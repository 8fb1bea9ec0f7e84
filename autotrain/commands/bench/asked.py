"""What a bench is about: a plan, data, a template or a task; if none is named, what comes along."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, NamedTuple

from autotrain import planfile
from autotrain.commands import run
from autotrain.commands.decide import Case, Decision, Source
from autotrain.commands.plan import Wish, goal_of, source_of
from autotrain.commands.refresh import kept_of, wish_of
from autotrain.errors import DoesNotFitError, UsageError
from autotrain.goal import parse_settings
from autotrain.report.text import clean, plural
from autotrain.schema import Goal, ModelProfile, Plan, Scalar
from autotrain.units import count_text

# Small, real, and there: 20 clips and an LSTM of 5.8 M parameters.
BUILT_IN = "speech-autoencoder"


class Named(NamedTuple):
    """The command line: a plan's file or data (`what`), or else code; `trust` is for a plan's."""

    what: str | None
    template: str | None = None
    task: str | None = None
    settings: tuple[str, ...] = ()
    trust: bool = False


class Asked(NamedTuple):
    """What was named, how to call it, and what is wished of it.

    `plan`: where it is one. `said`: keys that the command line sets.
    """

    name: str
    source: Source
    goal: Goal
    plan: Plan | None
    said: frozenset[str] = frozenset()


def look_up(named: Named) -> Asked:
    """Raises AutotrainError where there is no such thing, or its code is not trusted here."""
    settings, options = parse_settings(list(named.settings))
    plain = Wish(named.what, named.template, named.task, None, None, named.settings)
    if named.what is None or not named.what.endswith(".toml") or not Path(named.what).is_file():
        if plain.data is None and plain.template is None and plain.task is None:
            plain = plain._replace(template=BUILT_IN)
        source = source_of(plain)
        goal = goal_of(plain, source, settings, options, Path("plan.toml"))
        name = named.what or plain.template or Path(str(plain.task)).name
        return Asked(name, source, goal, None)
    return _of_plan(named.what, plain, settings, options, trust=named.trust)


def _of_plan(
    name: str, plain: Wish, settings: dict[str, Any], options: dict[str, Scalar], *, trust: bool
) -> Asked:
    """A plan's code and data, and what a person fixed in it; of stages the first."""
    path, said = Path(name), [f for f in ("template", "task") if getattr(plain, f) is not None]
    if said:
        raise UsageError(
            f"{name} and --{said[0]}: a plan says itself which code it is for",
            hint="name one of them",
        )
    plan = planfile.load(path)
    run.code_of(plan.task, path.resolve().parent, accept=trust)
    wish = wish_of(plan, path, plain._replace(data=None))
    source, (fixed, _) = source_of(wish), kept_of(plan, path)
    goal = goal_of(
        wish, source, {**fixed.settings, **settings}, {**fixed.options, **options},
        Path("plan.toml"),
    )  # fmt: skip
    return Asked(name, source, goal, plan, frozenset(settings))


def at_size(case: Case, goal: Goal, size: int) -> Decision | None:
    """Planned with that micro_batch, no accumulation; None where it is over the budget."""
    parts = {"batch.micro_batch": size, "batch.accum_steps": 1, "batch.global_batch": size}
    try:
        made = case.decide(goal=goal.model_copy(update={"user": goal.user | parts}))
    except DoesNotFitError:
        return None
    within = made.plan.predicted.device_peak_bytes.high <= made.plan.memory.budget_bytes
    return made if within else None


def next_run(named: Named, *settings: str, machine: str | None = None) -> str:
    """What to type next: for the plan that was named a run, else a plan of the same.

    `settings`: what it is to say beside, for which a plan is made anew.
    """
    if named.what is not None and named.what.endswith(".toml"):
        if not settings:
            return shlex.join(["autotrain", "run", named.what])
        pairs = [part for pair in settings for part in ("--set", pair)]
        return shlex.join(["autotrain", "plan", "--refresh", named.what, *pairs])
    template = named.template or (None if named.what or named.task else BUILT_IN)
    flags = {"--template": template, "--task": named.task, "--machine": machine}
    words = [*([named.what] if named.what else [])]
    words += [part for flag, value in flags.items() if value for part in (flag, value)]
    words += [part for pair in (*named.settings, *settings) for part in ("--set", pair)]
    return shlex.join(["autotrain", "plan", *words])


def told(asked: Asked, model: ModelProfile) -> str:
    """One line about what is trained."""
    stages = asked.plan.stage if asked.plan is not None else ()
    first = f", its first stage {stages[0].name}" if stages else ""
    size, count = count_text(model.parameters), plural(model.train_count, "sample")
    return (
        f"{clean(asked.name)}{first}: {clean(model.name)}, {size} parameters, {count} to train on"
    )
