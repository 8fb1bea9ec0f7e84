"""Randomness as a pure function of where one is, so that there is no state to lose.

Before each forward pass every generator is seeded from (seed, step, micro-batch), before each
sample from (seed, epoch, index). A resume, a retry, other workers, or a consumer of the events
that draws numbers of its own therefore change nothing, and a checkpoint holds no generator.
"""

from __future__ import annotations

import hashlib
import random
import struct
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy
import torch

BUILD, MICRO_BATCH, TRAIN_SAMPLE, VALID_SAMPLE, COLLATE, VALID_FORWARD, ORDER, REST = range(8)

# Who has not drawn at so many looks in a row, does not draw.
LOOKS = 3


def mixed(seed: int, purpose: int, *position: int) -> int:
    """63 well-mixed bits of a run's seed, what they are for, and a position."""
    words = (seed & 0xFFFFFFFFFFFFFFFF, purpose, *position)
    raw = struct.pack(f"<{len(words)}Q", *words)
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little") >> 1


def seed_cpu(value: int) -> None:
    """Seed torch's CPU generator, `random` and numpy: about 6 us."""
    torch.default_generator.manual_seed(value)
    random.seed(value)
    numpy.random.seed(value & 0xFFFFFFFF)


def seed_torch(value: int, device: torch.device) -> None:
    """Seed torch's CPU generator, and the accelerator's where one is trained on: 1 us."""
    if device.type != "cpu":
        torch.manual_seed(value)
    else:
        torch.default_generator.manual_seed(value)


def seed_all(value: int, device: torch.device) -> None:
    """`seed_cpu`, and the accelerator's generator where one is trained on."""
    if device.type != "cpu":
        torch.manual_seed(value)
    seed_cpu(value)


class Draws:
    """Seeds the generators before each forward pass: those that the model draws from.

    Seeding all costs more than the rest of what the loop does beside a small step. So at a log
    point, and before a save, each is looked at: whether the last step drew from it. One that was
    not drawn from at the first three looks is left at rest from there on, in a state that the
    run's seed alone decides, until a look finds that it was drawn from after all.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self.seed, self.device = seed, device
        self.drawn = dict.fromkeys(GENERATORS, True)
        # Looks so far that found it untouched; None: it was once drawn from.
        self.quiet: dict[str, int | None] = dict.fromkeys(GENERATORS, 0)
        self._rest: dict[str, object] = {}  # states
        self._last: dict[str, int] = {}  # what each was seeded with last
        self._every = True
        # Of one of several processes: what it did in a step says too little, so all are seeded.
        self.shared = False

    def before(self, step: int, number: int) -> None:
        """The number-th micro-batch of the step that `step` others went before is next."""
        if self._every or not self._last:
            self._seed(step, number)

    def _seed(self, step: int, number: int) -> None:
        value, first = mixed(self.seed, MICRO_BATCH, step, number), not self._last
        for name, drawn in self.drawn.items():
            if drawn or first:
                self._last[name] = value if drawn else mixed(self.seed, REST)
                GENERATORS[name].seed(self._last[name], self.device)
                if not drawn and name not in self._rest:
                    self._rest[name] = GENERATORS[name].state(self.device)

    def look(self) -> None:
        """Find out who drew from what; whatever draws between now and the next step may."""
        if self.shared:
            return
        for name, value in self._last.items():
            kind, quiet = GENERATORS[name], self.quiet[name]
            if not self.drawn[name]:
                touched = kind.state(self.device) != self._rest[name]
            elif quiet is not None:
                now = kind.state(self.device)
                kind.seed(value, self.device)
                touched = now != kind.state(self.device)
            else:
                continue
            self.quiet[name] = None if touched else (quiet or 0) + 1
            self.drawn[name] = touched or (quiet or 0) + 1 < LOOKS
        self._last, self._every = {}, any(self.drawn.values())

    def forget(self) -> None:
        """A step was broken off: what it drew so far says nothing."""
        self._last = {}

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {"drawn": {**self.drawn}, "quiet": {**self.quiet}}

    def load(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state`."""
        if self.shared:
            return
        self.drawn, self.quiet, self._last = {**state["drawn"]}, {**state["quiet"]}, {}
        self._every = any(self.drawn.values())


class _Generator(NamedTuple):
    """How one is seeded, and a copy of its state that can be compared."""

    seed: Callable[[int, torch.device], None]
    state: Callable[[torch.device], object]


def _torch_state(device: torch.device) -> object:
    states = [torch.default_generator.get_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    elif device.type == "mps":
        states.append(torch.mps.get_rng_state())
    return [state.numpy().tobytes() for state in states]


def _numpy_state(_device: torch.device) -> object:
    kept = dict(numpy.random.get_state(legacy=False))
    inner = kept["state"]
    return inner["key"].tobytes(), inner["pos"], kept["has_gauss"], kept["gauss"]


GENERATORS = {
    "torch": _Generator(seed_torch, _torch_state),
    "python": _Generator(lambda value, _: random.seed(value), lambda _: random.getstate()),
    "numpy": _Generator(lambda value, _: numpy.random.seed(value & 0xFFFFFFFF), _numpy_state),
}
