"""The least that a disk promises, played from a trace of the calls that a run made.

Bytes of a file are there once it was synced after they were written; a name is there once the
folder that it stands in was synced after it was made. File systems promise more, each something
else.
"""

import ast
import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

CALLS = ("openat", "write", "pwrite64", "ftruncate", "fsync", "fdatasync", "mkdir", "rename",
         "unlink", "unlinkat", "rmdir")  # fmt: skip
_LINE = re.compile(r"^(\d+) +(.*)$")
_ENDED = re.compile(r"^<\.\.\. \w+ resumed>(.*)$")
_CALL = re.compile(r"^(\w+)\((.*)\) += (-?\d+)(?:<(.*)>)?")
_NAMES = re.compile(r'(?:(?:AT_FDCWD|\d+)<([^>]*)>, )?"((?:[^"\\]|\\.)*)"')
_HANDLE = re.compile(r"^\d+<(.*?)>(?:\(deleted\))?")


@dataclass(eq=False)
class Node:
    """A file or a folder, as programs see it and as it would be found after a power cut."""

    names: dict[str, "Node"] = field(default_factory=dict)
    kept: dict[str, "Node"] = field(default_factory=dict)
    content: bytes = b""
    unsynced: bool = False


class Strict:
    """A disk to which calls are told one by one."""

    def __init__(self):
        self.root = Node()

    def at(self, path, *, kept=False):
        """What a path leads to; before or after the power cut. None where there is nothing."""
        node = self.root
        for part in PurePosixPath(path).parts[1:]:
            node = (node.kept if kept else node.names).get(part)
            if node is None:
                return None
        return node

    def folder(self, path):
        """The folder that a path stands in, which was there before if nobody made it."""
        node = self.root
        for part in PurePosixPath(path).parts[1:-1]:
            if part not in node.names:
                node.names[part] = node.kept[part] = Node()
            node = node.names[part]
        return node

    def made(self, path):
        self.folder(path).names.setdefault(PurePosixPath(path).name, Node())

    def gone(self, path):
        self.folder(path).names.pop(PurePosixPath(path).name, None)

    def renamed(self, old, new):
        node = self.folder(old).names.pop(PurePosixPath(old).name, None)
        if node is not None:
            self.folder(new).names[PurePosixPath(new).name] = node

    def written(self, path, content):
        node = self.at(path)
        if node is not None:
            node.content, node.unsynced = node.content + content, True

    def synced(self, path):
        node = self.at(path)
        if node is not None:
            node.unsynced, node.kept = False, dict(node.names)

    def tell(self, call, words, came):
        """One call that succeeded; `came`: the path of the handle that it returned."""
        held = _HANDLE.match(words)
        paths = [str(PurePosixPath(base or "/", _plain(name))) for base, name
                 in _NAMES.findall(words)]  # fmt: skip
        if call == "openat":
            if "O_CREAT" in words:
                self.made(came)
            if "O_TRUNC" in words and (node := self.at(came)):
                node.content, node.unsynced = b"", True
        elif call in ("write", "pwrite64", "ftruncate"):
            said = _NAMES.search(words.partition(", ")[2])
            self.written(held[1], _plain(said[2]).encode("latin1") if said else b"")
        elif call in ("fsync", "fdatasync"):
            self.synced(held[1])
        elif call == "mkdir":
            self.made(paths[0])
        elif call == "rename":
            self.renamed(*paths)
        else:
            self.gone(paths[0])


def _plain(text):
    return ast.literal_eval(f'"{text}"')


def calls(log: Path):
    """(name, arguments, path of what it returned) of each call that succeeded, as they ended."""
    begun = {}
    for line in log.read_text().splitlines():
        found = _LINE.match(line)
        if found is None:
            continue
        thread, said = found.groups()
        if said.endswith("<unfinished ...>"):
            begun[thread] = said.removesuffix("<unfinished ...>").rstrip()
            continue
        if ended := _ENDED.match(said):
            said = begun.pop(thread, "") + ended[1].lstrip()
        if (call := _CALL.match(said)) and int(call[3]) >= 0:
            yield call[1], call[2], call[4]
