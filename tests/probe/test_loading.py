"""What loading a sample takes, and how much of it a core computes."""

import subprocess
import sys
import time

import pytest

from autotrain.probe.loading import timed

EACH = 0.03


def compute():
    until = time.thread_time() + EACH
    while time.thread_time() < until:
        pass


def wait():
    time.sleep(EACH)


def both():
    compute()
    wait()


class Loads:
    def __init__(self, *ways):
        self.ways = ways

    def __getitem__(self, index):
        self.ways[index]()
        return index


@pytest.mark.parametrize(("way", "seconds", "waiting"), [
    (compute, EACH, 0.0), (wait, EACH, EACH), (both, 2 * EACH, EACH),
])  # fmt: skip
def test_it_says_how_long_and_how_much_of_it_no_core_computes(way, seconds, waiting):
    found = timed(Loads(way, way, way), [0, 1, 2])
    assert found.seconds >= 0.99 * seconds
    assert found.waiting == pytest.approx(waiting, abs=0.2 * EACH)


def test_the_median_sample_counts():
    assert timed(Loads(wait, compute, compute), [0, 1, 2]).waiting < timed(Loads(wait), [0]).waiting


@pytest.mark.skipif(sys.platform == "win32", reason="no such figure there")
def test_programs_that_it_starts_compute_too():
    code = "import time\nwhile time.process_time() < 0.2: pass"

    def started():
        subprocess.run([sys.executable, "-S", "-E", "-c", code], check=True)

    found = timed(Loads(started), [0])
    assert found.seconds - found.waiting >= 0.19


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux alone tells it")
def test_a_busy_machine_is_no_slow_disk():
    """Others have the one core that this may use, half of the time."""
    import os

    core = {min(os.sched_getaffinity(0))}
    before = os.sched_getaffinity(0)
    code = f"import os; os.sched_setaffinity(0, {core})\nwhile True: pass"
    others = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    try:
        os.sched_setaffinity(0, core)
        time.sleep(0.3)
        found = timed(Loads(compute, compute, compute), [0, 1, 2])
    finally:
        os.sched_setaffinity(0, before)
        for other in others:
            other.kill()
            other.wait()
    assert found.seconds > 1.5 * EACH
    assert found.waiting < 0.3 * (found.seconds - EACH)
