"""What a run came to, from its events."""

import pytest
from plans import a_plan, a_step, started, stopped

from autotrain.report.result import collect


def test_on_a_gpu_the_logged_bytes_are_the_allocators():
    """They are held against the reserved peak; what the process took is not known."""
    events = [started(), a_step(10), stopped(10, tensor_peak_bytes=7)]
    plan = a_plan(device={"kind": "cuda"})
    found = collect(events, plan)
    assert found.reserved_peak_bytes == events[1].peak_bytes
    assert found.tensor_peak_bytes == 7
    assert found.device_peak_bytes is None


def test_on_a_cpu_they_are_the_processs():
    found = collect([started(), a_step(10), stopped(10)], a_plan())
    assert found.device_peak_bytes == a_step(10).peak_bytes
    assert found.reserved_peak_bytes is None


def test_sensors_are_means_over_steps_and_none_where_nobody_told():
    """The first log point stands for three steps, the second for one."""
    plan = a_plan(run={"log_every_steps": 3})
    hot = {"gpu_celsius": 90.0, "gpu_slowed": "thermal slowdown", "gpu_utilisation": 1.0}
    points = [a_step(3, **hot), a_step(4, gpu_utilisation=0.2, gpu_celsius=60.0)]
    sensed = collect([started(), *points], plan).sensed
    assert sensed["gpu_utilisation"] == pytest.approx((0.2 * 1 + 1.0 * 3) / 4)
    assert sensed["gpu_celsius_highest"] == 90.0
    assert sensed["gpu_slowed"] == {"thermal slowdown": 0.75}
    assert sensed["gpu_watts"] is None
    assert set(collect([started(), a_step(1)], plan).sensed.values()) == {None}
