"""A block to paste into an issue: what is here and what is wrong, and nothing that is private."""

from __future__ import annotations

import getpass
import os
import platform
import re
import socket
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from autotrain import __version__
from autotrain.doctor.checks import Finding
from autotrain.doctor.scene import Scene
from autotrain.doctor.wheels import WHEELS, wheel

# Folders of the system, alike everywhere; any other path is somebody's own.
_PUBLIC = ("/dev/", "/proc/", "/sys/", "/etc/", "/bin/", "/sbin/", "/lib/", "/lib64/",
           "/usr/bin/", "/usr/sbin/", "/usr/lib/", "/usr/lib64/")  # fmt: skip
_ADVISED = ("/tmp", "/var/tmp", "/mnt/c")
_HOSTS = ("download.pytorch.org",)
_ALIKE = ("<env>", "<python>")  # what lies in them, too
_START = r"(?:~[/\\]|/|[A-Za-z]:[\\/]|\\\\)"
_QUOTED = re.compile(rf"'(?P<single>{_START}[^']*)'|\"(?P<double>{_START}[^\"]*)\"")
_BARE = re.compile(rf"(?<![\w/.:<>\\]){_START}[^\s'\",;:()<>`]+")
_URL = re.compile(r"\b\w+://([^/\s'\"]*)[^\s'\",;]*")
_SHORT = 3  # letters of a name that would stand in other words, too


def block(findings: Sequence[Finding], scene: Scene) -> str:
    """As Markdown."""
    private = [word for found in findings for word in found.result.private]
    lines = [f"{name}: {value}" for name, value in about(findings).items()]
    for theme, name, result in findings:
        if result.status in ("warn", "fail"):
            lines += [
                "",
                f"{result.status}: {theme}, {name}: {result.detail}",
                f"      {result.mend}",
            ]
    names = [name for _, name, result in findings if result.status == "ok"]
    lines += ["", f"ok: {', '.join(names)}"]
    hide = Scrubber(scene, private)
    return "\n".join(["```text", *(hide(line) for line in lines), "```"])


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


class Scrubber:
    """Takes out of a line whatever says who or where one is."""

    def __init__(self, scene: Scene, private: Iterable[str] = ()) -> None:
        self._folders = sorted(_folders(scene).items(), key=lambda pair: -len(pair[0]))
        words = {word: "<program>" for word in private if len(word) >= _SHORT}
        words |= {scene.named: "<plan>"} if scene.named else {}
        words |= dict.fromkeys(_users(scene.environment), "<user>")
        words |= dict.fromkeys(_hosts(), "<host>")
        self._words = sorted(words.items(), key=lambda pair: -len(pair[0]))

    def __call__(self, line: str) -> str:
        """The line as anybody may see it."""
        line = _URL.sub(lambda found: found[0] if found[1] in _HOSTS else "<url>", line)
        line = _QUOTED.sub(lambda found: self._named(found["single"] or found["double"]), line)
        for folder, _ in self._folders:  # they may have spaces in them
            pattern = rf"(?<![\w/.-]){re.escape(folder)}(?=[/\\\s'\",;:()`]|$)[^\s'\",;:()`]*"
            line = re.sub(pattern, lambda found: self._named(found[0]), line)
        line = _BARE.sub(lambda found: self._named(found[0]), line)
        for word, name in self._words:
            line = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", name, line, flags=re.IGNORECASE)
        return line

    def _named(self, path: str) -> str:
        """What stands for a path: itself where it is alike everywhere, a word of ours elsewhere."""
        if path.startswith(_PUBLIC) or path in _ADVISED:
            return path
        for folder, name in self._folders:
            if path == folder or path.startswith((f"{folder}/", f"{folder}\\")):
                return name + (path[len(folder) :] if name in _ALIKE else "")
        return "<path>"


def _folders(scene: Scene) -> dict[str, str]:
    """Folders that are known, each with a word for it."""
    known = {path: "<path>" for told in scene.environment.values() for path in _paths_in(told)}
    with suppress(RuntimeError):
        known[str(Path.home())] = "<home>"
    with suppress(OSError):
        known |= {tempfile.gettempdir(): "<tmp>", os.getcwd(): "<here>"}
    known |= {str(scene.where): "<run>", str(scene.plan_folder): "<here>"}
    known |= {sys.base_prefix: "<python>", sys.prefix: "<env>"}
    known |= {str(Path(path).resolve()): name for path, name in known.items()}
    return {path: name for path, name in known.items() if len(path) > 1}


def _paths_in(told: str) -> list[str]:
    """Of a variable, what it names: PATH has several."""
    parts = [told, *told.split(os.pathsep)]
    return [
        each
        for each in parts
        if os.path.isabs(each) and each not in _ADVISED and not each.startswith(_PUBLIC)
    ]


def _users(environment: Mapping[str, str]) -> set[str]:
    found = {environment.get(name, "") for name in ("USER", "LOGNAME", "USERNAME", "SUDO_USER")}
    with suppress(KeyError, OSError, ImportError):
        found.add(getpass.getuser())
    with suppress(RuntimeError):
        found.add(Path.home().name)
    return {name for name in found if len(name) > 1 and name != "root"}


def _hosts() -> set[str]:
    with suppress(OSError):
        whole = socket.gethostname()
        return {name for name in (whole, whole.partition(".")[0]) if len(name) > 1} - {"localhost"}
    return set()
