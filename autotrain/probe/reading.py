"""Samples of a dataset without the few that cannot be read: a run puts such aside, and goes on
(`heal.bad_samples`), so they end no plan and no trial either.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from autotrain.errors import AutotrainError
from autotrain.task import user_error

# Where more than this share of those asked for fail, it is the code that reads them.
_BEARS = 0.5


class Read(NamedTuple):
    """Samples by their index, in the order asked for, and why others could not be read."""

    samples: dict[int, Any]
    failed: dict[int, Exception]

    @property
    def kept(self) -> list[Any]:
        """The samples."""
        return [*self.samples.values()]

    @property
    def hopeless(self) -> tuple[int, Exception] | None:
        """The first that failed, where more than half of them did."""
        few = len(self.failed) <= _BEARS * (len(self.samples) + len(self.failed))
        return None if few else next(iter(self.failed.items()))

    def told(self, path: Path) -> list[str]:
        """Of each that failed, a line for a person."""
        return [
            f"sample {index} is left out: {explained(path, error).message}"
            for index, error in self.failed.items()
        ]


def read(dataset: Any, indices: Sequence[int]) -> Read:
    """Those samples, each once. Raises what its code raised where memory ran out."""
    found = Read({}, {})
    for index in dict.fromkeys(indices):
        try:
            found.samples[index] = dataset[index]
        except MemoryError:
            raise
        except Exception as error:
            found.failed[index] = error
    return found


def explained(path: Path, error: Exception, doing: str = "loading a sample: ") -> AutotrainError:
    """As an error that names the task file's line, and what the task's code was `doing`."""
    return error if isinstance(error, AutotrainError) else user_error(path, error, doing)
