"""A block to paste into an issue: what is here and what is wrong, and nothing that is private."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence

from autotrain import __version__
from autotrain.doctor.checks import Finding
from autotrain.doctor.scene import Scene
from autotrain.doctor.scrubbing import Scrubber
from autotrain.doctor.wheels import WHEELS, wheel


def block(findings: Sequence[Finding], scene: Scene) -> str:
    """As Markdown."""
    private = [word for found in findings for word in found.result.private]
    hide = Scrubber(scene, private)
    lines = [f"{name}: {hide(value)}" for name, value in about(findings).items()]
    for theme, name, (status, detail, mend, _) in findings:
        if status in ("warn", "fail"):
            told = hide(" ".join(detail.splitlines()))
            lines += ["", f"{status}: {theme}, {name}: {told}", f"      {hide(mend, command=True)}"]
    names = [name for _, name, result in findings if result.status == "ok"]
    return "\n".join(["```text", *lines, "", f"ok: {', '.join(names)}", "```"])


def about(findings: Iterable[Finding]) -> dict[str, str]:
    """What a helper asks first, from what is installed and what was found."""
    told = {
        "autotrain": __version__,
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }
    told |= {name: found.build for name in WHEELS if (found := wheel(name)) is not None}
    by_name = {(theme, name): result.detail for theme, name, result in findings}
    for label, key in _TOLD.items():
        if key in by_name:
            told[label] = by_name[key]
    return told


_TOLD = {
    "processor": ("processor", "instructions"),
    "cores": ("processor", "cores"),
    "RAM": ("memory", "RAM"),
    "driver": ("gpu", "driver"),
    "GPUs": ("gpu", "GPUs of torch"),
}
