"""Commands as the shell and the system here take them: the one place for how each is spelled."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Literal

Shell = Literal["sh", "fish", "csh", "powershell", "cmd"]

_SET: dict[Shell, str] = {
    "sh": "export {}={}", "fish": "set -gx {} {}", "csh": "setenv {} {}",
    "powershell": "$env:{} = {}", "cmd": "set {}={}",
}  # fmt: skip
_UNSET: dict[Shell, str] = {
    "sh": "unset {}", "fish": "set -e {}", "csh": "unsetenv {}",
    "powershell": "Remove-Item Env:{}", "cmd": "set {}=",
}  # fmt: skip
_REMOVE: dict[Shell, str] = {"powershell": "Remove-Item -Recurse {}", "cmd": "rmdir /s {}"}
_PLAIN = {"powershell": r"[\w+=:./\\-]+", "cmd": r"[\w@+:./\\-]+"}
# What installs a package: a program that is there where it is, and what it calls them.
_PACKAGES = {
    "apt-get": ("sudo apt install {}", {"c++": "g++", "ffmpeg": "ffmpeg"}),
    "dnf": ("sudo dnf install {}", {"c++": "gcc-c++", "ffmpeg": "ffmpeg-free"}),
    "zypper": ("sudo zypper install {}", {"c++": "gcc-c++", "ffmpeg": "ffmpeg"}),
    "pacman": ("sudo pacman -S {}", {"c++": "gcc", "ffmpeg": "ffmpeg"}),
    "apk": ("sudo apk add {}", {"c++": "g++", "ffmpeg": "ffmpeg"}),
    "brew": ("brew install {}", {"c++": "gcc", "ffmpeg": "ffmpeg"}),
    "winget": ("winget install {}", {"c++": "Microsoft.VisualStudio.2022.BuildTools",
                                     "ffmpeg": "Gyan.FFmpeg"}),
}  # fmt: skip


def shell() -> Shell:
    """The one that commands are typed in, as far as a process can tell."""
    if sys.platform == "win32" and "MSYSTEM" not in os.environ:  # which Git's bash sets
        # PowerShell puts a folder of its own before those that every process is told.
        ours = os.environ.get("PSMODULEPATH", "").count(";") >= 2
        return "powershell" if ours else "cmd"
    name = Path(os.environ.get("SHELL", "")).name
    return "fish" if name == "fish" else "csh" if name in ("csh", "tcsh") else "sh"


def shown(path: Path | str) -> str:
    """A path, a word or a requirement as a shell takes it."""
    text, kind = str(path), shell()
    if kind not in _PLAIN:
        return shlex.quote(text)
    if re.fullmatch(_PLAIN[kind], text):
        return text
    return f'"{text}"' if kind == "cmd" else "'{}'".format(text.replace("'", "''"))


def program(path: Path | str) -> str:
    """The same at the start of a command: to PowerShell what is quoted is a text."""
    text = shown(path)
    return f"& {text}" if shell() == "powershell" and text.startswith("'") else text


def setting(name: str, value: object) -> str:
    """Gives a variable a value, for what is started from then on."""
    text, kind = shown(str(value)), shell()
    if kind == "cmd" and text.startswith('"'):
        return f'set "{name}={value}"'
    if kind == "powershell" and not text.startswith("'"):
        text = f"'{text}'"
    return _SET[kind].format(name, text)


def unsetting(name: str) -> str:
    """Takes a variable away."""
    return _UNSET[shell()].format(name)


def both(*commands: str) -> str:
    """One after the other, as long as they work; PowerShell 5 has no word for that."""
    return ("; " if shell() == "powershell" else " && ").join(commands)


def removing(folder: Path | str) -> str:
    """Deletes a folder."""
    return _REMOVE.get(shell(), "rm -r {}").format(shown(folder))


def largest_in(folder: Path) -> str:
    """Lists what takes most room."""
    if sys.platform != "win32":
        return f"du -xh {shown(folder)} | sort -h | tail"
    listed = f"Get-ChildItem -Recurse -File {shown(folder)} | Sort-Object Length"
    told = f"{listed} | Select-Object -Last 10 Length, FullName"
    return told if shell() == "powershell" else f"powershell -Command {shown(told)}"


def most_files_in(folder: Path) -> str:
    """Lists which folders hold most files; macOS can only count them."""
    if sys.platform == "darwin":
        return f"find {shown(folder)} -xdev | wc -l   # how many files it holds"
    return f"du --inodes -x {shown(folder)} | sort -n | tail   # which folders hold most files"


def busiest(what: Literal["mem", "cpu"]) -> str:
    """Shows the programs that take most of it, to end those that are not needed."""
    if sys.platform == "win32":
        return "taskmgr"
    own = what if sys.platform == "darwin" else f"%{what.upper()}"
    return f"top -o {own}   # then end what is not needed"


def set_clock() -> str:
    """Sets the clock by the network's."""
    others = {"win32": "w32tm /resync", "darwin": "sudo sntp -sS time.apple.com"}
    return others.get(sys.platform, "sudo timedatectl set-ntp true")


def reboot() -> str:
    """Starts the machine anew."""
    return "shutdown /r /t 0" if sys.platform == "win32" else "sudo reboot"


def kernel_log() -> str:
    """Shows what the system has said last."""
    windows = "wevtutil qe System /c:30 /rd:true /f:text"
    return windows if sys.platform == "win32" else "sudo dmesg | tail -n 30"


def package(what: Literal["c++", "ffmpeg"]) -> str:
    """Installs a package of the system's."""
    if what == "c++" and sys.platform == "darwin":
        return "xcode-select --install"
    here = next(filter(shutil.which, _PACKAGES), "winget" if sys.platform == "win32" else "apt-get")
    command, names = _PACKAGES[here]
    return command.format(names[what])
