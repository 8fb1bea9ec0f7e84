"""What every record of the schema is made of: constrained numbers, names, an interval."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from autotrain.units import SIZES, bytes_from

PLAN_SCHEMA: Literal[1] = 1
PROFILE_SCHEMA: Literal[1] = 1

Dtype = Literal["fp32", "tf32", "bf16", "fp16"]
DeviceKind = Literal["cpu", "cuda", "rocm", "mps"]
# Torch serves both through `torch.cuda`: the same caching allocator, the same pinned memory.
CUDA_LIKE: tuple[DeviceKind, ...] = ("cuda", "rocm")
Kind = Literal["fixed", "rule", "measured", "user"]
OptimizerName = Literal[
    "adamw", "adam", "sgd", "rmsprop", "adagrad", "adadelta", "adamax", "nadam", "radam", "rprop"
]
Scalar = bool | int | float | str

# Strict: in a file that people edit, `true` is no 1 and "8" is no 8. A whole number is a float.
Number = Annotated[float, Field(strict=True)]
Positive = Annotated[int, Field(ge=1, strict=True)]
Whole = Annotated[int, Field(ge=0, strict=True)]
PositiveFloat = Annotated[float, Field(gt=0, strict=True)]
WholeFloat = Annotated[float, Field(ge=0, strict=True)]
Share = Annotated[float, Field(gt=0, le=1, strict=True)]


def _sized(said: Any) -> Any:
    """A size as people write it, in bytes; what is no text stays. Raises ValueError."""
    if not isinstance(said, str):
        return said
    size = bytes_from(said)
    if size is None:
        raise ValueError(f"should be {SIZES}")
    return size


# Bytes in a file or a setting that people write: a number, or text with its unit.
Bytes = Annotated[Whole, BeforeValidator(_sized)]
PositiveBytes = Annotated[Positive, BeforeValidator(_sized)]


class Record(BaseModel):
    """Base of every type here: immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def digest(self) -> str:
        """SHA-256 of the canonical JSON: equal for equal content."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


class Prediction(Record):
    """An interval: 95 % of measured cases are to fall between `low` and `high`."""

    low: WholeFloat
    expected: WholeFloat
    high: WholeFloat

    @classmethod
    def around(cls, low: float, expected: float, high: float) -> Prediction:
        """These three."""
        return cls(low=low, expected=expected, high=high)

    def plus(self, more: float) -> Prediction:
        """The same, and so much more."""
        return Prediction(low=self.low + more, expected=self.expected + more, high=self.high + more)
