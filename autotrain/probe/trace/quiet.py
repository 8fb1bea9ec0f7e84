"""A trace leaves no mark: on random generators, on the log, on compiled code, on autograd."""

from __future__ import annotations

import gc
import logging
import random
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch

_TORCH_LOG = "torch._subclasses.fake_tensor"  # prints a traceback of what we say in one line


@contextmanager
def undisturbed() -> Iterator[None]:
    """Tracing leaves the random generators as they were, and torch says no more than we do.

    The generators start the same each time: layers that are dropped by chance are dropped in
    every trace. What somebody compiles is not: its operators are to be seen. What is there
    already is no garbage of ours: `gc.collect` after each phase passes over it.
    """
    python, numpy = random.getstate(), np.random.get_state()
    logger = logging.getLogger(_TORCH_LOG)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    _begin_autograd()
    gc.freeze()
    try:
        with torch.random.fork_rng(devices=[]), _uncompiled(), warnings.catch_warnings():
            # A layer that is copied while it is fake (nn.TransformerEncoder) makes torch say this.
            warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")
            random.seed(0)
            np.random.seed(0)
            torch.default_generator.manual_seed(0)
            yield
    finally:
        gc.unfreeze()
        logger.setLevel(level)
        random.setstate(python)
        np.random.set_state(numpy)


def _begin_autograd() -> None:
    """Its first backward pass starts a thread for each device there is, and fake mode adds eight.

    With such threads, torch refuses a backward pass in every process forked afterwards.
    """
    torch.ones((), requires_grad=True).backward()  # type: ignore[no-untyped-call]


@contextmanager
def _uncompiled() -> Iterator[None]:
    with ExitStack() as stack:
        if "torch._dynamo" in sys.modules:
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield
