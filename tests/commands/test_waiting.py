"""Beside busy programs a run's threads sleep while they wait; nothing else changes how they do."""

import os
import subprocess
import sys

import pytest

from .house import PLAN, SMALL, cli

SETTLE = (
    "import os; from autotrain.commands import waiting;"
    "waiting.settle({threads}); print(os.environ.get('OMP_WAIT_POLICY'))"
)


@pytest.fixture
def alone(monkeypatch):
    """Nothing has been decided for the processes that are started."""
    for name in ("OMP_WAIT_POLICY", "AUTOTRAIN_BUSY", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def busy(alone):
    """On each core another program that does not stop."""
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


def test_beside_others_threads_sleep_and_it_is_said(busy):
    done = settled()
    assert done.stdout == "passive\n"
    assert done.stderr.startswith("other programs take ")
    assert "the run's 2 threads sleep" in done.stderr


@pytest.mark.parametrize(
    "known",
    [
        {"threads": 1},
        {"GOMP_SPINCOUNT": "5"},
        {"KMP_BLOCKTIME": "0"},
        {"AUTOTRAIN_BUSY": "ignore"},
        {"before": "import torch;"},
    ],
    ids=str,
)
def test_nothing_is_changed_where_it_is_decided_or_cannot_matter(busy, known):
    done = settled(**known)
    assert (done.stdout, done.stderr) == ("None\n", "")


def test_what_the_user_set_stays(busy):
    assert settled(OMP_WAIT_POLICY="active").stdout == "active\n"


def test_a_run_decides_before_torch_is_loaded(folder, busy):
    made = cli(*PLAN, *SMALL, "--set", "device.threads=2", "-o", "plan.toml", cwd=folder)
    assert made.returncode == 0, made.stderr
    done = cli("run", "plan.toml", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("2 threads sleep while they wait") == 1
