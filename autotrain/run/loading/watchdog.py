"""A thread that looks whether the training process itself is stuck at one sample."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress

LOOKS = 4


class Watchdog:
    """Tells once, with the stack of the thread that made it, that nothing moved for `seconds`.

    Between `begun` and `ended`, `at[0]` moves along. Both cost a step no more than an assignment.
    """

    def __init__(self, seconds: float, at: Sequence[int], tell: Callable[[str], None]) -> None:
        self._seconds, self._at, self._tell = seconds, at, tell
        self._watched = threading.get_ident()
        self._visit, self._busy = 0, False
        self._over = threading.Event()
        with suppress(RuntimeError):  # no more threads: nobody looks
            threading.Thread(target=self._look, name="watchdog", daemon=True).start()

    def begun(self) -> None:
        """From here on something should move."""
        self._visit += 1
        self._busy = True

    def ended(self) -> None:
        """Nothing need move any more."""
        self._busy = False

    def close(self) -> None:
        """End the thread, soon."""
        self._over.set()

    def _look(self) -> None:
        before, still = (0, 0), 0  # looks, not seconds: a process that is suspended does not look
        while not self._over.wait(self._seconds / LOOKS):
            now = self._visit, self._at[0]
            still = still + 1 if self._busy and now == before else 0
            before = now
            if still >= LOOKS:
                frame = sys._current_frames().get(self._watched)
                self._tell("".join(traceback.format_stack(frame)))
                return
