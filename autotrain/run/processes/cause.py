"""What went wrong in one of several processes, told to the others as the same kind of error."""

from __future__ import annotations

from typing import NamedTuple

import torch

from autotrain.device import out_of_memory
from autotrain.errors import AutotrainError, DoesNotFitError, UsageError
from autotrain.run.healing import faults
from autotrain.run.loading.lost import LoaderDiedError, TooNarrowError
from autotrain.run.state import NotFiniteError, ScaleGoneError

AGAIN = " again"
_KINDS: dict[str, type[AutotrainError]] = {
    "LoaderDiedError": LoaderDiedError,
    "TooNarrowError": TooNarrowError,
    "NotFiniteError": NotFiniteError,
    "ScaleGoneError": ScaleGoneError,
    "DoesNotFitError": DoesNotFitError,
    "UsageError": UsageError,
}


class LostError(AutotrainError):
    """Another process is gone, and did not say why."""


class Cause(NamedTuple):
    """What went wrong in a process, as it travels to the others."""

    kind: str
    message: str
    hint: str

    @classmethod
    def of(cls, error: Exception, doing: str) -> Cause:
        """`doing`: what to name where the error says only itself."""
        if out_of_memory(error):
            return cls("memory", str(error).strip(), "")
        said = faults.explained(error, doing)
        again = AGAIN if isinstance(said, LoaderDiedError) and said.repeated else ""
        return cls(type(said).__name__ + again, said.message, said.hint)

    def error(self) -> Exception:
        """The same kind of error, so that it has the same cure everywhere."""
        if self.kind == "memory":
            return torch.OutOfMemoryError(self.message)
        if self.kind == "UsageError":
            return UsageError(*self.message.splitlines(), hint=self.hint)
        made = _KINDS.get(self.kind.removesuffix(AGAIN), AutotrainError)(self.message, self.hint)
        if isinstance(made, LoaderDiedError):
            made.repeated = self.kind.endswith(AGAIN)
        return made
