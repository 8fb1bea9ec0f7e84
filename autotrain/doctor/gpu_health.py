"""How NVIDIA's GPUs are: memory, faults, heat, power, and who else uses them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Container
from typing import Any

from autotrain.doctor.cards import NONE, ours
from autotrain.doctor.result import Result, fail, ok, skip, warn
from autotrain.doctor.scene import Scene, word
from autotrain.doctor.spelling import reboot
from autotrain.units import bytes_text

_SECONDS = 3.0
_LITTLE, _DESKTOP, _CAPPED = 0.5, 0.1, 0.9
# What they mean, from NVIDIA's list of Xid errors; after these a GPU computes no more, or wrongly.
XIDS = {
    48: "memory error that cannot be corrected", 62: "internal halt", 64: "memory repair failed",
    74: "NVLink error", 79: "fell off the bus", 92: "many corrected memory errors",
    95: "memory error that spread", 119: "its own processor does not answer",
}  # fmt: skip
_XID = re.compile(r"NVRM: Xid \((?:PCI:)?(.*?)\): (\d+)")


def memory(scene: Scene) -> Result:
    """The GPU's memory is free of other programs."""
    words, private = list[str](), list[str]()
    short, gpus = False, ours(scene)
    for _, gpu in gpus:
        share = gpu["free_bytes"] / max(gpu["total_bytes"], 1)
        told = f"{bytes_text(gpu['free_bytes'])} free of {bytes_text(gpu['total_bytes'])}"
        others = [each for each in gpu["neighbours"] if each["used_bytes"]]
        if share < _LITTLE and others:
            first = others[0]
            told += (
                f", {first['name']} (pid {first['pid']}) holds {bytes_text(first['used_bytes'])}"
            )
            private.append(first["name"])
        short |= share < _LITTLE
        words.append(told)
    if not gpus:
        return skip(NONE)
    if short:
        mend = "nvidia-smi   # then end what is not needed: kill PID"
        return warn("; ".join(words), mend, tuple(private))
    return ok("; ".join(words))


def compute_mode(scene: Scene) -> Result:
    """The GPU takes programs: its mode is neither prohibited nor exclusive."""
    for index, each in _health(scene):
        mend = f"sudo nvidia-smi -i {index} -c DEFAULT"
        if each["compute_mode"] == "prohibited":
            return fail(f"GPU {index} lets nobody compute", mend)
        if each["compute_mode"] == "exclusive":
            return warn(
                f"GPU {index} takes one program at a time: no --nproc, no trial beside a run", mend
            )
    return ok("default") if _health(scene) else skip(NONE)


def errors(scene: Scene) -> Result:
    """The GPU's memory has had no errors that ECC could not correct."""
    told = _health(scene)
    for index, each in told:
        if each["uncorrected_errors"]:
            many = (
                f"GPU {index}: {each['uncorrected_errors']} memory errors that were not corrected"
            )
            return fail(
                many, f"sudo nvidia-smi --gpu-reset -i {index}   # or reboot; again: replace it"
            )
        if each["repair_failed"]:
            return fail(
                f"GPU {index}: its memory could not be repaired", "replace it, or rent another"
            )
        if each["repair_pending"]:
            text = f"GPU {index}: rows of its memory wait to be replaced"
            return warn(text, f"sudo nvidia-smi --gpu-reset -i {index}")
    if not told:
        return skip(NONE)
    counted = any(each["uncorrected_errors"] is not None for _, each in told)
    return ok("none" if counted else "it has no ECC, or counts nothing")


def xids(scene: Scene) -> Result:
    """The kernel's log has no faults of the GPU (Xid)."""
    if not ours(scene):
        return skip(NONE)
    try:
        done = subprocess.run(
            ["dmesg"],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=True,
            errors="replace",
        )
    except (OSError, subprocess.SubprocessError):
        return skip("this user may not read the kernel's log: sudo dmesg | grep Xid")
    return xids_in(done.stdout, _not_ours(scene))


def xids_in(log: str, others: Container[str] = ()) -> Result:
    """What a kernel's log says of it; `others`: GPUs that do not count, by their place."""
    told = _XID.findall(log)
    found = [int(number) for place, number in told if place.partition(".")[0] not in others]
    bad = next((number for number in found if number in XIDS), None)
    if bad is not None:
        mend = f"{reboot()}   # again: check power and cooling, or rent another machine"
        return fail(f"Xid {bad}: {XIDS[bad]}", mend)
    if found:
        listed = ", ".join(map(str, sorted(set(found))))
        return warn(f"Xid {listed}: programs of before were ended", "sudo dmesg | grep Xid")
    return ok("none since the start")


def throttling(scene: Scene) -> Result:
    """The GPU's clock is not held down by heat or power."""
    told = _health(scene)
    for index, each in told:
        if each["slowed"]:
            mend = "clean its fans, let air in; nvidia-smi -q -d PERFORMANCE,TEMPERATURE"
            return warn(f"GPU {index}: {each['slowed']}", mend)
    return ok("it is not held down") if told else skip(NONE)


def power_cap(scene: Scene) -> Result:
    """The GPU may draw what it was made for."""
    told = _health(scene)
    for index, each in told:
        cap, usual = each["watts_cap"], each["watts_default"]
        if cap and usual and cap < _CAPPED * usual:
            text = f"GPU {index}: {cap:.0f} W of {usual:.0f} W: slower"
            return warn(text, f"sudo nvidia-smi -i {index} -pl {usual:.0f}")
    caps = [f"{each['watts_cap']:.0f} W" for _, each in told if each["watts_cap"]]
    return ok(", ".join(caps) or "it does not tell") if told else skip(NONE)


def desktop(scene: Scene) -> Result:
    """No desktop takes much of the GPU's memory."""
    told = _health(scene)
    for (index, each), (_, gpu) in zip(told, ours(scene), strict=False):
        taken = 1 - gpu["free_bytes"] / max(gpu["total_bytes"], 1)
        if each["display"] and taken > _DESKTOP:
            text = f"GPU {index} draws a screen, {taken:.0%} of its memory is taken"
            return warn(
                text, "sudo systemctl isolate multi-user.target   # or use the other GPU for it"
            )
    shown = any(each["display"] for _, each in told)
    return ok("a screen, which takes little" if shown else "none") if told else skip(NONE)


def _not_ours(scene: Scene) -> set[str]:
    """Where on the PCI bus those GPUs are that are not ours: `0000:01:00`."""
    mine = {gpu["uuid"] for _, gpu in ours(scene)}
    told = (scene.root / "proc/driver/nvidia/gpus").glob("*/information")
    uuids = {each.parent.name: re.search(r"GPU UUID:\s*(\S+)", word(each)) for each in told}
    return {
        place.partition(".")[0] for place, found in uuids.items() if found and found[1] not in mine
    }


def _health(scene: Scene) -> list[tuple[int, dict[str, Any]]]:
    return ours(scene, "health")
