"""Stages of a plan: runs that follow one another, each beginning with the weights before it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from autotrain.schema.base import Prediction, Record

StageName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]
# Which checkpoint of the stage before a stage begins with; `none`: it begins anew.
Weights = Literal["best", "latest", "none"]

_Path = tuple[str, ...]


class StageWish(Record):
    """A stage as a template, a recipe or a person asks for it.

    `settings`: plan keys -> values; `task.NAME` is an option of the task.
    """

    name: StageName
    weights: Weights = "best"
    settings: dict[str, Any] = {}


class Stage(Record):
    """A stage in a plan: what of it is not as in the plan itself.

    Any section of the plan may stand here with the keys that differ, nested as they are there.
    `off`: keys that the plan has and this stage leaves out.
    """

    name: StageName
    weights: Weights = "best"
    off: tuple[str, ...] = ()

    model_config = ConfigDict(extra="allow", frozen=True)

    @property
    def own(self) -> dict[str, Any]:
        """Sections of the plan, with this stage's values."""
        return self.model_extra or {}


def difference(base: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[dict[str, Any], _Path]:
    """What of `other`, a plan as plain data, is not as in `base`; and the keys it lacks.

    A reason that only `base` has stays: it is of a key that `other` lacks.
    """
    before, now = _leaves(base), _leaves(other)
    own = {path: value for path, value in now.items() if before.get(path, ...) != value}
    gone = (path for path in before if path not in now and path[0] != "because")
    return _nested(own, {}), tuple(".".join(path) for path in gone)


def overlaid(
    base: Mapping[str, Any], own: Mapping[str, Any], off: Iterable[str] = ()
) -> dict[str, Any]:
    """`base`, a plan as plain data, with the values of `own` and without the keys `off`."""
    gone = {tuple(key.split(".")) for key in off}
    leaves = {path: value for path, value in _leaves(base).items() if path not in gone}
    sections: dict[str, Any] = {
        key: {} for key, value in base.items() if isinstance(value, Mapping)
    }
    return _nested(leaves | _leaves(own), sections)


def _leaves(data: Mapping[str, Any]) -> dict[_Path, Any]:
    """What is replaced as a whole: a setting, an option of the task, a prediction, a reason."""
    found: dict[_Path, Any] = {}
    for section, held in data.items():
        if not isinstance(held, Mapping):
            found[(section,)] = held
            continue
        for key, value in held.items():
            deeper = section == "because" or (section, key) == ("task", "options")
            if deeper and isinstance(value, Mapping):
                found |= {(section, key, name): inner for name, inner in value.items()}
            else:
                found[(section, key)] = value
    return found


def _nested(leaves: Mapping[_Path, Any], into: dict[str, Any]) -> dict[str, Any]:
    for path, value in leaves.items():
        place = into
        for part in path[:-1]:
            if not isinstance(place.get(part), dict):
                place[part] = {}
            place = place[part]
        place[path[-1]] = value
    return into


def whole(parts: Sequence[Prediction]) -> Prediction:
    """The sum of predictions, were all of them wrong in the same direction."""
    return Prediction(
        low=sum(part.low for part in parts),
        expected=sum(part.expected for part in parts),
        high=sum(part.high for part in parts),
    )
