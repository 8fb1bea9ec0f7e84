"""^C and SIGTERM as a wish that the loop sees between micro-batches; the second stops at once.

SIGUSR1 is a wish for a checkpoint, which the loop sees between steps.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from types import FrameType
from typing import Literal

Reason = Literal["interrupted", "terminated"]
_ASKS: dict[int, Reason] = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}

# SIGTERMs within so many seconds are one: a supervisor's to all processes reaches each from the one
# that started it too, and Linux tells of a parent's end once for each of its threads.
AT_ONCE = 1.0


# While a process is started: second signals that wait for that.
_WAITING: list[list[int]] = []


@contextmanager
def starting() -> Iterator[None]:
    """Within, a process is started: a second signal waits for that, and ^C spares the new one.

    Raised in the middle of a fork it would be printed and lost; a process that imports torch before
    it comes to `leave_to_parent` would print where it was.
    """
    blocks = hasattr(signal, "pthread_sigmask")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if blocks else set()
    _WAITING.append([])
    try:
        yield
    finally:
        waiting = _WAITING.pop()
        if blocks:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for number in waiting[:1]:
            signal.raise_signal(number)


class Stop:
    """A wish to stop. `reason` is None until somebody asks; the loop reads it, nobody waits.

    `save`: somebody asked for a checkpoint, and has none yet. `woken`: the process had been
    suspended, and goes on.
    """

    def __init__(self) -> None:
        self.reason: Reason | None = None
        self.save = self.woken = False
        self._asked = 0.0

    @contextmanager
    def catch(self) -> Iterator[Stop]:
        """Within: the first SIGINT or SIGTERM sets `reason`, a second one acts as it always does.

        A SIGTERM right after one is no second one.

        SIGUSR1 sets `save`. SIGHUP (a dropped SSH line) is ignored where it exists. Outside the
        main thread Python delivers no signals, so nothing is caught there.
        """
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {number: signal.signal(number, self._ask) for number in _ASKS}
        if hasattr(signal, "SIGHUP"):
            before[signal.SIGHUP] = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        if hasattr(signal, "SIGUSR1"):
            before[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, self._ask_save)
        if hasattr(signal, "SIGCONT"):
            before[signal.SIGCONT] = signal.signal(signal.SIGCONT, self._wake)
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _ask_save(self, _number: int, _frame: FrameType | None) -> None:
        self.save = True

    def _wake(self, _number: int, _frame: FrameType | None) -> None:
        self.woken = True

    def _ask(self, number: int, _frame: FrameType | None) -> None:
        if self.reason is None:
            self.reason, self._asked = _ASKS[number], monotonic()
            return
        if number == signal.SIGTERM and monotonic() - self._asked < AT_ONCE:
            return
        if _WAITING:
            _WAITING[-1].append(number)
            return
        usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, usual)
        signal.raise_signal(number)


def outlive_line() -> None:
    """From here to its end this process ignores SIGHUP: a dropped SSH line, a closed terminal."""
    if hasattr(signal, "SIGHUP") and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


def leave_to_parent(_worker: int) -> None:
    """In a loader worker: ^C reaches the whole terminal group, but the parent decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    outlive_line()
