"""What is installed beside one another: versions, remains of broken installs, other autotrains."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution, distributions
from pathlib import Path
from typing import Any

import autotrain
from autotrain.doctor.fitting import torch_that_fits
from autotrain.doctor.mending import entered_anew, install, ourselves, uninstall
from autotrain.doctor.result import Result, fail, ok, warn
from autotrain.doctor.scene import Scene
from autotrain.doctor.spelling import both, program, removing, shown
from autotrain.doctor.wheels import WHEELS

OURS = Path(autotrain.__file__).parent
_OUR_ENTRY = "autotrain.__main__"
_INTERPRETER = re.compile(rb"(?:^#!|exec' '?\"?)(/[^\r\n'\" ]+)", re.MULTILINE)


def versions(scene: Scene) -> Result:
    """Everything that autotrain needs is installed, in versions that fit."""
    asked, there = dict[str, Any](), dict[str, str | None]()
    for each, found in _requirements():
        name = _plain(each.name)
        asked[name] = asked[name] & each.specifier if name in asked else each.specifier
        there[name] = found
    wrong = [name for name in asked if not _fits(there[name], asked[name])]
    if not wrong:
        return ok(f"{len(asked)} packages, as autotrain and these ask for")
    listed = [
        f"{name} is missing"
        if there[name] is None
        else f"{name} {there[name]} is not {asked[name]}"
        for name in wrong
    ]
    more = f" and {len(wrong) - 4} more" if len(wrong) > 4 else ""
    torch = [torch_that_fits(scene)] if set(wrong) & set(WHEELS) else []
    others = [f"{name}{asked[name]}" for name in wrong if name not in WHEELS]
    mend = both(*torch, *([install(*others)] if others else []))
    return fail(f"{', '.join(listed[:4])}{more}", mend)


def _fits(version: str | None, asked: Any) -> bool:
    return version is not None and bool(asked.contains(version, prereleases=True))


def leftovers(scene: Scene) -> Result:
    """No remains of an install that broke off, and no package twice."""
    seen: dict[str, str] = {}
    for folder in filter(os.path.isdir, dict.fromkeys(sys.path)):
        for entry in sorted(os.listdir(folder)):
            place = Path(folder, entry)
            if entry.startswith("~") and place.is_dir():
                return warn(f"pip left {shown(place)} behind", removing(place))
            if not entry.endswith(".dist-info"):
                continue
            name = _plain(entry.partition("-")[0])
            key = f"{folder}:{name}"
            if key in seen:
                text = f"{name} is installed twice: {seen[key]}, {entry}"
                return fail(text, install(name, flags="--force-reinstall --no-deps"))
            seen[key] = entry
    return ok("none")


def old_pynvml(scene: Scene) -> Result:
    """The deprecated package `pynvml` does not hide the driver's own, nvidia-ml-py."""
    try:
        found = distribution("pynvml")
    except PackageNotFoundError:
        return ok("not installed")
    mend = both(uninstall("pynvml"), install("nvidia-ml-py", flags="--force-reinstall"))
    return warn(f"the package pynvml {found.version} is deprecated, torch warns of it", mend)


def module(scene: Scene) -> Result:
    """`import autotrain` is ours, and no other package installs one too."""
    rivals = [each for each in distributions() if _plain(_name(each)) != "autotrain"]
    for each in rivals:
        if _brings_module(each) or _brings_command(each):
            mixed = os.path.realpath(str(each.locate_file("autotrain"))) == os.path.realpath(OURS)
            what = "files of both are mixed" if mixed else "which of them runs depends on the place"
            text = f"{_name(each)} {each.version} also installs `autotrain`: {what}"
            return (fail if mixed else warn)(text, both(uninstall(_name(each)), ourselves()))
    if (known := _known_version()) not in (None, autotrain.__version__):
        text = f"pip holds autotrain for {known}, the code is {autotrain.__version__}"
        return warn(text, ourselves())
    there = scene.here / "autotrain"
    if (there / "__init__.py").exists() and there.resolve() != OURS.resolve():
        text = f"a folder autotrain stands here: `python -m autotrain` takes {shown(there)}"
        return warn(text, "cd ..")
    return ok(f"{autotrain.__version__}, in {shown(OURS)}")


def command(scene: Scene) -> Result:
    """`autotrain` on PATH is ours, of this environment."""
    found = shutil.which("autotrain", path=scene.environment.get("PATH"))
    by_path = f"{program(sys.executable)} -m autotrain"
    if found is None:
        return ok(f"none on PATH; `{by_path}` works")
    beside = os.path.realpath(Path(found).parent) == os.path.realpath(Path(sys.executable).parent)
    try:
        raw = Path(found).read_bytes()[:65536]
    except OSError as error:
        return warn(f"{shown(found)} cannot be read: {error.strerror}", by_path)
    script = raw.startswith(b"#!")
    if script and _OUR_ENTRY.encode() not in raw:
        mend = ourselves() if beside else entered_anew()
        return (fail if beside else warn)(f"{shown(found)} is another program", mend)
    starts = _INTERPRETER.search(raw) if script else None
    other = starts and os.path.realpath(Path(os.fsdecode(starts[1])).parent)
    if (other or not beside) and other != os.path.realpath(Path(sys.executable).parent):
        return warn(f"{shown(found)} starts another environment's autotrain", entered_anew())
    return ok(shown(found))


def _requirements() -> Iterator[tuple[Any, str | None]]:
    """What autotrain asks for, and what that asks for in turn, each with the version there is.

    Raises ModuleNotFoundError where nothing here can read requirements.
    """
    waiting = [(text, frozenset[str]()) for text in _asked_for()]
    done = set[tuple[str, frozenset[str]]]()
    while waiting:
        text, extras = waiting.pop()
        asked = _requirement(text)
        if asked.marker is not None and not _applies(asked.marker, extras):
            continue
        try:
            found = distribution(asked.name)
        except PackageNotFoundError:
            yield asked, None
            continue
        yield asked, found.version
        key = (_plain(asked.name), frozenset(asked.extras))
        # What the wrong version of a package asks for says nothing.
        if key not in done and _fits(found.version, asked.specifier):
            done.add(key)
            waiting += [(more, frozenset(asked.extras)) for more in found.requires or []]


def _asked_for() -> list[str]:
    """Of the checkout where there is one: an editable install's metadata may be older."""
    project = OURS.parent / "pyproject.toml"
    if project.is_file():
        told = tomllib.loads(project.read_text(encoding="utf-8")).get("project", {})
        if told.get("name") == "autotrain":
            return list(told["dependencies"])
    return distribution("autotrain").requires or []


def _requirement(text: str) -> Any:
    try:
        from packaging.requirements import Requirement
    except ImportError:
        from pip._vendor.packaging.requirements import Requirement  # type: ignore[assignment]
    return Requirement(text)


def _applies(marker: Any, extras: frozenset[str]) -> bool:
    return any(marker.evaluate({"extra": extra}) for extra in extras or {""})


def _known_version() -> str | None:
    try:
        return distribution("autotrain").version
    except PackageNotFoundError:
        return None


def _name(found: Distribution) -> str:
    return found.metadata["Name"] or ""


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _brings_module(found: Distribution) -> bool:
    listed = (found.read_text("top_level.txt") or "").split()
    return "autotrain" in listed or "\nautotrain/" in f"\n{found.read_text('RECORD') or ''}"


def _brings_command(found: Distribution) -> bool:
    scripts = found.entry_points.select(group="console_scripts")
    return any(each.name == "autotrain" for each in scripts)
