"""Recipes: named settings as TOML, shipped or of the user's own, one perhaps based on another."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field

from autotrain import files
from autotrain.errors import UsageError
from autotrain.goal import check_settings, check_stages, read_record
from autotrain.near import near_name
from autotrain.plan.stages import adopted
from autotrain.schema import OptimizerName, Positive, Recipe, Record, Scalar, Sizes, StageWish

_FOLDER = "recipes"


class Wanted(NamedTuple):
    """Recipes to adopt in this order, the options that they have for the task, and stages."""

    recipes: tuple[Recipe, ...]
    options: dict[str, Scalar]
    stages: tuple[StageWish, ...] = ()


class _File(Record):
    """A recipe's file. `based_on`: a recipe's name, or a path beside this file."""

    name: str = ""
    description: str = ""
    source: str = ""
    based_on: str | None = None
    most_samples: Positive | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    sizes: tuple[Sizes, ...] = ()
    optimizers: dict[OptimizerName, dict[str, Any]] = Field(default_factory=dict)
    options: dict[str, Scalar] = Field(default_factory=dict)
    stage: tuple[StageWish, ...] = ()


def own_folder() -> Path:
    """Where a user's own recipes lie, each as NAME.toml."""
    return files.config_directory() / _FOLDER


def names() -> list[str]:
    """All that `--recipe NAME` finds."""
    return sorted({*files.shipped_names(_FOLDER), *files.own_names(_FOLDER)})


def read_recipe(name: str) -> Wanted:
    """A recipe by its name or its file, after what it is based on.

    The user's own come before shipped ones of the same name. Raises UsageError with every fault.
    """
    return _read(_find(name), ())


def _find(name: str) -> Path:
    if name.endswith(".toml"):
        return Path(name).expanduser()
    if name in files.own_names(_FOLDER):
        return own_folder() / f"{name}.toml"
    if name in files.shipped_names(_FOLDER):
        return _shipped(name)
    beside = f"; {name}.toml lies here: name it whole" if Path(f"{name}.toml").is_file() else ""
    raise UsageError(
        f"no recipe {name!r}{near_name(name, names())}{beside}",
        hint=f"recipes: {', '.join(names())}; your own go in {own_folder()} as NAME.toml, or name "
        "a TOML file",
    )


def _shipped(name: str) -> Path:
    return files.shipped(_FOLDER) / f"{name}.toml"


def _read(path: Path, above: tuple[Path, ...]) -> Wanted:
    """A file and what it is based on; `above` are those that are based on it."""
    file = read_record(path, _File)
    problems = [*_faults(file)]
    if problems:
        raise UsageError(*(f"{path}: {line}" for line in problems))
    base = _base(file, path, (*above, path))
    recipe = Recipe(
        name=file.name or path.stem,
        source=file.source or f"the recipe {path.name}",
        settings=file.settings,
        sizes=file.sizes,
        optimizers=file.optimizers,
        most_samples=file.most_samples,
    )
    stages = adopted(base.stages, file.stage)
    return Wanted((*base.recipes, recipe), {**base.options, **file.options}, stages)


def _faults(file: _File) -> list[str]:
    problems = [*check_settings(file.settings), *check_stages(file.stage)]
    for number, size in enumerate(file.sizes, start=1):
        problems += [f"sizes {number}: {line}" for line in check_settings(size.settings)]
    for name, settings in file.optimizers.items():
        problems += [f"optimizers.{name}: {line}" for line in check_settings(settings)]
        if settings.get("optimizer.name", name) != name:
            problems.append(f"optimizers.{name}: optimizer.name: is {name} there")
    return problems


def _base(file: _File, path: Path, chain: tuple[Path, ...]) -> Wanted:
    """What a file is based on. Its own name means the shipped recipe that it replaces."""
    if file.based_on is None:
        return Wanted((), {})
    if file.based_on.endswith(".toml"):
        base = path.parent / Path(file.based_on).expanduser()
    elif file.based_on == path.stem and path.stem in files.shipped_names(_FOLDER):
        base = _shipped(path.stem)
    else:
        try:
            base = _find(file.based_on)
        except UsageError as error:
            faults = (f"{path}: based_on: {line}" for line in error.faults)
            raise UsageError(*faults, hint=error.hint) from None
    if base.resolve() in {place.resolve() for place in chain}:
        circle = " -> ".join(place.name for place in (*chain, base))
        raise UsageError(f"{path}: based_on: goes in a circle: {circle}")
    return _read(base, chain)
