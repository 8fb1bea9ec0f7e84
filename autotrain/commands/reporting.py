"""A run's report while it goes on: written after evaluations, by a process of its own.

That process reads `events.jsonl` as anyone may. Whatever becomes of it, the run does not notice,
and if the run is killed, it finishes what it has begun: so a dead run has a report.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from autotrain import child
from autotrain.events import Evaluated, Event

# From one report's beginning to the next one's: so long at least, and so many times as long as it
# took. It takes 1 s of a core, ten where the run uses all of them, and steps a seventh longer
# meanwhile: about a hundredth of the run (docs/measurements/2026-11-20-loop.md). So long at most:
# its end is seen at the run's next event, which may come late.
PAUSE_SECONDS, PAUSES, MOST_SECONDS = 30.0, 20.0, 300.0
# It may wait for a core of its own; the run has the right of way.
NICE = 10
# At the end of a run, which writes its own report, one that is under way may tidy up for so long.
END_SECONDS = 2.0
OFF = "AUTOTRAIN_REPORTS"


class Reports:
    """`see` every event, after it was written down; `close` at the end.

    The first evaluation is reported at once, later ones as soon as the pause is over.
    """

    def __init__(self, directory: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._directory, self._clock = directory, clock
        self._begun = self._next = -float("inf")
        self._pending = False
        self._process: subprocess.Popen[bytes] | None = None
        self._off = os.environ.get(OFF) == "off"

    def see(self, event: Event) -> None:
        """Begin a report where one is due; never waits, never raises."""
        self._pending |= isinstance(event, Evaluated)
        writing = self._writing()
        if not self._pending or self._off or writing or self._clock() < self._next:
            return
        self._pending, self._begun = False, self._clock()
        try:
            self._process = start(self._directory)
        except Exception:  # no process, no memory: `autotrain report` writes it at any time
            self._off = True

    def _writing(self) -> bool:
        """Whether one is under way; where it has just ended, when the next one may begin."""
        if self._process is None or self._process.poll() is None:
            return self._process is not None
        took, self._process = self._clock() - self._begun, None
        self._next = self._begun + min(max(PAUSE_SECONDS, PAUSES * took), MOST_SECONDS)
        return False

    def close(self) -> None:
        """End a report that is under way: it would replace a newer one."""
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(subprocess.TimeoutExpired, OSError):
            process.terminate()
            process.wait(END_SECONDS)
        with suppress(Exception):
            child.end(process)


@contextmanager
def reports(directory: Path) -> Iterator[Reports]:
    """`Reports`, closed at the end whatever happens."""
    writer = Reports(directory)
    try:
        yield writer
    finally:
        writer.close()


def start(directory: Path) -> subprocess.Popen[bytes]:
    """A process that writes the report of the run in this folder, and ends."""
    return child.start(
        "autotrain.commands.reporting", subprocess.DEVNULL, subprocess.DEVNULL, str(directory)
    )


def main(directory: str) -> None:
    """What that process does."""
    from autotrain import planfile
    from autotrain.commands import report

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # leaves no half-written file
    _give_way()
    folder = Path(directory)
    report.write(planfile.load(folder / "plan.toml"), folder, folder / "plan.toml")


def _give_way() -> None:
    """The run comes first: for the cores, and where the system must end a process for memory."""
    if hasattr(os, "nice"):
        os.nice(NICE)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


if __name__ == "__main__":
    main(sys.argv[1])
