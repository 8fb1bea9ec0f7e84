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
    point, and before an evaluation, each is looked at: whether the last step drew from it. One
    that was not drawn from at the first three looks is left at rest from there on, in a state
    that the run's seed alone decides, until a look finds that it was drawn from after all.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self.seed, self.device = seed, device
        self.drawn = dict.fromkeys(GENERATORS, True)
        # Looks so far that found it untouched; None: it was once drawn from.
        self.quiet: dict[str, int | None] = dict.fromkeys(GENERATORS, 0)
        self._last: dict[str, int] = {}  # what each was seeded with last, since the last look
        self._kept: dict[str, Any] | None = None  # what was saved; they are to be put there
        self._every = True
        # Of one of several processes: what it did in a step says too little, so all are seeded.
        self.shared = False

    def before(self, step: int, number: int) -> None:
        """The number-th micro-batch of the step that `step` others went before is next."""
        if self._kept is not None:
            self._put_back()
        if self._every or not self._last:
            self._seed(step, number)

    def _seed(self, step: int, number: int) -> None:
        value, first = mixed(self.seed, MICRO_BATCH, step, number), not self._last
        for name, drawn in self.drawn.items():
            if drawn or first:
                self._last[name] = value if drawn else mixed(self.seed, REST)
                GENERATORS[name].seed(self._last[name], self.device)

    def look(self) -> None:
        """Find out who drew from what; whatever draws between now and the next step may."""
        if self.shared:
            return
        for name in self._touched():
            self.drawn[name], self.quiet[name] = True, None
        for name in self._last:
            quiet = self.quiet[name]
            if quiet is not None:
                self.quiet[name] = quiet + 1
                self.drawn[name] = quiet + 1 < LOOKS
        self._last, self._every = {}, any(self.drawn.values())

    def _touched(self) -> dict[str, object]:
        """Of those of which a look is to tell, the states of those that were drawn from."""
        if self._kept is not None:
            self._put_back()
        found: dict[str, object] = {}
        for name, value in self._last.items():
            if self.drawn[name] and self.quiet[name] is None:
                continue
            now = GENERATORS[name].state(self.device)
            GENERATORS[name].seed(value, self.device)
            if now != GENERATORS[name].state(self.device):
                found[name] = now
        return found

    def forget(self) -> None:
        """A step was broken off: what it drew so far says nothing."""
        self._last, self._kept = {}, None

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it. The run itself goes on from it too (see `load`).

        A generator that is at rest is in no state that a position would tell, once it was drawn
        from; so then, until a look has found it, the state is kept.
        """
        if self._kept is None:
            states = {} if self.shared else self._touched()
            last = {} if self.shared else {**self._last}
            self._kept = {"drawn": {**self.drawn}, "quiet": {**self.quiet}}
            self._kept |= {"last": last, "states": states}
        return self._kept

    def unsettled(self) -> bool:
        """Whether one that is at rest was drawn from since the last look.

        Until the next look a broken-off step cannot be taken again with the same numbers.
        """
        at_rest = {name for name, drawn in self.drawn.items() if not drawn}
        return bool(at_rest) and not at_rest.isdisjoint(self.state()["states"])

    def load(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state`. Raises ValueError where a generator knows no such state."""
        if self.shared:
            return
        self.drawn, self.quiet = {**state["drawn"]}, {**state["quiet"]}
        self._last, self._kept = {**state.get("last", {})}, {**state}
        self._every = any(self.drawn.values())
        try:
            self._put_back()
        except (RuntimeError, ValueError, OverflowError, struct.error) as error:
            raise ValueError(f"draws: {error}") from error
        self._kept = {**state}  # and once more, before the next step

    def _put_back(self) -> None:
        """The generators are as they were when `state` was asked, whoever drew since."""
        assert self._kept is not None
        states, self._kept = self._kept.get("states", {}), None
        for name, value in self._last.items():
            GENERATORS[name].seed(value, self.device)
            if name in states:
                GENERATORS[name].put(states[name], self.device)


class _Generator(NamedTuple):
    """How one is seeded; a copy of its state, as JSON; how it is put into that."""

    seed: Callable[[int, torch.device], None]
    state: Callable[[torch.device], object]
    put: Callable[[Any, torch.device], None]


def _torch_state(device: torch.device) -> object:
    states = [torch.default_generator.get_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    elif device.type == "mps":
        states.append(torch.mps.get_rng_state())
    return [state.numpy().tobytes().hex() for state in states]


def _torch_put(state: Any, device: torch.device) -> None:
    own, *there = (torch.tensor([*bytes.fromhex(each)], dtype=torch.uint8) for each in state)
    torch.default_generator.set_state(own)
    if there and device.type == "cuda":
        torch.cuda.set_rng_state(there[0], device)
    elif there and device.type == "mps":
        torch.mps.set_rng_state(there[0])


def _python_state(_device: torch.device) -> object:
    version, words, gauss = random.getstate()
    return [version, struct.pack(f"<{len(words)}I", *words).hex(), gauss]


def _python_put(state: Any, _device: torch.device) -> None:
    version, words, gauss = state
    raw = bytes.fromhex(words)
    random.setstate((version, struct.unpack(f"<{len(raw) // 4}I", raw), gauss))


def _numpy_state(_device: torch.device) -> object:
    kept = dict(numpy.random.get_state(legacy=False))
    inner = kept["state"]
    return [
        inner["key"].astype("<u4").tobytes().hex(),
        inner["pos"],
        kept["has_gauss"],
        kept["gauss"],
    ]


def _numpy_put(state: Any, _device: torch.device) -> None:
    raw, place, *gauss = state
    key = numpy.frombuffer(bytes.fromhex(raw), "<u4")
    if not 0 <= place <= len(key):  # numpy would read on behind them
        raise ValueError(f"place {place} among {len(key)} numbers")
    numpy.random.set_state(("MT19937", key, place, *gauss))


GENERATORS = {
    "torch": _Generator(seed_torch, _torch_state, _torch_put),
    "python": _Generator(lambda value, _: random.seed(value), _python_state, _python_put),
    "numpy": _Generator(
        lambda value, _: numpy.random.seed(value & 0xFFFFFFFF), _numpy_state, _numpy_put
    ),
}
