"""Machines as TOML files: shipped ones by name, a friend's by path, and this one written out."""

from __future__ import annotations

import difflib
import json
import os
import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from autotrain import files, parsing
from autotrain.errors import AutotrainError, UsageError
from autotrain.probe.handwritten import completed
from autotrain.schema import (
    PROFILE_SCHEMA,
    Cpu,
    Device,
    Disk,
    HardwareProfile,
    Neighbour,
    Rates,
)

FOLDER = "profiles"
# What a name may leave out: everyone knows who makes a 4090.
_SAID_OR_NOT = re.compile("nvidia|geforce|rtx|amd|radeon|rx|instinct|tesla|apple|gpu|[^a-z0-9]+")
# tomli_w gives every item of an array a line of its own; a few words read better on one.
_WORDS = re.compile(r"\[\n((?: +[^\[\]\n]{1,24},\n){1,8})\]")


def load_machine(name_or_file: str) -> HardwareProfile:
    """A shipped machine by name (`rtx-4060-8gb`), or a file that `autotrain probe -o` wrote.

    A name may be spelled otherwise ("RTX 4090") where it means one machine only.
    Raises AutotrainError (no such machine or file) or UsageError (malformed), the latter with
    one line per fault: `file: key: problem`.
    """
    if _looks_like_file(name_or_file):
        return _read(Path(name_or_file))
    names = files.shipped_names(FOLDER)
    meant = [name_or_file] if name_or_file in names else _meant_by(name_or_file, names)
    if len(meant) != 1:
        raise _unknown(name_or_file, names, meant)
    return _read(_shipped(meant[0]))


def profile_toml(profile: HardwareProfile) -> str:
    """The profile as TOML that `load_machine` reads back equal. What is empty is left out."""
    import tomli_w

    data = _filled(profile.model_dump(mode="json", by_alias=True, exclude_none=True))
    tables: list[str] = []
    for device in data["devices"]:
        if rows := device["rates"].get("timings"):
            device["rates"]["timings"] = f"table {len(tables)}"
            tables.append("\n".join(f"    {json.dumps(row)}," for row in rows))
    text = _WORDS.sub(_on_one_line, tomli_w.dumps(data))
    for number, table in enumerate(tables):
        text = text.replace(f'timings = "table {number}"', f"timings = [\n{table}\n]", 1)
    return text


def shareable(profile: HardwareProfile) -> HardwareProfile:
    """The profile without what is nobody else's business and no plan needs.

    Other people's processes on a GPU, and the path of the folder that was looked at.
    """
    devices = tuple(d.model_copy(update={"neighbours": ()}) for d in profile.devices)
    disk = profile.disk.model_copy(update={"path": "runs"})
    return profile.model_copy(update={"devices": devices, "disk": disk})


def datasheet_rates(name: str) -> Rates | None:
    """The shipped rates of a GPU of exactly this name, as the driver spells it, or None."""
    for machine in files.shipped_names(FOLDER):
        for device in load_machine(machine).devices:
            if device.kind != "cpu" and device.name == name:
                return device.rates
    return None


# --- names ---------------------------------------------------------------------------------


def _looks_like_file(text: str) -> bool:
    return text.endswith(".toml") or "/" in text or "\\" in text or os.path.isfile(text)


def _shipped(name: str) -> Path:
    return files.shipped(FOLDER) / f"{name}.toml"


def _meant_by(spelled: str, names: list[str]) -> list[str]:
    """Shipped machines that someone may call so: by their name or the driver's, with the memory
    or without it."""
    wanted = _plain(spelled)
    return [name for name in names if wanted and wanted in _spellings(name)]


def _spellings(name: str) -> set[str]:
    found = {name, _without_memory(name), name.removesuffix("gb")}
    if not name.startswith("cpu-"):
        found.add(str(files.read_toml(_shipped(name))["devices"][0]["name"]))
    return {_plain(spelling) for spelling in found}


def _without_memory(name: str) -> str:
    return re.sub(r"-\d+gb$", "", name)


def _plain(spelled: str) -> str:
    """`NVIDIA GeForce RTX 4090` as `4090`."""
    return _SAID_OR_NOT.sub("", spelled.lower())


def _unknown(name: str, names: list[str], meant: list[str]) -> AutotrainError:
    if meant:
        return AutotrainError(
            f"{name!r} may be {' or '.join(meant)}", f"say which: --machine {meant[0]}"
        )
    shortened = {_without_memory(each): each for each in names} | {each: each for each in names}
    near = difflib.get_close_matches(name.lower(), list(shortened), n=4, cutoff=0.6)
    close = dict.fromkeys(shortened[each] for each in near)
    hint = f"did you mean {', '.join(close)}? " if close else ""
    return AutotrainError(
        f"no machine is called {name!r}",
        f"{hint}machines: {', '.join(names)}; or a .toml file that `autotrain probe -o` wrote",
    )


# --- files ---------------------------------------------------------------------------------


def _read(path: Path) -> HardwareProfile:
    content = files.read_toml(path, parsing.PROFILE_VALUES)
    version = content.get("schema", PROFILE_SCHEMA)
    if version != PROFILE_SCHEMA:
        raise UsageError(
            f"{path}: schema: {version!r} is not {PROFILE_SCHEMA}, which this autotrain reads",
            hint="probe the machine again with this version, or update autotrain",
        )
    try:
        return HardwareProfile.model_validate(completed(content))
    except ValidationError as error:
        raise UsageError(*(f"{path}: {_fault(each)}" for each in _own(error.errors()))) from None


def _own(faults: list[Any]) -> list[Any]:
    """Each fault once: without what follows from another one.

    Pydantic says of a list that it is too short where its items are at fault, and a misspelled key
    is missing too.
    """
    within = [fault["loc"][:-1] for fault in faults]
    meant = {
        (*fault["loc"][:-1], _known_near(str(fault["loc"][-1])))
        for fault in faults
        if fault["type"] == "extra_forbidden"
    }

    def follows(fault: Any) -> bool:
        where = fault["loc"]
        if fault["type"] == "too_short":
            return any(inner[: len(where)] == where for inner in within)
        return fault["type"] == "missing" and where in meant

    return [fault for fault in faults if not follows(fault)]


def _fault(fault: Any) -> str:
    where = ".".join(str(part) for part in fault["loc"]) or "file"
    if fault["type"] == "extra_forbidden":
        return f"{where}: unknown key{_near(str(fault['loc'][-1]))}"
    if fault["type"] == "missing":
        return f"{where}: missing"
    if fault["type"] == "tuple_type" and isinstance(fault["input"], dict):
        return f"{where}: one table; write [[{where}]], as there may be several"
    shown = repr(fault["input"])
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    message = fault["msg"].replace("Input should", "should").removeprefix("Value error, ")
    return f"{where}: {shown} {message}"


def _near(key: str) -> str:
    close = _known_near(key)
    return f" (did you mean {close}?)" if close else ""


def _known_near(key: str) -> str:
    known = {"schema"}
    for record in (HardwareProfile, Cpu, Disk, Device, Rates, Neighbour):
        known |= set(record.model_fields) - {"schema_version"}
    close = difflib.get_close_matches(key, sorted(known), n=1)
    return close[0] if close else ""


def _filled(value: Any) -> Any:
    """Without empty tables and arrays, which are what their absence means."""
    if isinstance(value, dict):
        kept = {key: _filled(each) for key, each in value.items()}
        return {key: each for key, each in kept.items() if each not in ({}, [])}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [_filled(each) for each in value]
    return value


def _on_one_line(found: re.Match[str]) -> str:
    words = [line.strip().rstrip(",") for line in found[1].strip().split("\n")]
    return f"[{', '.join(words)}]"
