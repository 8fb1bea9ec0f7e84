"""Why a stage of a plan is as it is: `autotrain explain plan.toml stage.NAME.key`."""

from __future__ import annotations

import re

from autotrain import planfile
from autotrain.errors import UsageError
from autotrain.near import near_name
from autotrain.report import explain as wording
from autotrain.report.explain import same, settings
from autotrain.schema import Plan, Reason, Stage

_SETS = re.compile(r"--set ([a-z_]+\.[a-z_])")


def explain(plan: Plan, key: str) -> str:
    """The reasons for `stage` (all of them), `stage.NAME`, or a setting or section of one.

    Raises UsageError for a stage or a key that there is not.
    """
    parts = planfile.stages(plan)
    if not parts:
        raise UsageError("the plan has no stages", hint="a key such as batch.micro_batch")
    _, _, rest = key.partition(".")
    if not rest:
        return listed(plan)
    name, _, inner = rest.partition(".")
    names = [stage.name for stage in plan.stage]
    if name not in names:
        raise UsageError(
            f"the plan has no stage {name!r}{near_name(name, names)}",
            hint=f"stages: {', '.join(names)}",
        )
    place = names.index(name)
    if not inner:
        return _whole(plan, place)
    return _prefixed(name, wording.explain(_named(parts[place][1], name), inner))


def listed(plan: Plan) -> str:
    """Every stage: what it begins with, and the reasons for what is not as in the plan."""
    return "\n\n".join(_whole(plan, place) for place in range(len(plan.stage)))


def _whole(plan: Plan, place: int) -> str:
    stage, own = planfile.stages(plan)[place]
    texts, named = [_headline(plan, place)], _named(own, stage.name)
    for key in _own_keys(plan, stage, own):
        texts.append(_prefixed(stage.name, wording.explain(named, key)))
    return "\n\n".join(texts)


def _headline(plan: Plan, place: int) -> str:
    stage = plan.stage[place]
    which = f"stage.{stage.name}   (stage {place + 1} of {len(plan.stage)}"
    if place == 0:
        return f"{which}: its settings are the plan's own)"
    before = plan.stage[place - 1].name
    begins = f"with the {stage.weights} weights of {before}"
    return f"{which}: begins {begins if stage.weights != 'none' else 'anew'})"


def _own_keys(plan: Plan, stage: Stage, own: Plan) -> list[str]:
    """Settings and predictions that are not as in the plan; options one by one."""
    before, now = settings(plan), settings(own)
    keys = [*now, *(key for key in stage.off if key not in now)]
    found = (key for key in keys if key != "task.options" and key in now)
    return [key for key in found if not same(before.get(key), now[key])]


def _named(own: Plan, name: str) -> Plan:
    """The plan of a stage, whose reasons say what to type for this stage alone."""

    def said(reason: Reason) -> Reason:
        texts = {"formula": reason.formula, "would_change": reason.would_change}
        named = {k: _SETS.sub(rf"--set stage.{name}.\1", text) for k, text in texts.items()}
        return reason.model_copy(update=named)

    because = {s: {k: said(r) for k, r in each.items()} for s, each in own.because.items()}
    return own.model_copy(update={"because": because})


def _prefixed(name: str, text: str) -> str:
    """Each reason begins with its key: here with the stage before it."""
    return "\n\n".join(f"stage.{name}.{block}" for block in text.split("\n\n"))
