"""This process as one of several that carry a plan out together.

Rank 0 does what `autotrain run` always does, and sends the others each run that it begins (one,
or one for each stage); they take part in it and say nothing.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from autotrain import earlier
from autotrain.commands.places import Asked, located
from autotrain.commands.streams import data_only
from autotrain.errors import AutotrainError
from autotrain.schema import Plan
from autotrain.task import load_task

if TYPE_CHECKING:
    from autotrain.foreign.weights import Foreign
    from autotrain.run.processes.ranks import Ranks

_PR_SET_PDEATHSIG = 1  # prctl.h


class Order(NamedTuple):
    """A run that rank 0 begins; `None` in its place: there is no other."""

    plan: Plan
    directory: Path
    resume: bool
    weights: Path | Foreign | None


def expected() -> bool:
    """Whether torchrun, or something like it, started this process as one of several."""
    try:
        return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ
    except ValueError:
        return False


def take_part(asked: Asked, first: Callable[[Asked], int]) -> int:
    """`first` in rank 0, and in the others what follows from it; returns the exit code.

    What fails in one process ends all, and rank 0 says why.
    """
    # torch would say from C++ what DDP may not need to do, and that others have ended.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    _end_with_parent()
    from autotrain.run.processes import joining

    ranks = joining.join()
    try:
        return _led(asked, ranks, first) if ranks.first else _following(asked, ranks)
    finally:
        joining.leave(ranks)


def _end_with_parent() -> None:
    """What started this process may be killed: SIGTERM then, as if somebody had asked (Linux)."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _led(asked: Asked, ranks: Ranks, first: Callable[[Asked], int]) -> int:
    try:
        code = first(asked._replace(ranks=ranks))
        ranks.from_first(lambda: None, "ending")
        return code
    finally:
        ranks.farewell()


def _following(asked: Asked, ranks: Ranks) -> int:
    """0 where rank 0 says how it ended."""
    from autotrain.run.processes.cause import LostError

    try:
        with data_only(heard=False):
            follow(asked, ranks)
    except LostError as lost:
        return lost.exit_code
    except AutotrainError as error:
        if not ranks.told and not ranks.leave_word(error, "outside of the training"):
            raise
        if not ranks.told:
            return error.exit_code
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        ranks.leave_word(error, "a bug in autotrain")
        raise
    ranks.farewell()
    return 0


def follow(asked: Asked, ranks: Ranks) -> None:
    """Take part in every run that rank 0 begins."""
    while (order := _received(ranks)) is not None:
        _one(order, asked, ranks)


def lead(ranks: Ranks, order: Order) -> Plan:
    """Have the others begin this run too; returns the plan as this process carries it out.

    Raises AutotrainError where one of them cannot.
    """
    from autotrain.run.processes.joining import share_of

    ranks.from_first(lambda: order, "the run cannot begin")
    with ranks.together("the run cannot begin"):
        return share_of(order.plan, ranks)


def _received(ranks: Ranks) -> Order | None:
    def nothing() -> Order | None:
        raise AssertionError("rank 0 alone makes it")

    return ranks.from_first(nothing, "the run cannot begin")


def _one(order: Order, asked: Asked, ranks: Ranks) -> None:
    from autotrain.commands.run import code_of
    from autotrain.run.loop import train
    from autotrain.run.processes.joining import share_of
    from autotrain.run.signals import Stop

    plan, folder = order.plan, asked.path.resolve().parent
    with ranks.together("the run cannot begin"):
        mine = share_of(plan, ranks)
        task_file = code_of(plan.task, folder, accept=asked.trust)
        options = earlier.filled(plan.task.options, plan.inputs.asked)
        task = load_task(task_file, located(plan.task.data, folder), options)
    with Stop().catch() as stop:
        for _ in train(
            mine, task, order.directory, task_file=task_file, resume=order.resume,
            max_steps=asked.max_steps, stop=stop, weights=order.weights, ranks=ranks,
        ):  # fmt: skip
            pass
