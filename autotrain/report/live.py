"""The live view on a terminal: three or four lines that stay below what else is printed."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, cast

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from autotrain.events import Evaluated, Event, Healed, Saved, Step, Stopped, Warned
from autotrain.report.lines import line
from autotrain.report.progress import Progress
from autotrain.report.stream import Tolerant
from autotrain.report.text import percent

REFRESH_SECONDS = 0.1
INDENT = "    "
STYLES: dict[type, str] = {Saved: "dim", Warned: "yellow", Healed: "yellow", Stopped: "bold"}


def terminal(out: Tolerant) -> Console:
    """A rich console on a terminal; it honours NO_COLOR and COLUMNS by itself."""
    return Console(file=cast(IO[str], out), force_terminal=True, highlight=False)


@contextmanager
def live(progress: Progress, console: Console) -> Iterator[Callable[[Event], None]]:
    """Draws on events only: no thread of its own beside loader workers that fork."""
    view = Live(
        _picture(progress, console.width),
        console=console,
        auto_refresh=False,
        redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
    )
    drawn = 0.0

    def show(event: Event) -> None:
        nonlocal drawn
        progress.see(event)
        if not isinstance(event, Step):
            console.print(_hanging(_styled(event, progress), console))
        now = time.monotonic()
        if not isinstance(event, Step) or now - drawn >= REFRESH_SECONDS:
            view.update(_picture(progress, console.width), refresh=True)
            drawn = now

    with view:
        yield show
        view.update(_picture(progress, console.width), refresh=True)


def _styled(event: Event, progress: Progress) -> Text:
    style = STYLES.get(type(event), "")
    if isinstance(event, Evaluated) and event.best:
        style = "green"
    return Text(line(event, progress) or "", style=style)


def _hanging(text: Text, console: Console) -> Text:
    """Wrapped at words, all but the first line indented: where an event begins is seen."""
    if text.cell_len <= console.width:
        return text
    lines = text.wrap(console, console.width - len(INDENT))
    return Text(f"\n{INDENT}").join(line for line in lines)


def _picture(progress: Progress, width: int) -> Group:
    head = Table.grid(padding=(0, 2), expand=True)
    head.add_column(no_wrap=True)
    head.add_column(ratio=1)
    head.add_column(no_wrap=True, justify="right")
    bar = ProgressBar(total=1.0, completed=progress.share)
    head.add_row(Text(progress.position(), style="bold"), bar, Text(percent(progress.share)))
    memory, left = progress.memory(), progress.left()
    style = "red" if progress.above() else ""
    foot = Text(memory, style=style, no_wrap=True, overflow="ellipsis")
    foot.append("   " if len(memory) + len(left) + 3 <= width else "\n").append(left, style="none")
    return Group(head, Text(progress.figures(), no_wrap=True, overflow="ellipsis"), foot)
