"""Stdout is data: what a task, a library or a loader worker prints goes to stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from typing import TextIO


@contextmanager
def data_only(*, heard: bool = True) -> Iterator[TextIO]:
    """Within: the stream yielded is stdout; all else that is printed to stdout meets stderr.

    Or nobody, where it is not to be `heard`. The file descriptor is turned as well, for C
    libraries and for workers that start by spawn.
    """
    with ExitStack() as stack:
        other = sys.stderr if heard else stack.enter_context(open(os.devnull, "w"))
        out = stack.enter_context(_own_stdout(other))
        stack.enter_context(redirect_stdout(other))
        yield out


@contextmanager
def _own_stdout(other: TextIO) -> Iterator[TextIO]:
    """Stdout on a descriptor of its own, while the usual one leads to the other stream."""
    out = sys.stdout
    out.flush()
    try:
        number, kept = out.fileno(), os.dup(out.fileno())
        os.dup2(other.fileno(), number)
    except (OSError, ValueError):  # not files: somebody captures them in memory
        yield out
        return
    try:
        with open(os.dup(kept), "w", encoding=out.encoding, errors=out.errors) as own:
            yield own
    finally:
        os.dup2(kept, number)
        os.close(kept)
