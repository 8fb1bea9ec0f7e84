"""What `autotrain bench` prints: what it is about, a table, notes, and a sentence of advice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import IO

from autotrain.bench import choice as choices
from autotrain.bench import data as feeds
from autotrain.bench import loop as loops
from autotrain.report.table import show_table, wrapped
from autotrain.report.text import percent, plural
from autotrain.schema import Prediction
from autotrain.units import seconds_text

SCATTER = "in brackets lie nine of ten rounds, and 3 % to each side at least"


def page(about: str, lines: Sequence[Sequence[str]], texts: Sequence[str], out: IO[str]) -> None:
    """The one look of all benches."""
    print(f"{about}\n", file=out)
    show_table(lines, out)
    sentences(texts, out)


def sentences(texts: Sequence[str], out: IO[str]) -> None:
    """Each below an empty line."""
    for text in texts:
        print("\n" + "\n".join(wrapped(text)), file=out)


def between(text: Callable[[float], str], said: Prediction | None) -> str:
    """`21.4 (20 to 23)`; one figure where there is no doubt."""
    if said is None:
        return "-"
    if said.low == said.high:
        return text(said.expected)
    return f"{text(said.expected)} ({text(said.low)} to {text(said.high)})"


def speed(value: float) -> str:
    """Samples a second, in three digits."""
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def taken(rounds: int, processes: int) -> str:
    """How measured figures came about."""
    return (
        f"measured: the median of {plural(rounds, 'round')} in {plural(processes, 'process')}, one "
        "after another, on the longest samples; in brackets lie nine of ten rounds, 3 % to each "
        "side at least, and 95 times in 100 what another call would find, by how processes differ"
    )


def disturbed(others: float | None) -> list[str]:
    """What other programs did to what was measured."""
    if others is None:
        return []
    return [
        f"warning: other programs took {percent(others)} of the cores meanwhile: what was measured "
        "is slower for it, and scatters more; measure again once they are gone"
    ]


def choice(rows: Sequence[choices.Row], about: str, others: float | None, out: IO[str]) -> None:
    """Print every way to take a step that was measured, the fastest first."""
    own = next((row for row in rows if row.chosen), None)
    lines = [["way", "", "a step", "samples a second", "beside the plan"]]
    for row in rows:
        which = "the plan's" if row.chosen else "plain" if row.plain else ""
        ratio = ""
        if own is not None:
            ratio = f"{row.samples_per_second.expected / own.samples_per_second.expected:.2f} x"
        told = between(seconds_text, row.step_seconds) if row.final else "a first look only"
        lines.append([row.said, which, told, between(speed, row.samples_per_second), ratio])
    final = [row for row in rows if row.final]
    notes = [taken(min(row.rounds for row in final), final[0].processes)] if final else []
    page(about, lines, [*notes, *disturbed(others), choices.advice(rows)], out)


def data(
    rows: Sequence[feeds.Row],
    alone: feeds.Slowest | None,
    model: float,
    about: str,
    last: Sequence[str],
    out: IO[str],
) -> None:
    """Print what so many workers read, beside the `model`'s samples a second; `last` sentences."""
    lines = [["loader.workers", "", "read a second", "trained on a second", "waiting"]]
    for row in rows:
        which = "the plan's" if row.chosen else ""
        read = between(speed, row.samples_per_second)
        lines.append([str(row.workers), which, read, speed(row.trains), percent(row.waits)])
    said = f"the model takes {speed(model)} samples a second, of the longest, where none"
    if rows:
        rounds = plural(min(row.rounds for row in rows), "round")
        reading = f"reading is the median of {rounds}, with nothing training beside it; {SCATTER}"
    else:
        reading = "how fast they are read was not measured"
    texts = [f"measured: {said} has to be read; {reading}"]
    texts += [feeds.said_of(alone)] if alone is not None else []
    page(about, lines, [*texts, *last], out)


def loop(found: loops.Added, about: str, others: float | None, out: IO[str]) -> None:
    """Print both loops, and what ours adds."""
    lines = [["loop", "a step", "beside bare", "waits for data"]]
    lines.append(
        ["bare: written by hand, torch's DataLoader", between(seconds_text, found.bare), "", ""]
    )
    more = f"{'+' if found.middle > 0 else ''}{seconds_text(found.middle)}"
    lines.append(["autotrain", between(seconds_text, found.ours), more, percent(found.waits)])
    texts = [
        f"measured: the median of {plural(found.rounds, 'round')} in which both take turns; "
        f"{SCATTER}"
    ]
    page(about, lines, [*texts, *disturbed(others), loops.advice(found)], out)
