"""Checks of a template's options that name the option, the value and what is allowed."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from autotrain.errors import AutotrainError


def one_of(name: str, value: object, allowed: Collection[object]) -> None:
    """Raises AutotrainError unless `value` is one of `allowed`."""
    if value not in allowed:
        choices = ", ".join(str(choice) for choice in allowed)
        raise AutotrainError(f"task.options.{name}: {value!r} is not known", f"one of: {choices}")


def between(name: str, value: float, low: float, high: float) -> None:
    """Raises AutotrainError unless `value` is a number from `low` to `high`."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and low <= value <= high):
        raise AutotrainError(f"task.options.{name}: {value!r} is not from {low:g} to {high:g}")


def all_between(limits: Iterable[tuple[str, float, float, float]]) -> None:
    """`between` of each (name, value, low, high)."""
    for name, value, low, high in limits:
        between(name, value, low, high)


def needed(data: Path | None, what: str) -> Path:
    """`data`, a folder. Raises AutotrainError saying `what` it should hold where it is None."""
    if data is None:
        raise AutotrainError(f"no data: the template needs {what}", "autotrain plan DATA")
    return data
