"""What a machine is."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, ConfigDict, Field, StrictBool

from autotrain.schema.base import (
    PROFILE_SCHEMA,
    Bytes,
    DeviceKind,
    Dtype,
    Positive,
    PositiveBytes,
    PositiveFloat,
    Record,
    Whole,
    WholeFloat,
)

# Mean hours between two interruptions of a run, by the kind of machine. Rules of ours but for
# spot, which is measured: docs/formulas.md.
INTERRUPTION_HOURS = {"laptop": 8.0, "workstation": 168.0, "server": 720.0, "spot": 2.0}


def _hours(said: Any) -> Any:
    """A kind of machine stands for its hours; anything else for itself."""
    return INTERRUPTION_HOURS.get(said, said) if isinstance(said, str) else said


# A number of hours; one of the words above is read as its number.
InterruptionHours = Annotated[PositiveFloat, BeforeValidator(_hours)]


# A kind of timing that is no operator: asking for one.
OVERHEAD = "overhead"


class Timing(NamedTuple):
    """How long one call of an operator took on so many threads (1 on a GPU). Units as in `Work`."""

    kind: str
    dtype: str
    threads: int
    flops: float
    bytes: float
    shape: tuple[int, ...]
    seconds: float


class Rates(Record):
    """What a device can do, dense: FLOP/s by dtype, bytes per second, seconds per small op.

    `timings`: operators of many kinds and sizes, timed one by one; none from a datasheet.
    `disturbed`: other programs used the device while it was measured.
    """

    matmul: dict[Dtype, PositiveFloat] = Field(min_length=1)
    convolution: dict[Dtype, PositiveFloat] = {}
    bandwidth: PositiveFloat
    op_seconds: PositiveFloat
    source: Literal["measured", "datasheet", "assumed"]
    timings: tuple[Timing, ...] = Field(default=(), repr=False)
    disturbed: StrictBool | None = None


class Neighbour(Record):
    """Another process that holds memory on a GPU."""

    pid: int
    name: str
    used_bytes: Whole


class Device(Record):
    """One thing that can train. For `cpu` the memory is the RAM this process may use."""

    kind: DeviceKind
    index: Whole = 0
    name: str
    total_bytes: PositiveBytes
    free_bytes: Bytes
    compute_capability: str | None = None
    native_dtypes: tuple[Dtype, ...]
    rates: Rates
    neighbours: tuple[Neighbour, ...] = ()


class Cpu(Record):
    """`cores` is what this process may really use: affinity and cgroup quota, at least 1."""

    name: str
    cores: Positive
    logical: Positive
    features: tuple[str, ...] = ()


class Disk(Record):
    """Where runs go. `write_bandwidth` is bytes per second through an fsync, when measured."""

    path: str
    total_bytes: Bytes
    free_bytes: Bytes
    write_bandwidth: PositiveFloat | None = None


class HardwareProfile(Record):
    """A machine: probed here (`autotrain probe`) or from a datasheet (`profiles/*.toml`).

    `price_per_hour`: what an hour of it costs, in dollars; 0 of one's own. `interruption_hours`:
    the mean time between two interruptions of a run on it, or a word for it ("spot"). `battery`:
    whether it has one; None where nobody looked.
    """

    schema_version: Literal[1] = Field(PROFILE_SCHEMA, alias="schema")
    name: str
    description: str = ""
    sources: tuple[str, ...] = ()
    system: str = "linux"
    cpu: Cpu
    ram_total_bytes: PositiveBytes
    ram_available_bytes: Bytes
    disk: Disk
    devices: tuple[Device, ...] = Field(min_length=1)
    versions: dict[str, str] = {}
    price_per_hour: WholeFloat | None = None
    interruption_hours: InterruptionHours | None = None
    battery: bool | None = None

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    @property
    def probed(self) -> bool:
        """Whether `autotrain probe` looked at it: only that knows what is installed there."""
        return bool(self.versions)

    def device(self, kind: DeviceKind, index: int = 0) -> Device | None:
        """The device of that kind and index, or None."""
        found = (d for d in self.devices if d.kind == kind and d.index == index)
        return next(found, None)
