"""Machines as TOML files: shipped ones by name, a friend's by path, and this one written out."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from pydantic import ValidationError

from autotrain import files
from autotrain.errors import AutotrainError, UsageError
from autotrain.schema import Cpu, Device, Disk, HardwareProfile, Neighbour, Rates

FOLDER = "profiles"


def load_machine(name_or_file: str) -> HardwareProfile:
    """A shipped machine by name (`rtx-4060-8gb`), or a file that `autotrain probe -o` wrote.

    Raises AutotrainError (no such machine or file) or UsageError (malformed), the latter with
    one line per fault: `file: key: problem`.
    """
    path = files.shipped(FOLDER) / f"{name_or_file}.toml"
    if _looks_like_file(name_or_file):
        path = Path(name_or_file)
    elif name_or_file not in files.shipped_names(FOLDER):
        raise _unknown(name_or_file)
    return _read(path)


def profile_toml(profile: HardwareProfile) -> str:
    """The profile as TOML that `load_machine` reads back equal. What is None is left out."""
    import tomli_w

    return tomli_w.dumps(profile.model_dump(mode="json", by_alias=True, exclude_none=True))


def datasheet_rates(name: str) -> Rates | None:
    """The shipped rates of a GPU of exactly this name, as the driver spells it, or None."""
    for machine in files.shipped_names(FOLDER):
        for device in load_machine(machine).devices:
            if device.kind != "cpu" and device.name == name:
                return device.rates
    return None


def _looks_like_file(text: str) -> bool:
    return text.endswith(".toml") or "/" in text or "\\" in text or os.path.isfile(text)


def _unknown(name: str) -> AutotrainError:
    names = files.shipped_names(FOLDER)
    close = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.4)
    hint = f"did you mean {', '.join(close)}? " if close else ""
    return AutotrainError(
        f"no machine is called {name!r}",
        f"{hint}machines: {', '.join(names)}; or the path of a .toml file",
    )


def _read(path: Path) -> HardwareProfile:
    content = files.read_toml(path)
    try:
        return HardwareProfile.model_validate(content)
    except ValidationError as error:
        faults = []
        for fault in error.errors():
            where = ".".join(str(part) for part in fault["loc"]) or "file"
            if fault["type"] == "extra_forbidden":
                problem = "unknown key" + _meant(str(fault["loc"][-1]))
            else:
                problem = fault["msg"][:1].lower() + fault["msg"][1:]
            faults.append(f"{path}: {where}: {problem}")
        raise UsageError(*faults) from None


def _meant(key: str) -> str:
    known = {"schema"}
    for record in (HardwareProfile, Cpu, Disk, Device, Rates, Neighbour):
        known |= set(record.model_fields) - {"schema_version"}
    close = difflib.get_close_matches(key, sorted(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""
