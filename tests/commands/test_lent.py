"""The device's peak of a run on a GPU: its allocator's, and what else the driver lent."""

from dataclasses import replace

import pytest

from autotrain.commands.lent import beside

from .test_watch import a_step, started, stopped

GIB = 1 << 30


def run_of(*reserved):
    """Events of a run whose allocator had these bytes at its log points."""
    steps = [a_step(n, device_bytes=each) for n, each in enumerate(reserved, start=1)]
    return [started(), *steps, replace(stopped(len(steps)), peak_bytes=max(reserved))]


def test_what_is_lent_beside_the_allocator_is_found_once_and_added_to_its_peak():
    """Others held 1 GiB before; this process has half a GiB more than its allocator says."""
    used, events = iter([GIB + 2 * GIB + GIB // 2]), run_of(2 * GIB, 5 * GIB, 3 * GIB)
    *others, last = beside(iter(events), GIB, lambda: next(used))
    assert others == events[:-1]
    assert last.device_peak_bytes == 5 * GIB + GIB // 2


@pytest.mark.parametrize(("before", "now"), [(None, 4 * GIB), (GIB, None), (3 * GIB, 4 * GIB)])
def test_where_the_driver_does_not_tell_or_others_went_there_is_no_figure(before, now):
    """By the last of these, less is lent than the allocator alone has."""
    events = run_of(2 * GIB, 2 * GIB)
    assert [*beside(iter(events), before, lambda: now)] == events
