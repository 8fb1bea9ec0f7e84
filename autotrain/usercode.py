"""Code that a person wrote: run from a file, told where it failed, sent to other processes."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pickle
import re
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from autotrain.errors import AutotrainError, starved
from autotrain.files import read_regular

# No one writes a task file of more.
CODE_BYTES = 16 << 20


def file_sha256(path: Path) -> str:
    """SHA-256 of a task file. Raises AutotrainError where it cannot be read."""
    return hashlib.sha256(_read(path)).hexdigest()


def _read(path: Path) -> bytes:
    try:
        return read_regular(path, CODE_BYTES)
    except OSError as error:
        raise AutotrainError(f"{path}: {error.strerror}", "name an existing task file") from None


_loaded: dict[Path, bytes] = {}


def load_module(path: Path) -> ModuleType:
    """The task file as a module, once per path and content; its folder joins `sys.path`.

    Raises AutotrainError with the file and line where its import fails.
    """
    path = path.resolve()
    return _module(path, _read(path))


def _module(path: Path, source: bytes) -> ModuleType:
    """Run `source` as the file `path`: what was hashed is what runs, never a stale .pyc."""
    digest = hashlib.sha256(os.fsencode(path) + b"\0" + source).hexdigest()[:12]
    name = re.sub(r"\W", "_", f"autotrain_task_{path.stem}_{digest}")
    _loaded[path] = source
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None:
        raise AutotrainError(f"{path}: not a Python file", "a task file ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    try:
        exec(compile(source, str(path), "exec", dont_inherit=True), vars(module))
    except BaseException as error:
        del sys.modules[name]
        if not isinstance(error, Exception):
            raise
        raise user_error(path, error) from error
    return module


def user_error(path: Path, error: Exception, during: str = "") -> AutotrainError:
    """`file:line: what went wrong`: the deepest line of the task's own folder that took part."""
    if (no_room := starved(error)) is not None:
        return no_room
    frames = traceback.extract_tb(error.__traceback__)
    mine = [f for f in frames if Path(f.filename).parent == path.resolve().parent]
    where, line, text = str(path), None, str(error)
    if mine:
        where, line = mine[-1].filename, mine[-1].lineno
    if isinstance(error, SyntaxError):
        text = error.msg
        if error.filename and Path(error.filename).is_file():
            where, line = error.filename, error.lineno
    place = f"{where}:{line}" if line else where
    return AutotrainError(
        f"{place}: {during}{type(error).__name__}: {text}", "the error is in the task's own code"
    )


class Portable:
    """An object of a task file that survives pickling into a worker that started by spawn.

    The worker first runs the task file's source, then unpickles what came from it. The source
    travels along: a file edited during a run does not change, or break, its later workers.
    """

    def __init__(self, value: Any, path: Path) -> None:
        self.value = value
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        path = self.path.resolve()
        source = _loaded[path] if path in _loaded else _read(path)
        return _restore, (str(path), source, pickle.dumps(self.value))


def _restore(path: str, source: bytes, payload: bytes) -> Portable:
    _module(Path(path), source)
    return Portable(pickle.loads(payload), Path(path))
