"""Where every setting of a plan is decided once, with its reason.

A value that the user fixed wins over a recipe's, which wins over a rule's; what follows
from it is then computed from the value in force.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from autotrain.schema import Beside, DeviceKind, Goal, Kind, Reason


class Given(NamedTuple):
    """A value that did not come from a rule, and whose it is."""

    value: Any
    kind: Kind
    source: str


class Ledger:
    """Settings decided so far (`value`), and why (`because`)."""

    def __init__(self, goal: Goal, count: int, device: DeviceKind) -> None:
        self.given: dict[str, Given] = {}
        self.recipes: dict[str, Given] = {}
        self.values: dict[str, dict[str, Any]] = {}
        self.because: dict[str, dict[str, Reason]] = {}
        for recipe in goal.recipes:
            chosen = [recipe.settings]
            sizes = (s for s in recipe.sizes if s.up_to is None or count <= s.up_to)
            chosen += [s.settings for s in sizes if not s.devices or device in s.devices][:1]
            for settings in chosen:
                for key, value in settings.items():
                    self.recipes[key] = Given(value, "fixed", recipe.source)
        self.given |= self.recipes
        for key, value in goal.user.items():
            self.given[key] = Given(value, "user", "you")

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
        value = rule if given is None else given.value
        if given is not None:
            formula = f"{_whose(given)}; the rule gives {_shown(rule)}: {formula}"
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

    def fixed(self, key: str) -> Any:
        """What the user or a recipe gives for `key`, or None."""
        return self.given[key].value if key in self.given else None

    def by_user(self, key: str) -> bool:
        """Whether the user fixed `key`."""
        return key in self.given and self.given[key].kind == "user"

    def recipe(self, key: str) -> Given | None:
        """What a recipe gives for `key`, also where the user fixed another value."""
        return self.recipes.get(key)

    def drop(self, key: str) -> None:
        """Forget a recipe's value that does not hold here; a user's stays."""
        if not self.by_user(key):
            self.given.pop(key, None)


def _whose(given: Given) -> str:
    whose = "you set" if given.kind == "user" else "the recipe sets"
    return f"{whose} {_shown(given.value)}"


def _shown(value: Any) -> str:
    return "off" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
