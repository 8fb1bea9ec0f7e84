"""Whether this machine runs on a battery, which makes it one that people close and carry away."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

SUPPLIES = Path("/sys/class/power_supply")


def has_battery(supplies: Path = SUPPLIES) -> bool | None:
    """Whether the machine itself has a battery; None where that cannot be told.

    On Linux the batteries of a mouse or a headset (scope Device) do not count; psutil takes them
    for the machine's. Verify with `cat /sys/class/power_supply/*/{type,scope}`.
    """
    if sys.platform.startswith("linux"):
        return _listed(supplies)
    import psutil

    with suppress(AttributeError, NotImplementedError, OSError):
        return psutil.sensors_battery() is not None
    return None


def _listed(supplies: Path) -> bool | None:
    try:
        return bool(own_batteries(supplies))
    except OSError:
        return None


def own_batteries(supplies: Path = SUPPLIES) -> list[Path]:
    """Those of the machine itself, on Linux. Raises OSError."""
    found = sorted(supplies.iterdir())
    return [s for s in found if _read(s / "type") == "Battery" and _read(s / "scope") != "Device"]


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
