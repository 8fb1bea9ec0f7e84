"""Randomness as a pure function of where one is, so that there is no state to lose.

Before each forward pass every generator is seeded from (seed, step, micro-batch), before each
sample from (seed, epoch, index). A resume, a retry, other workers, or a consumer of the events
that draws numbers of its own therefore change nothing, and a checkpoint holds no generator.
"""

from __future__ import annotations

import hashlib
import random
import struct

import numpy
import torch

BUILD, MICRO_BATCH, TRAIN_SAMPLE, VALID_SAMPLE, COLLATE, VALID_FORWARD, ORDER = range(7)


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


def seed_all(value: int, device: torch.device) -> None:
    """`seed_cpu`, and the accelerator's generator where one is trained on."""
    if device.type != "cpu":
        torch.manual_seed(value)
    seed_cpu(value)
