"""What a bench of one device begins with: what was named, planned for that device."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from autotrain.commands.bench import devices
from autotrain.commands.bench.asked import Named, look_up, told
from autotrain.commands.bench.devices import Planned
from autotrain.commands.plan import hardware_of
from autotrain.schema import HardwareProfile


class Opened(NamedTuple):
    """This machine, its device with the plan, and what it is about, in words."""

    hardware: HardwareProfile
    here: Planned
    about: str


def opened(named: Named, *, calibrate: bool) -> Opened:
    """Raises AutotrainError where it cannot be planned."""
    asked = look_up(named)
    hardware = hardware_of(None, Path.cwd(), calibrate)
    here = devices.chosen(asked, hardware)
    assert here.made is not None
    return Opened(hardware, here, told(asked, here.made.model))
