"""Takes out of a line whatever says who or where one is; what cannot be told from it goes, too."""

from __future__ import annotations

import getpass
import os
import re
import socket
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path, PurePath

from autotrain.doctor.checks import CHECKS, FOR_PLAN
from autotrain.doctor.scene import Scene
from autotrain.doctor.wheels import WHEELS
from autotrain.errors import AutotrainError, one_line

# What is alike everywhere: folders of the system, and what the doctor itself says with a slash.
_SYSTEM = r"/(?!dev/shm/)(?:dev|proc|sys|etc|s?bin|lib(?:64)?|usr/(?:s?bin|lib(?:64)?))/[\w./@+-]*"
_OURS = ("/tmp", "/var/tmp", "/mnt/c", "/another/folder", "/a/faster/disk/run",
         "/a/local/disk/run", "https://download.pytorch.org/whl", "MB/s")  # fmt: skip
_ALIKE = re.compile(
    rf"(?<![\w/.:<>\\~-])(?:{_SYSTEM}|(?:{'|'.join(map(re.escape, _OURS))})(?:/cu\d+|/rocm[\d.]+)?"
    r"|\.venv[/\\](?:bin|Scripts)[/\\][Aa]ctivate(?:\.\w+)?|\d+/\d+|\w+://)(?=[\s'\",;:()`]|\.?$)"
)
_LAID_OUT = ("<env>", "<python>")
# What is alike in all of these; a Python of the system lies in /usr, as much else does.
_LAYOUT = r"(?:[/\\](?:(?i:bin|lib|lib64|include|scripts)(?=[/\\])|python)[\w./\\@+-]*)?"

_PART = r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\""
# As a shell takes it: `'it'"'"'s here'/x` is one word.
_QUOTED = re.compile(rf"(?<!\w)(?:`[^`]*`|(?:{_PART})(?:{_PART}|[\w@%+=,./-])*)", re.DOTALL)
# A name may have spaces in it, so a path ends with the sentence; in a command, before an option.
_END = r"[)`]*(?::(?:\s|$)|;|$)"
_COMMAND_END = rf"{_END}|\s+(?:&&|\||--?\w|#)"
_BEGIN = (
    r"(?<![^\s=(\['\"`,;])(?:\.{1,2}[/\\]|~[\w/\\]|/(?=\S)|[A-Za-z]:[/\\]|\\\\"
    r"|[\w+.-]+://|[\w.-]+(?:@[\w.-]+)?:[/\\~]|\$\w+[/\\])"
)
_LOOSE = r"(\s*)(?:(?!:\s|;)(?s:.))*?\S[/\\]\S"  # where such a name begins, nobody knows
_LEFT = re.compile("\ue000(\\d+)\ue001")
# Names that tell nothing: folders that anybody may have, words of commands, versions.
_ANYBODYS = frozenset(
    ("usr", "local", "opt", "home", "users", "mnt", "media", "srv", "var", "data", "tmp", "temp",
     "root", "work", "bin", "lib", "share", "src", "code", "projects", "documents", "desktop",
     "downloads", "runs", "conda", "miniconda3", "venv", ".venv", "env", "site-packages",
     "plan.toml", "task.py", "docker", "kill", "sudo", "export", "unset", "source", "install",
     "path", "user", "host")
)  # fmt: skip
_VERSION = re.compile(r"(?:python)?[\d.]+")
_SHORT = 2  # letters; a name of one is in other words, too


class Scrubber:
    """Of a detail, or of a command: the line as anybody may see it."""

    def __init__(self, scene: Scene, private: Iterable[str] = ()) -> None:
        folders, names = _folders(scene), _names(scene)
        words = {part: "<path>" for path in (*folders, *names) for part in _parts(path)}
        words |= names
        words |= dict.fromkeys(private, "<program>")
        words |= dict.fromkeys(_users(scene.environment), "<user>")
        words |= dict.fromkeys(_hosts(), "<host>")
        self._folders = _longest_first(folders.items())
        self._words = _longest_first(
            (form, name) for word, name in words.items() for form in _forms(word) if _tells(form)
        )

    def __call__(self, line: str, *, command: bool = False) -> str:
        """Known names go, wherever they stand; then whatever looks like a path, to its end."""
        kept: list[str] = []

        def keep(text: str) -> str:
            kept.append(text)
            return f"\ue000{len(kept) - 1}\ue001"

        def out(pattern: str, name: str, line: str) -> str:
            return re.sub(pattern, lambda _: keep(name), line, flags=re.IGNORECASE)

        end = rf"(?s:.)*?(?={_COMMAND_END if command else _END})"
        for word, name in self._words:
            if re.search(r"['\"`]", word):  # by which the next line would cut it
                line = out(_alone(word), name, line)
        line = _QUOTED.sub(lambda found: self._unquoted(found[0], keep), line)
        line = _ALIKE.sub(lambda found: keep(found[0]), line)
        for folder, name in self._folders:
            begin = rf"(?<![\w/.-]){re.escape(folder)}(?=[/\\\s'\",;:()`]|$)"
            rest = _LAYOUT if name in _LAID_OUT else end
            line = re.sub(begin + rest, lambda found: keep(self._named(found[0])), line)
        for word, name in self._words:
            line = out(_alone(word), name, line)
        line = out(_BEGIN + end, "<path>", line)
        line = re.sub(_LOOSE + end, lambda found: found[1] + keep("<path>"), line)
        return _LEFT.sub(lambda found: kept[int(found[1])], line)

    def _unquoted(self, text: str, keep: Callable[[str], str]) -> str:
        """A quoted word: what stands for it where it tells something, else as it is."""
        content = "".join(re.split(r"(?<!\\)['\"`]", text))
        known = any(re.search(_alone(word), content, re.IGNORECASE) for word, _ in self._words)
        if not (known or re.search(r"[/\\]|^~", content)) or _ALIKE.fullmatch(content):
            return text
        named = keep(self._named(content))
        return f"`{named}`" if text.startswith("`") else named

    def _named(self, path: str) -> str:
        """A word of ours for a path, with what lies in an environment."""
        for folder, name in self._folders:
            rest = path[len(folder) :]
            if path.startswith(folder) and rest[:1] in ("", "/", "\\"):
                alike = name in _LAID_OUT and re.fullmatch(_LAYOUT, rest)
                return name + (rest if alike else "")
        return dict(self._words).get(path, "<path>")


def _alone(word: str) -> str:
    return rf"(?:(?<!\w)|(?!\w)){re.escape(word)}(?:(?!\w)|(?<!\w))"


def _longest_first(names: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return sorted(dict(names).items(), key=lambda pair: -len(pair[0]))


def _folders(scene: Scene) -> dict[str, str]:
    """Folders that are known, each with a word for it."""
    pythons = {sys.base_prefix: "<python>", sys.prefix: "<env>"}
    ours = tuple(f"{prefix}{os.sep}" for prefix in pythons)  # of which PATH has some
    listed = (path for told in scene.environment.values() for path in _paths_in(told))
    known = {path: "<path>" for path in listed if not path.startswith(ours)}
    with suppress(RuntimeError):
        known[str(Path.home())] = "<home>"
    with suppress(OSError):
        known |= {tempfile.gettempdir(): "<tmp>", os.getcwd(): "<here>"}
    known |= {str(scene.where): "<run>", str(scene.plan_folder): "<here>"}
    known |= pythons
    known |= {str(Path(path).resolve()): name for path, name in known.items()}
    return {path: name for path, name in known.items() if len(path) > 1}


def _paths_in(told: str) -> list[str]:
    """Of a variable, what it names: PATH has several."""
    parts = [told, *told.split(os.pathsep)]
    return [each for each in parts if os.path.isabs(each) and not _ALIKE.fullmatch(each)]


def _names(scene: Scene) -> dict[str, str]:
    """What the plan and its settings call things, each with a word for it."""
    if scene.named is None:
        return {}
    found: dict[str | None, str] = {}
    with suppress(AutotrainError, ImportError, OSError):
        for plan in (scene.plan, *scene.plans):
            found |= {plan.checkpoint.mirror: "<mirror>", plan.task.data: "<data>"}
            found |= {plan.task.file: "<task>", plan.run.directory: "<run>", plan.run.name: "<run>"}
        found |= dict.fromkeys(scene.stages, "<stage>")
    found |= {scene.named: "<plan>", Path(scene.named).name: "<plan>"}
    return {name: word for name, word in found.items() if name}


def _parts(path: str) -> Iterator[str]:
    """The names in a path, a file's without its ending, too."""
    for part in re.split(r"[/\\]+", path):
        yield from (part, PurePath(part).stem)


def _tells(name: str) -> bool:
    """Whether a name says something that the doctor's own texts do not."""
    long = len(name) >= _SHORT or not name.isascii()
    return long and name.lower() not in _said() and not _VERSION.fullmatch(name)


@cache
def _said() -> frozenset[str]:
    """Words of the doctor's own texts."""
    texts = (f"{each.theme} {each.name} {each.look.__doc__}" for each in (*CHECKS, *FOR_PLAN))
    return _ANYBODYS | frozenset(re.findall(r"[\w.-]*\w", " ".join(texts).lower())) | set(WHEELS)


def _forms(name: str) -> set[str]:
    """A name as texts have it: as it is, on one line, quoted by Python or a shell."""
    shell = name.replace("'", "'\"'\"'")
    return {name, one_line(name) or name, repr(name)[1:-1], shell}


def _users(environment: Mapping[str, str]) -> set[str]:
    found = {environment.get(name, "") for name in ("USER", "LOGNAME", "USERNAME", "SUDO_USER")}
    with suppress(KeyError, OSError, ImportError):
        found.add(getpass.getuser())
    with suppress(RuntimeError):
        found.add(Path.home().name)
    return found - {"root"}


def _hosts() -> set[str]:
    with suppress(OSError):
        whole = socket.gethostname()
        return {whole, whole.partition(".")[0]} - {"localhost"}
    return set()
