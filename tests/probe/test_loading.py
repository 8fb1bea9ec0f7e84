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
    # Another program may have the core meanwhile: that is waiting too.
    assert found.waiting >= 0.9 * waiting
    assert found.seconds - found.waiting == pytest.approx(seconds - waiting, abs=0.2 * EACH)


def test_the_median_sample_counts():
    assert timed(Loads(wait, compute, compute), [0, 1, 2]).waiting < timed(Loads(wait), [0]).waiting


@pytest.mark.skipif(sys.platform == "win32", reason="no such figure there")
def test_programs_that_it_starts_compute_too():
    code = "import time\nwhile time.process_time() < 0.2: pass"

    def started():
        subprocess.run([sys.executable, "-S", "-E", "-c", code], check=True)

    found = timed(Loads(started), [0])
    assert found.seconds - found.waiting >= 0.19
