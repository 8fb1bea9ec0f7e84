"""Where every setting of a plan is decided once, with its reason.

A value that the user fixed wins over a recipe's, which wins over a rule's; what follows
from it is then computed from the value in force.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from autotrain.errors import UsageError
from autotrain.schema import Beside, DeviceKind, Goal, Kind, OptimizerName, Reason, Recipe

# Two ways to say the same: recipes may count in epochs, plans count in steps.
IN_EPOCHS = {
    "schedule.warmup_steps": "schedule.warmup_epochs",
    "schedule.period_steps": "schedule.period_epochs",
}
_OTHER = IN_EPOCHS | {epochs: steps for steps, epochs in IN_EPOCHS.items()}
_CUT = ("batch.micro_batch", "batch.accum_steps")
# What is found by trying, for one optimizer at one global batch.
FOUND_BY_TRYING = {
    "optimizer.lr",
    "optimizer.momentum",
    "optimizer.betas",
    "optimizer.eps",
    "optimizer.weight_decay",
}
DEFAULT_OPTIMIZER: OptimizerName = "adamw"


class Given(NamedTuple):
    """A value that did not come from a rule, whose it is, and how it was said if otherwise."""

    value: Any
    kind: Kind
    source: str
    said: str = ""


class Found(NamedTuple):
    """A recipe's value, and the optimizer and global batch that it was found for."""

    value: Any
    source: str
    optimizer: OptimizerName | None
    global_batch: int | None


class Ledger:
    """Settings decided so far (`values`), and why (`because`).

    Raises UsageError where the user says one thing in two ways.
    """

    def __init__(self, goal: Goal, count: int, device: DeviceKind) -> None:
        self.given: dict[str, Given] = {}
        self.found: dict[str, Found] = {}
        self.recipes = goal.recipes
        self.left_out = goal.left_out
        self.raced: dict[str, tuple[Any, str]] = {}  # what a race found: value and formula
        self.values: dict[str, dict[str, Any]] = {}
        self.because: dict[str, dict[str, Reason]] = {}
        said = [(recipe, _layers(recipe, count, device)) for recipe in goal.recipes]
        name = goal.user.get("optimizer.name") or _named([s for _, made in said for s in made])
        for recipe, layers in said:
            self._adopt(recipe, layers, recipe.optimizers.get(name, {}), name)
        for steps, epochs in IN_EPOCHS.items():
            if steps in goal.user and epochs in goal.user:
                raise UsageError(f"{steps}, {epochs}: two ways to set the same", hint="set one")
        for key, value in goal.user.items():
            self._give(key, Given(value, "user", "you"))

    def _adopt(
        self,
        recipe: Recipe,
        layers: tuple[dict[str, Any], ...],
        own: dict[str, Any],
        optimizer: OptimizerName,
    ) -> None:
        """A recipe's settings over what is there already; `own`: its settings for `optimizer`."""
        for settings in (*layers, own):
            for key, value in settings.items():
                self._give(key, Given(value, "fixed", recipe.source))
        batch, named = self.given_batch(), self.fixed("optimizer.name")
        for settings in (*layers, own):
            for key in settings.keys() & FOUND_BY_TRYING:
                name = optimizer if settings is own else named
                self.found[key] = Found(settings[key], recipe.source, name, batch)

    def _give(self, key: str, given: Given) -> None:
        self.given.pop(_OTHER.get(key, ""), None)
        self.given[key] = given

    def given_batch(self) -> int | None:
        """The global batch that the user or a recipe gives, whole or in its parts."""
        total: int | None = self.fixed("batch.global_batch")
        parts: list[int | None] = [self.fixed(key) for key in _CUT]
        known = [part for part in parts if part is not None]
        if total is not None or len(known) < len(parts):
            return total
        return math.prod(known) * int(self.fixed("batch.world_size") or 1)

    def settle(
        self,
        key: str,
        rule: Any,
        *,
        formula: str,
        source: str,
        kind: Kind = "rule",
        limited_by: str = "",
        would_change: str = "",
        beside: tuple[Beside, ...] = (),
    ) -> Any:
        """The value in force for `key`: the user's, a recipe's, or `rule`. Recorded with why."""
        given = self.given.get(key)
        if key in self.raced:
            rule, formula = self.raced[key]
            source, kind = "a race: real steps in each way, in turns", "measured"
            limited_by = "the time of real steps"
        value = rule if given is None else given.value
        if given is not None:
            same = rule == value and rule is not None
            own = f"as autotrain's own rule would: {formula}" if same else _ruled(rule, formula)
            formula = f"{_whose(given)}{', ' if same else '; '}{own}"
            kind, source, limited_by = given.kind, given.source, ""
        section, name = key.split(".", 1)
        self.values.setdefault(section, {})[name] = value
        self.because.setdefault(section, {})[name] = Reason(
            value=value,
            kind=kind,
            formula=formula,
            source=source,
            limited_by=limited_by,
            would_change=would_change or f"--set {key}=...",
            beside=beside,
        )
        return value

    def record(self, key: str, value: Any, reason: Reason) -> None:
        """Write down a value that nobody can fix, such as a prediction."""
        section, name = key.split(".", 1)
        self.values.setdefault(section, {})[name] = value
        self.because.setdefault(section, {})[name] = reason

    def value(self, key: str) -> Any:
        """What was settled for `key`."""
        section, name = key.split(".", 1)
        return self.values[section][name]

    def fixed(self, key: str) -> Any:
        """What the user or a recipe gives for `key`, or None."""
        return self.given[key].value if key in self.given else None

    def by_user(self, key: str) -> bool:
        """Whether the user fixed `key`; `off` counts."""
        return key in self.given and self.given[key].kind == "user"

    def drop(self, key: str) -> None:
        """Forget a recipe's value that does not hold here; a user's stays."""
        if not self.by_user(key):
            self.given.pop(key, None)


def _layers(recipe: Recipe, count: int, device: DeviceKind) -> tuple[dict[str, Any], ...]:
    """A recipe's settings, then those for data of this size."""
    fitting = (s for s in recipe.sizes if s.up_to is None or count <= s.up_to)
    sized = [s.settings for s in fitting if not s.devices or device in s.devices][:1]
    return recipe.settings, *sized


def _named(layers: list[dict[str, Any]]) -> OptimizerName:
    """The optimizer that the last of these names."""
    names: list[OptimizerName] = [s["optimizer.name"] for s in layers if "optimizer.name" in s]
    return names[-1] if names else DEFAULT_OPTIMIZER


def _whose(given: Given) -> str:
    whose = "you set" if given.kind == "user" else "the recipe sets"
    return f"{whose} {given.said or _shown(given.value)}"


def _ruled(rule: Any, formula: str) -> str:
    """What autotrain would have taken; just the fact where it would have left the key out."""
    return formula if rule is None else f"autotrain's own rule gives {_shown(rule)}: {formula}"


def _shown(value: Any) -> str:
    if value is None:
        return "off"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
