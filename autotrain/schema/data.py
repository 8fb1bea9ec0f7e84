"""What a dataset holds."""

from __future__ import annotations

from typing import Literal

from autotrain.schema.base import Record, Scalar, Whole


class Percentiles(Record):
    """Of a per-sample quantity; `unit` says which (`frames`, `seconds`, `pixels`, ...)."""

    unit: str
    minimum: float
    p50: float
    p95: float
    maximum: float


class Fault(Record):
    """Something wrong with one file of the data, named."""

    path: str
    problem: str


class DatasetProfile(Record):
    """What a dataset holds. `sample_*` describe one training sample as the loader sees it."""

    kind: Literal["images", "speech", "features", "table", "task"]
    root: str | None = None
    took_for: str = ""
    count: Whole
    classes: dict[str, int] = {}
    bytes: Whole = 0
    length: Percentiles | None = None
    facts: dict[str, Scalar] = {}
    faults: tuple[Fault, ...] = ()
    fingerprint: str
