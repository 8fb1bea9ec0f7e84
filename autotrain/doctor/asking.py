"""Whatever may crash or hang is done in another process, which says one thing after the other.

Who dies of a question is known by it, and those behind it are asked anew.
"""

from __future__ import annotations

import json
import queue
import subprocess
import threading
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from autotrain import offspring
from autotrain.doctor.asked import MARK

MODULE = "autotrain.doctor.asked"
# To import torch takes a second or two, from a cold network disk most of a minute.
SECONDS = 60.0
_SAID_LINES = 30
_SIGNALS = {
    4: "an illegal instruction",
    6: "an abort",
    7: "a bus error",
    8: "an arithmetic fault",
    9: "SIGKILL: memory ran out, or somebody ended it",
    11: "a segmentation fault",
}


class NoAnswerError(Exception):
    """A question was not answered; the text says why."""


class Asked:
    """Answers by question. `begin` starts asking; `answer` waits until one is there."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._answers: dict[str, dict[str, Any]] = {}
        self._there: dict[str, threading.Event] = {}
        self._process: set[subprocess.Popen[bytes]] = set()
        self.waited_for = False  # somebody waits for an answer just now

    def begin(self, *questions: str, needed: str = "") -> None:
        """Ask these, one after the other, while this process goes on.

        Without an answer to the one that is `needed` none behind it is asked.
        """
        for name in questions:
            self._there[name] = threading.Event()
        work = threading.Thread(target=self._ask_all, args=(questions, needed), daemon=True)
        try:
            work.start()
        except RuntimeError:  # the system starts no more threads
            self._ask_all(questions, needed)

    def answer(self, question: str) -> dict[str, Any]:
        """What came of it. Raises NoAnswerError."""
        if question not in self._there:
            self.begin(question)
        self.waited_for = True
        try:
            self._there[question].wait()
        finally:
            self.waited_for = False
        said = self._answers[question]
        if "problem" in said:
            raise NoAnswerError(said["problem"])
        return said

    def close(self) -> None:
        """End whoever is still being asked."""
        for process in list(self._process):
            offspring.end(process)

    def _ask_all(self, questions: Iterable[str], needed: str) -> None:
        left = list(questions)
        while left:
            try:
                answered, why = self._ask(left)
            except Exception as error:
                self._give_up(left, f"no other process can be asked: {error}")
                return
            first, left = left[answered:][:1], left[answered + 1 :]
            self._give_up(first, why)
            if first == [needed]:
                self._give_up(left, why)
                return

    def _give_up(self, questions: list[str], why: str) -> None:
        for name in questions:
            self._keep(name, {"problem": why})

    def _ask(self, questions: list[str]) -> tuple[int, str]:
        """How many were answered, and what ended it before the next."""
        process = offspring.start(MODULE, subprocess.PIPE, subprocess.STDOUT)
        self._process.add(process)
        said: list[str] = []
        answered, hung = 0, False
        try:
            assert process.stdin is not None
            with suppress(BrokenPipeError):
                process.stdin.write(f"{json.dumps(questions)}\n".encode())
                process.stdin.flush()
            lines = _lines(process)
            while answered < len(questions) and not hung:
                line = _next(lines, self._seconds)
                hung = line is None
                if not line:
                    break
                if line.startswith(MARK):
                    self._keep(questions[answered], json.loads(line.removeprefix(MARK)))
                    answered += 1
                    said.clear()
                else:
                    said.append(line.strip())
            if not hung and answered < len(questions):
                with suppress(subprocess.TimeoutExpired):
                    process.wait(5)
            code = process.poll()
        finally:
            offspring.end(process)
            self._process.discard(process)
        return answered, _why(code, said, self._seconds)

    def _keep(self, question: str, said: dict[str, Any]) -> None:
        self._answers[question] = said
        self._there[question].set()


def _lines(process: subprocess.Popen[bytes]) -> queue.SimpleQueue[str]:
    """What it says, line by line; an empty one where it has ended."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        assert process.stdout is not None
        with process.stdout, suppress(OSError, ValueError):
            for line in process.stdout:
                lines.put(line.decode(errors="replace"))
        lines.put("")

    threading.Thread(target=read, daemon=True).start()
    return lines


def _next(lines: queue.SimpleQueue[str], seconds: float) -> str | None:
    """The next line; None where none comes for so long."""
    try:
        return lines.get(timeout=seconds)
    except queue.Empty:
        return None


def _why(code: int | None, said: list[str], seconds: float) -> str:
    """How the process ended, and the last that it said."""
    if code is None:
        return f"no answer within {seconds:g} s"
    how = _SIGNALS.get(-code, f"signal {-code}") if code < 0 else f"exit code {code}"
    words = [line for line in said[-_SAID_LINES:] if line]
    return f"the process ended with {how}" + (f": {words[-1]}" if words else "")
