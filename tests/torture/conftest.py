"""`make torture SEED=7 TIMES=1000`: how often each fault is tried, and from which seed."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from autotrain.run.keeping import checkpoint

FILES = ("model.safetensors", "optimizer.safetensors", "ema.safetensors")
# Within `make test` each kind of fault is tried about so often.
FEW = 8


@pytest.fixture(scope="session")
def times():
    """How often a fault is to be tried."""
    return int(os.environ.get("TIMES") or FEW)


@pytest.fixture
def dice(request):
    """Another seed for each test, the same in each session unless SEED says otherwise."""
    return random.Random(f"{os.environ.get('SEED') or 1} {request.node.name}")


class Victim:
    """The process that forks a run for each trial (see victim.py)."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.log = (folder / "errors").open("w")
        self.process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("victim.py")], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log,
        )  # fmt: skip

    def ask(self, directory: Path, **asked):
        """What a run came to."""
        self.begin(directory, **asked)
        return self.answer()

    def begin(self, directory: Path, **asked):
        for name in ("reported", "said", "healed"):
            directory.with_name(f"{directory.name}.{name}").unlink(missing_ok=True)
        line = json.dumps({"directory": str(directory), **asked})
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def halted(self, directory: Path, **asked):
        """A run that stands still before its first step; its process."""
        self.begin(directory, waits=True, **asked)
        return self.answer()["pid"]

    def under_way(self, directory: Path, **asked):
        """A run that goes on while the test does something to it; its process."""
        pid = self.halted(directory, **asked)
        os.kill(pid, signal.SIGCONT)
        return pid

    def answer(self):
        line = self.process.stdout.readline()
        assert line, (self.folder / "errors").read_text()
        return json.loads(line)

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:  # a test failed while a run of it stood still
            for child in psutil.Process(self.process.pid).children():
                child.kill()
            self.process.wait()
        self.log.close()


@pytest.fixture(scope="session")
def victim(tmp_path_factory):
    one = Victim(tmp_path_factory.mktemp("victim"))
    yield one
    one.close()


@pytest.fixture(scope="session")
def unharmed(victim, tmp_path_factory):
    """What a run ends with that nothing happened to, and how long it took."""
    folder = tmp_path_factory.mktemp("unharmed") / "run"
    victim.ask(folder)  # what is used first takes longest
    shutil.rmtree(folder)
    took = victim.ask(folder)
    assert took["code"] == 0
    return ending(folder), took["seconds"]


def ending(directory):
    """SHA-256 of weights, optimizer and averaged weights of the last checkpoint."""
    path, torn = checkpoint.newest_good(directory)
    assert path is not None, torn
    return {name: hashlib.sha256((path / name).read_bytes()).hexdigest() for name in FILES}


def reported(directory):
    """Steps that the run said were saved."""
    place = directory.with_name(f"{directory.name}.reported")
    return [int(line) for line in place.read_text().split()] if place.exists() else []


def insist_on_reported(directory, *about):
    """A checkpoint as new as the newest that was reported verifies; returns what was reported."""
    known = reported(directory)
    path, torn = checkpoint.newest_good(directory)
    step = -1 if path is None else checkpoint.step_of(path)
    assert step >= max(known, default=-1), (about, known, torn)
    return known


def alive(pid):
    """Whether a process is there still."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def said(directory):
    """The error that the run ended with, and its hint; empty where there was none."""
    return _beside(directory, "said")


def healed(directory):
    """What the run mended, and how, line by line."""
    return _beside(directory, "healed").splitlines()


def _beside(directory, name):
    place = directory.with_name(f"{directory.name}.{name}")
    return place.read_text() if place.exists() else ""


def attach(pid, *rules):
    """strace on a process that stands still, with rules of `-e inject`; it then goes on."""
    command = ["strace", "-f", "-qq", "-o", "/dev/null", "-p", str(pid)]
    traced = sorted({rule.partition(":")[0] for rule in rules})
    command += ["-e", f"trace={','.join(traced)}"]
    for rule in rules:
        command += ["-e", f"inject={rule}"]
    return traced_by(command, pid)


def traced_by(command, pid):
    """That strace, once it has attached."""
    tracer = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while "TracerPid:\t0\n" in Path(f"/proc/{pid}/status").read_text():
        assert tracer.poll() is None, command
        assert time.monotonic() < deadline, "strace does not attach"
        time.sleep(0.002)
    os.kill(pid, signal.SIGCONT)
    return tracer
