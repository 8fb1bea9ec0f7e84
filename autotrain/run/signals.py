"""^C and SIGTERM as a wish that the loop sees between micro-batches; the second stops at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Literal

Reason = Literal["interrupted", "terminated"]
_ASKS: dict[int, Reason] = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


class Stop:
    """A wish to stop. `reason` is None until somebody asks; the loop reads it, nobody waits."""

    def __init__(self) -> None:
        self.reason: Reason | None = None

    @contextmanager
    def catch(self) -> Iterator[Stop]:
        """Within: the first SIGINT or SIGTERM sets `reason`, a second one acts as it always does.

        SIGHUP (a dropped SSH line) is ignored where it exists. Outside the main thread Python
        delivers no signals, so nothing is caught there.
        """
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {number: signal.signal(number, self._ask) for number in _ASKS}
        if hasattr(signal, "SIGHUP"):
            before[signal.SIGHUP] = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _ask(self, number: int, _frame: FrameType | None) -> None:
        if self.reason is None:
            self.reason = _ASKS[number]
            return
        usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, usual)
        signal.raise_signal(number)


def leave_to_parent(_worker: int) -> None:
    """In a loader worker: ^C reaches the whole terminal group, but the parent decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
