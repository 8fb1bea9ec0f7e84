"""A model on a device in a process of its own, which takes optimizer steps whenever it is asked to.

What goes wrong in it, be it memory that runs out, stays there, and another process on another
device can be asked in turns with it. `probe.taking` is what runs in it.
"""

from __future__ import annotations

from typing import NamedTuple

from pydantic import ValidationError

from autotrain.child import Dialogue, Silence
from autotrain.probe.child import Request
from autotrain.schema import Outcome, Positive, Record, Variant, Whole

CHILD = "autotrain.probe.taking"


class Turn(Record):
    """`steps` in one way to run the model, each of `parts` micro-batches.

    `first`: the memory that they take is looked at, from what is held now.
    """

    variant: Variant
    micro_batch: Positive
    parts: Positive
    steps: Positive
    first: bool = False


class Taken(NamedTuple):
    """Seconds of one step: to load its samples in this process, forward and backward, update."""

    load: float
    micro: float
    update: float


class Took(Record):
    """What came of a turn. `peak_bytes`: the process's RSS on a CPU; on a GPU what its allocator
    reserved, and `lent_bytes` what the driver lent to the process (None: it does not tell).
    """

    outcome: Outcome
    message: str = ""
    hint: str = ""
    steps: tuple[Taken, ...] = ()
    peak_bytes: Whole = 0
    lent_bytes: Whole | None = None


class Turns:
    """The process, which starts at once and is there until `end`. `begun`: how that went.

    `wait_seconds`: how long it may take to load what a run loads, and to build the model.
    `most_bytes`: the RAM that it may hold.
    """

    def __init__(self, request: Request, *, wait_seconds: float, most_bytes: int | None) -> None:
        self._most_bytes = most_bytes
        self.over = False
        self._dialogue = Dialogue(CHILD)
        self.begun = self._asked(request, wait_seconds)
        self.over = self.begun.outcome != "ok"

    def take(self, turn: Turn, *, seconds: float) -> Took:
        """A turn, stopped after `seconds`. Where it is `over`, the process takes no more."""
        return self._asked(turn, seconds)

    def end(self) -> None:
        """The process is gone when this returns."""
        self._dialogue.end()

    def _asked(self, record: Record, seconds: float) -> Took:
        line = record.model_dump_json(by_alias=True).encode()
        said = self._dialogue.ask(line, seconds=seconds, most_bytes=self._most_bytes)
        if isinstance(said, Silence):
            self.over = True
            return Took(outcome=said.outcome, message=said.message, peak_bytes=said.peak)
        try:
            return Took.model_validate_json(said)
        except ValidationError:
            self.over = True
            return Took(outcome="failed", message="it answered what makes no sense")
