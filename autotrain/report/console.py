"""Shows a run while it trains: a live view on a terminal, plain lines on anything else.

with viewer(plan) as show:
    for event in run(plan, directory):
        show(event)
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from autotrain.events import Event, Saved, Step
from autotrain.report.lines import line, notable
from autotrain.report.progress import Progress
from autotrain.report.stream import Tolerant
from autotrain.report.text import percent
from autotrain.schema import Plan

Show = Callable[[Event], None]


@contextmanager
def viewer(
    plan: Plan | None, stream: TextIO | Tolerant | None = None, *, max_steps: int | None = None
) -> Iterator[Show]:
    """A function that shows one event on `stream` (default: stderr); it never raises OSError.

    `plan`: None where it is not known. `max_steps`: where the run is to end, if before its last
    epoch. A terminal gets the live
    view, which is taken down on leaving, also by an exception.
    """
    progress = Progress(plan, max_steps)
    given = sys.stderr if stream is None else stream
    out = given if isinstance(given, Tolerant) else Tolerant(given)
    if not out.isatty() or os.environ.get("TERM") == "dumb":
        yield plain(progress, out)
        return
    from autotrain.report.live import live, terminal

    with live(progress, terminal(out)) as show:
        yield show


def plain(progress: Progress, out: Tolerant) -> Show:
    """Plain lines: the first step, then about every 5 % of the steps, and what matters between."""
    due = Due()

    def show(event: Event) -> None:
        progress.see(event)
        if isinstance(event, Step):
            if due(event.time, progress.share):
                out.line(step_line(progress))
        elif not isinstance(event, Saved) or notable(event):
            out.line(line(event, progress) or "")

    return show


def step_line(progress: Progress) -> str:
    """Position, loss, pace, memory and time left in one line."""
    return (
        f"{progress.position()} ({percent(progress.share)})  {progress.figures()}  "
        f"{progress.memory()}  {progress.left()}"
    )


class Due:
    """Whether a step deserves a line.

    The first and the last do, and each that passes a mark of 5 % (1 s apart at least); in a
    long run also one every 30 s as long as that makes no more than 100 lines, and one after
    10 minutes of silence in any case.
    """

    def __init__(self) -> None:
        self._time = float("-inf")
        self._share = 0.0

    def __call__(self, time: float, share: float) -> bool:
        """`time` in seconds, `share` of the steps that are done."""
        silent, further = time - self._time, share - self._share
        passed = int(share * 20 + 1e-9) > int(self._share * 20 + 1e-9)
        ended = share >= 1 > self._share
        slow = (silent >= 30 and further >= 0.01) or silent >= 600
        due = ended or slow or (passed and silent >= 1)
        if due:
            self._time, self._share = time, share
        return due
