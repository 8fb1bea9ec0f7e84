"""Stdout is data: what a task, a library or a loader worker prints goes to stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from typing import TextIO


@contextmanager
def data_only() -> Iterator[TextIO]:
    """Within: the stream yielded is stdout; all else that is printed to stdout meets stderr.

    The file descriptor is turned as well, for C libraries and for workers that start by spawn.
    """
    with ExitStack() as stack:
        out = stack.enter_context(_own_stdout())
        stack.enter_context(redirect_stdout(sys.stderr))
        yield out


@contextmanager
def _own_stdout() -> Iterator[TextIO]:
    """Stdout on a descriptor of its own, while the usual one leads to stderr."""
    out = sys.stdout
    out.flush()
    try:
        number, kept = out.fileno(), os.dup(out.fileno())
        os.dup2(sys.stderr.fileno(), number)
    except (OSError, ValueError):  # not files: somebody captures them in memory
        yield out
        return
    try:
        with open(os.dup(kept), "w", encoding=out.encoding, errors=out.errors) as own:
            yield own
    finally:
        os.dup2(kept, number)
        os.close(kept)
