"""What was found, as a person reads it: a table, then what mends, each line to be copied."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from autotrain.doctor.checks import Finding

if TYPE_CHECKING:
    from rich.table import Table

_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}
_WIDE = 120
_SKIPPED = "not for this machine, or not asked for:"


def show(findings: Sequence[Finding], out: TextIO) -> None:
    """Print it; plainly where rich itself is not whole.

    Notes stand on lines of their own: zsh and Windows' shells take `#` for a word.
    """
    try:
        from rich.console import Console

        console = Console(file=out, width=None if out.isatty() else _WIDE, highlight=False)
        with console.capture() as drawn:
            console.print(_table(findings))
        print("\n".join(line.rstrip() for line in drawn.get().strip("\n").split("\n")), file=out)
    except ImportError:
        for theme, name, result in findings:
            print(f"{result.status:<4}  {theme}: {name}: {result.detail}", file=out)
    width = min(shutil.get_terminal_size((_WIDE, 24)).columns, _WIDE)
    if skipped := _by_theme(findings, "skip"):
        print(f"\n{textwrap.fill(f'{_SKIPPED} {skipped}', width)}", file=out)
    for (status, mend), names in _mends(findings).items():
        command, _, note = mend.partition("   # ")
        print(f"\n{textwrap.fill(f'{status}: ' + ', '.join(names), width)}", file=out)
        print(f"  {command}" + (f"\n    {note}" if note else ""), file=out)


def _mends(findings: Sequence[Finding]) -> dict[tuple[str, str], list[str]]:
    """Each command once, with what it mends; failures first."""
    found: dict[tuple[str, str], list[str]] = {}
    for status in ("fail", "warn"):
        for theme, name, result in findings:
            if result.status == status:
                label = f"the plan's {name}" if theme == "plan" else name
                found.setdefault((status, result.mend), []).append(label)
    return found


def _by_theme(findings: Sequence[Finding], status: str) -> str:
    """`gpu (driver, desktop), step (all)`."""
    parts = []
    for theme in dict.fromkeys(found.theme for found in findings):
        mine = [found for found in findings if found.theme == theme]
        names = [found.name for found in mine if found.result.status == status]
        if names:
            parts.append(f"{theme} ({'all' if len(names) == len(mine) else ', '.join(names)})")
    return ", ".join(parts)


def summary(findings: Sequence[Finding]) -> str:
    """How many there are of each."""
    counts = count(findings)
    words = [f"{counts[kind]} {kind}" for kind in ("fail", "warn", "ok", "skip") if counts[kind]]
    return f"{len(findings)} checks: {', '.join(words)}"


def count(findings: Sequence[Finding]) -> dict[str, int]:
    """How many came out in each way."""
    kinds = [found.result.status for found in findings]
    return {kind: kinds.count(kind) for kind in ("ok", "warn", "fail", "skip")}


def _table(findings: Sequence[Finding]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("", "check", "what was found"):
        table.add_column(name, overflow="fold")
    before = ""
    for theme, name, result in findings:
        if result.status == "skip":
            continue
        if theme != before:
            table.add_section()
        before = theme
        status = Text(result.status, style=_STYLES[result.status])
        table.add_row(status, Text(name), Text(result.detail))
    return table
