"""What became of a measurement: told to a person who waits, or an error."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TypeVar

from autotrain.bench.rounds import Tally, Way
from autotrain.child import Silence
from autotrain.errors import AutotrainError, DoesNotFitError

if TYPE_CHECKING:
    from autotrain.bench.feeding import Fed
    from autotrain.bench.looping import Looped

Answer = TypeVar("Answer", "Fed", "Looped")


def insist(tally: Tally, way: Way) -> None:
    """Raise AutotrainError where not even that way works; DoesNotFitError where memory ran out."""
    lost = tally.lost.get(way)
    if lost is not None:
        kind = DoesNotFitError if lost.outcome == "out_of_memory" else AutotrainError
        raise kind(f"in the bench: {lost.message}", lost.hint)


def answered(said: Answer | Silence) -> Answer:
    """What a child measured. Raises AutotrainError, DoesNotFitError where memory ran out."""
    if isinstance(said, Silence) or said.outcome != "ok":
        kind = DoesNotFitError if said.outcome == "out_of_memory" else AutotrainError
        raise kind(f"in the bench: {said.message}", getattr(said, "hint", ""))
    return said


def stopped(*, something: bool) -> int:
    """The last word after an interrupt, and the exit code."""
    said = "what was measured until then is above" if something else "nothing had been measured yet"
    print(f"\nstopped: {said}", file=sys.stderr)
    return 130


def progress(text: str) -> None:
    """For a person who waits."""
    print(text, file=sys.stderr, flush=True)
