"""What the user wants, read from the command line, a template and a recipe, into a Goal."""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from autotrain import files
from autotrain.errors import UsageError
from autotrain.near import near_key
from autotrain.planfile import faults
from autotrain.schema import (
    AUTO,
    PositiveFloat,
    Recipe,
    Record,
    Scalar,
    Sizes,
    StageWish,
    WholeFloat,
    setting_types,
)
from autotrain.task import load_module

_KEYS = "`autotrain explain plan.toml` lists every key"
_R = TypeVar("_R", bound=Record)

# Counted in epochs by recipes, turned into steps by the planner.
_IN_EPOCHS: dict[str, Any] = {
    "schedule.warmup_epochs": WholeFloat,
    "schedule.period_epochs": PositiveFloat,
}
_FINITE = ConfigDict(allow_inf_nan=False)
_FROM_ELSEWHERE = ("task.template", "task.file", "task.sha256", "task.data", "task.options")


class Example(Record):
    """Data to try a template on: a command that writes it, in which {folder} is the template's, and
    where."""

    command: str
    data: str


class Template(Record):
    """`template.toml`: how a template's author wants it sized. `data`: what it brings along."""

    name: str
    description: str
    kind: str
    default_for_kind: bool = False
    data: str | None = None
    example: Example | None = None
    source: str
    settings: dict[str, Any] = Field(default_factory=dict)
    sizes: tuple[Sizes, ...] = ()
    stage: tuple[StageWish, ...] = ()

    def recipe(self) -> Recipe:
        """Its settings as a recipe."""
        return Recipe(name=self.name, source=self.source, settings=self.settings, sizes=self.sizes)


def read_template(folder: Path) -> Template:
    """A template's `template.toml`. Raises UsageError with every fault."""
    path = folder / "template.toml"
    template = read_record(path, Template)
    problems = check_settings(template.settings)
    for size in template.sizes:
        problems += check_settings(size.settings)
    problems += check_stages(template.stage)
    if problems:
        raise UsageError(*(f"{path}: {line}" for line in problems))
    return template


def template_for(kind: str) -> str | None:
    """The template that takes data of this kind by default, or None."""
    for name in files.shipped_names("templates"):
        template = read_template(files.shipped("templates") / name)
        if template.kind == kind and template.default_for_kind:
            return name
    return None


def read_record(path: Path, record: type[_R]) -> _R:
    """A TOML file as a record. Raises UsageError with every fault, each with file and key."""
    try:
        return record.model_validate(files.read_toml(path))
    except ValidationError as error:
        raise UsageError(*(f"{path}: {line}" for line in faults(error, record))) from None


def check_settings(settings: dict[str, Any]) -> list[str]:
    """Every fault of a file's settings, each with its key; sound ones are put in their types.

    `[settings.optimizer] lr = 1`, as TOML nests it, is `"optimizer.lr" = 1`.
    """
    problems: list[str] = []
    flat = _flat(settings)
    settings.clear()
    for key, value in flat.items():
        try:
            settings[key] = checked(key, value)
        except UsageError as error:
            problems += error.faults
    return problems


def check_stages(stages: Sequence[StageWish]) -> list[str]:
    """Every fault of these stages' settings; sound ones are put in their types.

    An option of the task may stand there as `task.NAME`.
    """
    names = [stage.name for stage in stages]
    problems = [
        f"stage.{name}: named twice" for name in dict.fromkeys(names) if names.count(name) > 1
    ]
    for stage in stages:
        plain = _flat(stage.settings)
        options = {key: plain.pop(key) for key in [*plain] if is_option(key)}
        lines = [
            f"{key}: {value!r} should be a text, a number, true or false"
            for key, value in options.items()
            if not isinstance(value, bool | int | float | str)
        ]
        lines += check_settings(plain)
        problems += [f"stage.{stage.name}: {line}" for line in lines]
        stage.settings.clear()
        stage.settings.update(plain)
        stage.settings.update({f"task.{option_name(key)}": v for key, v in options.items()})
    return problems


def is_option(key: str) -> bool:
    """Whether a key names an option of the task: `task.NAME`, or `task.options.NAME`."""
    return key.startswith("task.") and key not in _FROM_ELSEWHERE


def option_name(key: str) -> str:
    """`task.width`, `task.options.width` -> `width`."""
    return key.removeprefix("task.").removeprefix("options.")


def _flat(settings: dict[str, Any], above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in settings.items():
        inner = _flat(value, f"{above}{key}.") if isinstance(value, dict) and value else None
        found |= {f"{above}{key}": value} if inner is None else inner
    return found


def checked(key: str, value: Any) -> Any:
    """A value for a plan key, in its type; `off` and `none` turn an optional one off.

    Raises UsageError naming the key.
    """
    annotation = _type(key)
    try:
        meant = None if value in ("off", "none") else value
        return TypeAdapter(annotation, config=_FINITE).validate_python(meant)
    except ValidationError as error:
        message = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        detail = message.replace("Input should", "should")
        shown = str(value).lower() if isinstance(value, bool) else repr(value)
        raise UsageError(f"{key}: {shown} {detail}", hint=_KEYS) from None


def _type(key: str) -> Any:
    """What a plan key may hold. Raises UsageError where there is no such key."""
    types = setting_types() | _IN_EPOCHS
    if key in _FROM_ELSEWHERE:
        raise UsageError(f"{key}: is named on the command line, not set", hint=_KEYS)
    if key not in types:
        raise UsageError(f"{key}: unknown key{near_key(key, types)}", hint=_KEYS)
    return types[key]


def parse_settings(pairs: list[str]) -> tuple[dict[str, Any], dict[str, Scalar]]:
    """`--set key=value` pairs as (plan settings, task options). All faults at once.

    `task.NAME` is an option of the task. `off` or `none` turn an optional setting off, and `auto`
    (AUTO) lets go of what was fixed before.
    """
    settings: dict[str, Any] = {}
    options: dict[str, Scalar] = {}
    problems: list[str] = []
    for pair in pairs:
        key, equals, raw = pair.partition("=")
        key = key.strip()
        if not equals or not key:
            problems.append(f"--set {pair}: expected key=value")
            continue
        value = parse_value(raw)
        if is_option(key):
            options[option_name(key)] = value
            continue
        try:
            settings[key] = AUTO if value == "auto" and _type(key) else checked(key, value)
        except UsageError as error:
            problems += [f"--set {line}" for line in error.faults]
    if problems:
        raise UsageError(*problems, hint="keys are those of the plan, such as batch.micro_batch=8")
    return settings, options


def parse_value(raw: str) -> Any:
    """A TOML value, or else the text as it is."""
    try:
        return tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        return raw.strip()


def taken_and_left(
    task_file: Path, options: dict[str, Scalar]
) -> tuple[dict[str, Scalar], dict[str, Scalar]]:
    """Those options of a recipe that this task() takes, and those that it has no use for."""
    function = getattr(load_module(task_file), "task", None)
    parameters = inspect.signature(function).parameters if callable(function) else {}
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return options, {}
    taken = {key: value for key, value in options.items() if key in parameters}
    return taken, {key: value for key, value in options.items() if key not in taken}
