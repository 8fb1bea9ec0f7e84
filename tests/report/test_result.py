"""What a run came to, from its events."""

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
