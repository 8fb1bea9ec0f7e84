"""How long a task's training samples are, as `Task.length` says without loading them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from autotrain.errors import AutotrainError
from autotrain.schema import LengthProfile
from autotrain.task import Task, user_error

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

POINTS = 1000
# Spread over the dataset: so many at least, then so many, then all, as long as it takes under
# READ_SECONDS. Beyond MOST_READ the figures alone would take hundreds of megabytes.
PASSES, READ_SECONDS, MOST_READ = (2_000, 20_000), 2.0, 20_000_000


@dataclass(frozen=True, eq=False)
class Lengths:
    """Those that were read of `count`: sample numbers and lengths, the longest first."""

    count: int
    indices: NDArray[np.int64]
    values: NDArray[np.float64]

    @property
    def longest(self) -> float:
        """The greatest length that was read."""
        return float(self.values[0])

    def up_to(self, length: float, many: int) -> list[int]:
        """The longest samples that are no longer than that; the shortest there is, if none is."""
        import numpy as np

        first = int(np.searchsorted(-self.values, -length, side="left"))
        first = min(first, len(self.values) - 1)
        found: list[int] = self.indices[first : first + many].tolist()
        return found

    def profile(self) -> LengthProfile | None:
        """What the planner needs to know of them; None where all are 0."""
        mean, read = math.fsum(self.values) / len(self.values), len(self.values)
        if mean <= 0:
            return None
        last = min(read, POINTS) - 1
        ranks = [round(i * (read - 1) / max(last, 1)) for i in range(last + 1)]
        points = tuple(float(self.values[read - 1 - rank]) for rank in ranks)
        return LengthProfile(count=self.count, read=read, mean=mean, points=points)


def read_lengths(task: Task, path: Path, count: int) -> Lengths | None:
    """Every sample's where that is quick, else a sample of them; None: the task does not say.

    Raises AutotrainError, naming the task file, where `length` fails or is no cost.
    """
    if task.length is None or count == 0:
        return None
    import numpy as np

    read, seconds = np.arange(0), 0.0
    values = np.zeros(0)
    for density in (*PASSES, count):
        stride = max(count // density, 1)
        wanted = -(-count // stride)
        if wanted <= len(read):
            continue
        guess = seconds / len(read) * wanted if len(read) else 0.0
        if guess > READ_SECONDS or wanted > MOST_READ:
            break
        begun, read = time.perf_counter(), np.arange(0, count, stride)
        values = _asked("length", task.length, read.tolist(), path)
        seconds = time.perf_counter() - begun
    order = np.argsort(-values, kind="stable")
    return Lengths(count, read[order], values[order])


def check_valid_length(task: Task, path: Path, count: int) -> None:
    """Ask it for the first and the last of `count` samples of a validation set of the task's own.

    Raises AutotrainError, naming the task file, where it fails or is no cost.
    """
    if task.valid_length is not None and count:
        _asked("valid_length", task.valid_length, sorted({0, count - 1}), path)


def _asked(
    name: str, length: Callable[[int], float], indices: Iterable[int], path: Path
) -> NDArray[np.float64]:
    import numpy as np

    found = []
    for index in indices:
        try:
            value = float(length(index))
        except Exception as error:
            raise user_error(path, error, f"{name}({index}): ") from error
        if not (math.isfinite(value) and value >= 0):
            raise AutotrainError(
                f"{path}: {name}({index}) is {value}",
                "return what that sample costs, such as its frames or tokens: 0 or more",
            )
        found.append(value)
    return np.array(found)
