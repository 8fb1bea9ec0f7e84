"""What the user wants."""

from __future__ import annotations

from typing import Any

from autotrain.schema.base import DeviceKind, OptimizerName, Positive, Record, Scalar

# In place of a setting that somebody fixed: it is autotrain's again.
AUTO = ...


class Sizes(Record):
    """Settings for datasets of up to `up_to` samples (None: any number)."""

    up_to: Positive | None = None
    devices: tuple[DeviceKind, ...] = ()
    settings: dict[str, Any]


class Recipe(Record):
    """Named settings with where they come from. Keys are plan keys.

    `optimizers`: settings for a run with that optimizer, over the others. `most_samples`: it is
    meant for data of up to so many.
    """

    name: str
    source: str
    settings: dict[str, Any] = {}
    sizes: tuple[Sizes, ...] = ()
    optimizers: dict[OptimizerName, dict[str, Any]] = {}
    most_samples: Positive | None = None


class TaskSection(Record):
    """Which code and data. Exactly one of `template` and `file`."""

    template: str | None = None
    file: str | None = None
    sha256: str
    data: str | None = None
    options: dict[str, Scalar] = {}


class Goal(Record):
    """What the user wants, and what they fixed (`user`: plan key -> value).

    `left_out`: what the last recipe has for a task, and this one takes no such option.
    """

    task: TaskSection
    recipes: tuple[Recipe, ...] = ()
    left_out: dict[str, Scalar] = {}
    user: dict[str, Any] = {}
    name: str = "run"
