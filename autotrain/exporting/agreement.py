"""Whether an exported model answers as the one it was made from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from autotrain.exporting.calls import Call

# Of the largest value of an answer: kernels that add up in another order differ by less.
TOLERANCE = 1e-4
Answers = Callable[[Call], list[torch.Tensor]]


class DisagreementError(Exception):
    """It answers otherwise; the message says where and by how much."""


@dataclass(frozen=True)
class Agreement:
    """How near the answers to some calls were. `share`: of the largest value of the tensor."""

    samples: tuple[int, ...]
    most: float
    share: float

    @property
    def several(self) -> bool:
        """Whether it was tried on batches of more than one size."""
        return len(set(self.samples)) > 1


def compared(calls: Sequence[Call], answers: Answers) -> Agreement:
    """Put all of the calls to it. Raises DisagreementError."""
    most = share = 0.0
    for call in calls:
        try:
            found = answers(call)
        except Exception as error:
            said = str(error).strip().partition("\n")[0]
            raise DisagreementError(f"{_of(call)} it fails: {said}") from error
        if len(found) != len(call.answer):
            raise DisagreementError(f"it answers {len(found)} tensors for {len(call.answer)}")
        for mine, wanted in zip(found, call.answer, strict=True):
            far, part = _difference(mine, wanted, call)
            most, share = max(most, far), max(share, part)
    return Agreement(tuple(call.samples for call in calls), most, share)


def _difference(mine: torch.Tensor, wanted: torch.Tensor, call: Call) -> tuple[float, float]:
    if mine.shape != wanted.shape:
        raise DisagreementError(
            f"{_of(call)} it answers {list(mine.shape)} for {list(wanted.shape)}"
        )
    if not wanted.is_floating_point():
        if not torch.equal(mine.to(wanted.dtype), wanted):
            raise DisagreementError(f"{_of(call)} it answers with other whole numbers")
        return 0.0, 0.0
    a, b = mine.double(), wanted.double()
    if not torch.equal(_endless(a), _endless(b)):
        raise DisagreementError(f"{_of(call)} other values of it are not finite")
    finite = b.isfinite()
    if not finite.any():
        return 0.0, 0.0
    most, scale = float((a - b)[finite].abs().max()), float(b[finite].abs().max())
    share = most / scale if scale else most
    if share > TOLERANCE:
        raise DisagreementError(
            f"{_of(call)} it differs by {most:.3g}, {share:.2g} of the largest value"
        )
    return most, share


def _endless(values: torch.Tensor) -> torch.Tensor:
    """0 where a value is finite; else which kind it is."""
    return values.isnan() + 2 * values.isposinf() + 4 * values.isneginf()


def _of(call: Call) -> str:
    return f"for {call.samples} samples {call.shapes}"
