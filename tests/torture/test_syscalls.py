"""Every call to the system that a save makes fails, or is the last one, in turn."""

import errno
import os
import shutil
import subprocess
import sys
from collections import Counter

import pytest

from autotrain.run.keeping import checkpoint

from .conftest import attach, ending, insist_on_reported, said, traced_by

CALLS = ("mkdir", "openat", "write", "fsync", "rename", "unlink", "rmdir", "unlinkat")
ERRORS = ("ENOSPC", "EIO", "EDQUOT", "EFBIG")
MOST = 4000


def can_trace():
    if sys.platform != "linux" or shutil.which("strace") is None:
        return False
    done = subprocess.run(
        ["strace", "-qq", "-o", "/dev/null", "-e", "inject=fsync:error=EIO", "true"],
        capture_output=True, check=False,
    )  # fmt: skip
    return done.returncode == 0


pytestmark = pytest.mark.skipif(not can_trace(), reason="needs strace, and leave to use it")


def under(victim, directory, rule, **way):
    """A run with a fault of that rule; returns its exit code."""
    tracer = attach(victim.halted(directory, **way), rule)
    code = victim.answer()["code"]
    tracer.wait(timeout=20)
    return code


def counted(victim, directory, call, **way):
    """How often a thread of an unharmed run makes that call: strace counts by thread."""
    pid, log = victim.halted(directory, **way), directory.with_name("calls")
    tracer = traced_by(
        ["strace", "-f", "-qq", "-o", log, "-p", str(pid), "-e", f"trace={call}"], pid
    )
    assert victim.answer()["code"] == 0
    tracer.wait(timeout=20)
    shutil.rmtree(directory)
    threads = (line.split()[0] for line in log.read_text().splitlines() if f" {call}(" in line)
    return max(Counter(threads).values(), default=0)


def some(dice, total, times):
    """Which of the calls: all of them where that is few enough."""
    everyone = range(1, total + 1)
    return everyone if total <= times else sorted(dice.sample(everyone, max(times, 1)))


@pytest.mark.parametrize("call", CALLS)
def test_a_kill_at_each_call_loses_nothing_that_was_reported(
    victim, unharmed, dice, times, tmp_path, call
):
    directory, background = tmp_path / "run", dice.random() < 0.5
    total = counted(victim, directory, call, background=background)
    if not total:
        pytest.skip("a run makes no such call")
    for number in some(dice, min(total, MOST), times // 8):
        rule = f"{call}:signal=KILL:when={number}"
        code = under(victim, directory, rule, background=background)
        assert code == -9, rule
        insist_on_reported(directory, rule)
        assert victim.ask(directory, resume=directory.exists())["code"] == 0, rule
        assert ending(directory) == unharmed[0], rule
        assert not list(checkpoint.checkpoints(directory).glob(".*"))
        shutil.rmtree(directory)


@pytest.mark.parametrize("lasting", ["", "+"], ids=["once", "from then on"])
@pytest.mark.parametrize("call", ["mkdir", "write", "fsync", "rename", "unlink"])
def test_a_call_that_fails_costs_a_checkpoint_and_never_the_run(
    victim, unharmed, dice, times, tmp_path, call, lasting
):
    """Training goes on; the newest good one stays; own temporary files are gone."""
    directory, background = tmp_path / "run", dice.random() < 0.5
    total = counted(victim, directory, call, background=background)
    if not total:
        pytest.skip("a run makes no such call")
    for number in some(dice, min(total, MOST), times // 8):
        name = dice.choice(ERRORS)
        rule = f"{call}:error={name}:when={number}{lasting}"
        code = under(victim, directory, rule, background=background)
        message = said(directory)
        if code:  # the first thing that it needs, or the last step, could not be written
            assert code == 1, (rule, (victim.folder / "errors").read_text())
            why = os.strerror(getattr(errno, name))
            assert "could not be saved" in message or why in message, (rule, message)
        insist_on_reported(directory, rule)
        if not lasting and directory.exists():
            assert not list(checkpoint.checkpoints(directory).glob(".step*")), rule
        assert victim.ask(directory, resume=directory.exists())["code"] == 0, rule
        assert ending(directory) == unharmed[0], rule
        shutil.rmtree(directory)
