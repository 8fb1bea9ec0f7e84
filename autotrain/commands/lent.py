"""What a GPU's driver lends a run, with its context and libraries, which no allocator counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache

from autotrain.device import device_of
from autotrain.events import Event, Step, Stopped
from autotrain.schema import CUDA_LIKE, Plan

Used = Callable[[], int | None]


def told(events: Iterator[Event], plan: Plan) -> Iterator[Event]:
    """A run's events; the last one says the device's peak, where the driver tells."""
    if plan.device.kind not in CUDA_LIKE:
        return events
    from autotrain.probe.trial import used_bytes_of

    device = device_of(plan.device)
    return beside(events, _before(str(device)), lambda: used_bytes_of(device))


@cache
def _before(name: str) -> int | None:
    """Bytes in use before this process was known to the driver; None where it is already.

    Of several stages in one process, all are held against this.
    """
    import torch

    from autotrain.probe.trial import used_bytes_of

    known = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return None if known else used_bytes_of(torch.device(name))


def beside(events: Iterator[Event], before: int | None, used: Used) -> Iterator[Event]:
    """The same of bytes that are in use by everyone.

    What is lent beside the allocator is looked at once, at the first log point: the longer a run
    goes on, the more others may have come and gone.
    """
    more: int | None = None
    for event in events:
        if isinstance(event, Step) and before is not None:
            now = used()
            more = None if now is None else now - before - event.device_bytes
            before = None
        # Less than nothing: others have gone meanwhile.
        if isinstance(event, Stopped) and event.peak_bytes and more is not None and more >= 0:
            yield replace(event, device_peak_bytes=event.peak_bytes + more)
        else:
            yield event
