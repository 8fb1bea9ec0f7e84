"""What a checkpoint's JSON must look like before anything of it is used: whoever wrote it."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field, StrictBool, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from autotrain.run.standing import RunState
from autotrain.schema import Number, Whole

_Names = dict[str, Number]
# Of Draws: each of its generators, and nothing else.
_Each = Field(min_length=3, max_length=3)
_Generator = Literal["torch", "python", "numpy"]
_Taken = tuple[Whole, Number, StrictBool, Number]


class _Model(TypedDict):
    aliases: dict[str, str]
    rest: dict[str, Any]


class _Group(TypedDict):
    params: list[Whole]


class _Optimizer(TypedDict):
    state: NotRequired[dict[str, Any]]
    param_groups: NotRequired[list[_Group]]


class File(TypedDict):
    """`state.json`, without what a run makes of `run`."""

    schema: Literal[1]
    step: Whole
    run: dict[str, Any]
    model: _Model
    optimizer: _Optimizer


class _Schedule(TypedDict):
    best: Number | None
    bad: Whole
    cuts: Whole


class _Meter(TypedDict):
    sums: list[_Names]
    steps: Whole
    samples: Whole
    seconds: Number
    waited: Number
    grad_norm: Number
    untimed: NotRequired[Whole]
    taken: NotRequired[list[_Taken]]
    unseen: NotRequired[list[_Taken]]


class _Guard(TypedDict):
    recent: list[Number]
    start: Number | None


class _Draws(TypedDict):
    drawn: Annotated[dict[_Generator, StrictBool], _Each]
    quiet: Annotated[dict[_Generator, Whole | None], _Each]
    last: NotRequired[dict[_Generator, Whole]]
    states: NotRequired[dict[_Generator, list[Any]]]


class Kept(TypedDict):
    """What a run keeps of itself beside where it stands (`RunState`)."""

    fixed: dict[str, Any]
    schedule: _Schedule
    scaler: _Names
    meter: _Meter
    guard: _Guard
    draws: _Draws
    bad_samples: list[tuple[StrictBool, Whole, str, Number, StrictBool]]
    model: NotRequired[dict[str, bool | str]]
    averaged: NotRequired[Whole]
    given: NotRequired[str | None]
    rounding: NotRequired[dict[str, str]]
    facts: NotRequired[dict[str, Any] | None]


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def file(found: Any) -> File:
    """Raises ValueError naming what is missing, or of another kind."""
    made: File = _checked(File, found)
    return made


def kept(state: dict[str, Any]) -> tuple[RunState, Kept]:
    """Raises ValueError naming what is missing, or of another kind."""
    stands = {name: state[name] for name in RunState.__dataclass_fields__ if name in state}
    missing = RunState.__dataclass_fields__.keys() - stands
    if missing:
        raise ValueError(f"{min(missing)}: missing")
    return _checked(RunState, stands), _checked(Kept, state)


def _checked(kind: Any, found: Any) -> Any:
    try:
        return _adapter(kind).validate_python(found)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])[:200]
        raise ValueError(f"{where or 'all of it'}: {first['msg']}") from None
