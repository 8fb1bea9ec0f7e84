"""`autotrain predict`: a trained model's answer to each input, by the task's own `predict`."""

from __future__ import annotations

import io
import itertools
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from autotrain.commands.opened import Opened, Wanted, explained, open_run
from autotrain.commands.streams import data_only
from autotrain.errors import AutotrainError, UsageError
from autotrain.report.document import finite
from autotrain.report.text import clean, literal, number

if TYPE_CHECKING:
    from autotrain.run.trained import Trained

STDIN = "-"
_EXIT = {"interrupted": 130, "terminated": 143}
_STRANGE = re.compile(r"[^\w.-]+")
_LONGEST = 40  # characters of an input in its folder's name
_HOW = (
    "add a function `predict(model, given, out)` to the task file and pass it on: "
    "Task(..., predict=predict); docs/own-model.md has one"
)


class Asked(NamedTuple):
    """The command line: the inputs as typed, and where files go (None: into the run's folder)."""

    inputs: Sequence[str]
    output: str | None
    as_json: bool


def predict(wanted: Wanted, asked: Asked) -> int:
    """Print an answer a line; 1 where there was an input that could not be answered."""
    inputs = _inputs(asked.inputs)
    with data_only() as out:
        opened = open_run(wanted)
        if opened.task.predict is None:
            raise AutotrainError(f"{opened.task_file}: the task does not say how to predict", _HOW)
        from autotrain.device import capped, settings

        with settings(opened.plan), capped(opened.plan):
            place = _place(opened, asked.output)
            answers = _Answers(opened.load(), opened, place)
            return _all(inputs, answers, out, as_json=asked.as_json)


def _all(inputs: Iterator[str], answers: _Answers, out: TextIO, *, as_json: bool) -> int:
    from autotrain.run.signals import Stop

    count = refused = 0
    for given in inputs:  # stdin is waited for without a handler: there, ^C ends it at once
        with Stop().catch() as stop:
            count += 1
            refused += not _one(given, answers, out, as_json=as_json)
        if stop.reason is not None:
            return _EXIT[stop.reason]
    if not count:
        raise UsageError("no input", hint="name files, folders or texts, or pipe a text a line in")
    if refused:
        print(f"{refused} of {count} inputs could not be answered", file=sys.stderr)
    print(literal("next", f"autotrain export {answers.opened.command} --to onnx"), file=sys.stderr)
    return 1 if refused else 0


def _one(given: str, answers: _Answers, out: TextIO, *, as_json: bool) -> bool:
    """Print the answer, or why there is none; whether there was one."""
    try:
        answer = answers.of(given)
    except AutotrainError as error:
        said = error.message if given in error.message else f"{given}: {error.message}"
        hint = f" ({error.hint})" if error.hint else ""
        print(f"error: {clean(said + hint)}", file=sys.stderr)
        if as_json:
            print(json.dumps({"input": given, "error": error.message}), file=out, flush=True)
        return False
    print(_line(given, answer, as_json=as_json), file=out, flush=True)
    return True


def _line(given: str, answer: dict[str, Any], *, as_json: bool) -> str:
    if as_json:
        return json.dumps({"input": given, **answer})
    said = "  ".join(f"{clean(key)} {_said(value)}" for key, value in answer.items())
    return f"{clean(given)}\t{said}"


def _said(value: Any) -> str:
    """An answer's part as a person reads it."""
    if isinstance(value, float):
        return number(value)
    return clean(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _inputs(given: Sequence[str]) -> Iterator[str]:
    """What each word means: the files of a folder, the lines of stdin for `-`, or itself.

    Without a word, the lines of stdin where something is piped in.
    """
    if not given and not sys.stdin.isatty():
        given = [STDIN]
    for word in given:
        if word == STDIN:
            if isinstance(sys.stdin, io.TextIOWrapper):
                sys.stdin.reconfigure(encoding="utf-8", errors="replace")
            yield from (line.rstrip("\r\n") for line in sys.stdin if line.strip())
        else:
            yield from _files(word) or [word]


def _files(word: str) -> list[str]:
    """The files below a folder, hidden ones left out; none of what is no folder."""
    if not os.path.isdir(word):  # a long text is no name of anything, and Path says so by an error
        return []
    folder = Path(word)
    return sorted(
        str(path)
        for path in folder.rglob("*")
        if path.is_file() and not any(p.startswith(".") for p in path.relative_to(folder).parts)
    )


def _place(opened: Opened, output: str | None) -> Path:
    """The folder in which each input gets one of its own. Raises AutotrainError."""
    place = opened.place / "predictions" if output is None else Path(output)
    if place.exists() and not place.is_dir():
        raise AutotrainError(f"{place}: not a folder", "-o names the folder for what is written")
    return place


class _Answers:
    """Asks the task's `predict`, one input after the other."""

    def __init__(self, trained: Trained, opened: Opened, place: Path) -> None:
        self.trained, self.opened, self.place = trained, opened, place
        self.was_there = place.exists()

    def of(self, given: str) -> dict[str, Any]:
        """The answer, JSON-able. Raises AutotrainError: it names the input's own fault.

        What was written for an input that is refused is taken away again.
        """
        folder = self._folder(given)
        try:
            answer = self._asked(given, folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            with suppress(OSError):  # one that holds anything stays
                if folder.exists():
                    folder.rmdir()
                if not self.was_there:
                    self.place.rmdir()
        return answer

    def _asked(self, given: str, folder: Path) -> dict[str, Any]:
        import torch

        from autotrain.run.seeds import VALID_FORWARD, mixed, seed_all

        trained, function = self.trained, self.trained.task.predict
        assert function is not None
        # The same for each: an answer depends on its input, not on what was asked before.
        seed_all(mixed(trained.plan.run.seed, VALID_FORWARD, 0), trained.device)
        try:
            with torch.no_grad(), trained.precision.autocast():
                answer = function(trained.model, given, folder)
        except Exception as error:
            raise _refusal(error, self.opened) from error
        if not isinstance(answer, dict):
            raise AutotrainError(
                f"the task's predict returned {type(answer).__name__}, not a dict", _HOW
            )
        try:
            checked: dict[str, Any] = json.loads(json.dumps(finite(answer)))
        except (TypeError, ValueError) as error:
            raise AutotrainError(
                f"the task's predict: {error}", "numbers, texts, lists and dicts: float(tensor)"
            ) from None
        return checked

    def _folder(self, given: str) -> Path:
        """A new folder, named after the input."""
        stem = _STRANGE.sub("-", Path(given).stem if "/" in given or "." in given else given)
        name = stem[:_LONGEST].strip("-.") or "input"
        numbered = (name if n == 1 else f"{name}-{n}" for n in itertools.count(1))
        for each in numbered:
            folder = self.place / each
            try:
                self.place.mkdir(parents=True, exist_ok=True)
                folder.mkdir()
                return folder
            except FileExistsError:
                continue
            except OSError as error:
                raise AutotrainError(
                    f"{folder}: {error.strerror}", "-o FOLDER: one that can be written"
                ) from None
        raise AssertionError("counting ends nowhere")


def _refusal(error: Exception, opened: Opened) -> AutotrainError:
    """Why an input has no answer: by the line of the task's own code where there is one."""
    from autotrain.device import out_of_memory
    from autotrain.task import user_error

    if isinstance(error, AutotrainError):
        return error
    if isinstance(error, OSError) and error.strerror:
        return AutotrainError(f"{error.filename or 'the system'}: {error.strerror}")
    if out_of_memory(error):
        return explained(error, "predicting")
    return user_error(opened.task_file, error)
