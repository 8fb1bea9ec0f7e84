"""Narrow places: little shared memory, few files or threads, small files, a container's memory."""

import os
import shutil
import signal
import sys

import pytest
from narrow import can_unshare

from .conftest import ending, healed, insist_on_reported, said

linux = pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")
pytestmark = linux

MANY = {"more": 24}  # so many tensors in a micro-batch: each takes a file to be handed over
WIDE = {"more": 1, "wide": 300_000}  # 4.6 MiB in a micro-batch of 4


def trials(times, few=1):
    return range(max(times // 50, few))


def insist_on_whole(victim, directory, hashes, **way):
    """That run has ended, or a resume in a wide place ends it, as the unharmed one."""
    insist_on_reported(directory, way)
    assert victim.ask(directory, **way, resume=True)["code"] == 0
    assert ending(directory) == hashes
    shutil.rmtree(directory)


@pytest.mark.root
@pytest.mark.skipif(sys.platform != "linux" or not can_unshare(), reason="needs unshare and root")
@pytest.mark.parametrize("workers", [1, 2])
def test_little_shared_memory_is_gone_round(victim, unharmed, dice, times, tmp_path, workers):
    """A container's /dev/shm: micro-batches come through pipes, by as many workers."""
    for number in trials(times):
        directory, size = tmp_path / str(number), dice.choice(["4m", "1m", "64k", "4k"])
        way = {"workers": workers, "background": dice.random() < 0.5}
        narrow = {"shm": size}
        code = victim.ask(directory, **way, samples=WIDE, narrow=narrow)["code"]
        assert code == 0, (size, said(directory))
        [told] = healed(directory)
        assert "shared memory" in told
        assert "through pipes" in told
        assert "--shm-size" in told
        insist_on_whole(victim, directory, unharmed[0], **way)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_few_files_are_gone_round(victim, unharmed, dice, times, tmp_path, workers):
    """`ulimit -n`: nothing is lost, and no sample is taken for bad."""
    for number in trials(times, few=2):
        directory = tmp_path / str(number)
        open_now = len(os.listdir(f"/proc/{victim.process.pid}/fd"))
        most = dice.choice([open_now + dice.randint(12, 60), 64, 128])
        way = {"workers": workers, "background": dice.random() < 0.5}
        asked = {"samples": MANY, "narrow": {"limits": [["NOFILE", most]]}}
        code = victim.ask(directory, **way, **asked)["code"]
        assert code == 0, (most, said(directory))
        assert not any("put aside" in told for told in healed(directory)), most
        insist_on_whole(victim, directory, unharmed[0], **way)


def test_a_limit_on_the_size_of_files_is_gone_round(victim, unharmed, dice, times, tmp_path):
    """`ulimit -f`: shared memory is files, and so are checkpoints, which are smaller here."""
    for number in trials(times):
        directory = tmp_path / str(number)
        way = {"workers": dice.choice([1, 2])}
        asked = {"samples": WIDE, "narrow": {"limits": [["FSIZE", dice.randint(1, 4) << 20]]}}
        assert victim.ask(directory, **way, **asked)["code"] == 0, said(directory)
        [told] = healed(directory)
        assert "File too large" in told
        assert "through pipes" in told
        insist_on_whole(victim, directory, unharmed[0], **way)


@pytest.mark.root
def test_few_processes_are_gone_round_or_named(victim, unharmed, dice, times, tmp_path, group):
    """A container's limit: fewer workers, then none; saves wait where there is no thread."""
    for number in trials(times, few=2):
        directory, most = tmp_path / str(number), dice.randint(1, 5)
        narrow = {"cgroups": [group("pids", "pids.max", most)]}
        way = {"workers": 2, "background": dice.random() < 0.5}
        code = victim.ask(directory, **way, samples=MANY, narrow=narrow, timeout=60)["code"]
        assert code == 0, (most, said(directory))
        assert most > 4 or healed(directory), most
        insist_on_whole(victim, directory, unharmed[0], **way)


@pytest.mark.root
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_control_group_that_kills_for_memory_loses_nothing(
    victim, unharmed, dice, times, tmp_path, group, workers
):
    """Of a worker it is told why, its sample stays, and fewer take its place."""
    for number in trials(times):
        directory = tmp_path / str(number)
        narrow = {"cgroups": [group("memory", "memory.limit_in_bytes", 150 << 20)]}
        way = {"workers": workers, "background": dice.random() < 0.5}
        samples = {"greedy": dice.randrange(1, 59)}
        code = victim.ask(directory, **way, samples=samples, narrow=narrow)["code"]
        assert code in (1, -signal.SIGKILL)
        if code == 1:
            assert workers
            assert "was killed by SIGKILL, as memory ran out, reading sample" in said(directory)
            assert "fewer loader.workers, or more of it" in said(directory)
            assert not any("put aside" in told for told in healed(directory))
        if not directory.exists():
            continue
        insist_on_whole(victim, directory, unharmed[0], **way)
