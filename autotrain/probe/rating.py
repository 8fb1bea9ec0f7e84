"""Rates measured in a process of their own: what it loads and frees must not colour a plan.

`python -m autotrain.probe.rating`: a Wanted on stdin, Rates on stdout.
"""

from __future__ import annotations

from collections.abc import Sequence

from autotrain.probe.child import ask
from autotrain.schema import DeviceKind, Dtype, Rates, Record

# Loading torch, the first call of every kernel, and a machine that has other things to do.
PATIENCE, LOADING_SECONDS = 10.0, 60.0


class Wanted(Record):
    """What to measure, as `rates.measure` takes it."""

    kind: DeviceKind
    index: int
    dtypes: tuple[Dtype, ...]
    threads: int
    seconds: float


def measure(
    kind: DeviceKind, index: int, dtypes: Sequence[Dtype], threads: int, seconds: float
) -> Rates:
    """`rates.measure` in a child process. RuntimeError where the device refuses."""
    wanted = Wanted(kind=kind, index=index, dtypes=tuple(dtypes), threads=threads, seconds=seconds)
    most = LOADING_SECONDS + PATIENCE * seconds
    said = ask("autotrain.probe.rating", wanted, Rates, seconds=most)
    if isinstance(said, Rates):
        return said
    raise RuntimeError(said.message)


def _measured(line: bytes) -> Rates:
    from autotrain.probe import rates

    wanted = Wanted.model_validate_json(line)
    return rates.measure(wanted.kind, wanted.index, wanted.dtypes, wanted.threads, wanted.seconds)


def main() -> None:
    """Read what is wanted, measure, answer."""
    from autotrain.probe.trial import serve

    serve(_measured)


if __name__ == "__main__":
    main()
