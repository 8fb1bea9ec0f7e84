"""Beside busy programs a run's threads sleep while they wait; nothing else changes how they do."""

import os
import subprocess
import sys

import pytest

SETTLE = (
    "import os; from autotrain.commands import waiting;"
    "waiting.settle({threads}); print(os.environ.get('OMP_WAIT_POLICY'))"
)


@pytest.fixture
def busy(monkeypatch):
    """On each core another program that does not stop; nothing has been decided for a run."""
    for name in ("OMP_WAIT_POLICY", "AUTOTRAIN_BUSY"):
        monkeypatch.delenv(name, raising=False)
    command = [sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(command) for _ in os.sched_getaffinity(0)]
    yield
    for other in others:
        other.kill()
        other.wait()


def settled(threads=2, before="", **more):
    code = before + SETTLE.format(threads=threads)
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | more,
        capture_output=True,
        text=True,
        check=True,
    )


def test_beside_others_threads_sleep_and_it_is_said_unless_it_is_decided(busy):
    done = settled()
    assert done.stdout == "passive\n"
    assert done.stderr.startswith("other programs take ")
    assert "the run's 2 threads sleep" in done.stderr
    loaded = "import sys; sys.modules['torch'] = sys;"
    for known in ({"GOMP_SPINCOUNT": "5"}, {"KMP_BLOCKTIME": "0"}, {"AUTOTRAIN_BUSY": "ignore"},
                  {"threads": 1}, {"before": loaded}):  # fmt: skip
        done = settled(**known)
        assert (done.stdout, done.stderr) == ("None\n", ""), known
    assert settled(OMP_WAIT_POLICY="active").stdout == "active\n"


def test_a_run_decides_before_torch_is_loaded(folder):
    code = (
        "import sys; from autotrain.__main__ import main; from autotrain.commands import waiting;"
        "waiting.settle = lambda threads: sys.exit(7 if 'torch' in sys.modules else 5);"
        "sys.argv = ['autotrain', 'run', 'plan.toml']; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 5, done.stderr
