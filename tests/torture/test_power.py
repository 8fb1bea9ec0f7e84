"""The power goes at any instant: what was said to be saved is there, whole, and the run goes on."""

import os
import signal
import time
from contextlib import nullcontext, suppress

import pytest

from autotrain.run.keeping import checkpoint
from autotrain.run.keeping.keeper import pointed

from .conftest import ending, insist_on_reported
from .disks import Bystander, Disk, can_mount

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not can_mount(), reason="needs mkfs.ext4, and leave to mount"),
]
# Data may reach the disk long after the names: the least that a journal promises.
OPTIONS = ("", "data=writeback,noauto_da_alloc")


def cut_off(victim, disk, seconds, **way):
    """A run whose disk loses its power after so many seconds, and which dies with it."""
    pid = victim.under_way(disk.place, **way)
    time.sleep(seconds)
    disk.cut()
    with suppress(ProcessLookupError):  # it had come to its end
        os.kill(pid, signal.SIGKILL)
    victim.answer()


@pytest.mark.parametrize("background", [False, True], ids=["waiting", "background"])
def test_after_a_power_cut_all_that_was_reported_is_there(
    victim, unharmed, dice, times, tmp_path, background
):
    hashes, seconds = unharmed
    at_once = later = 0
    for number in range(max(times // 4, 1)):
        disk = Disk(tmp_path / "image", tmp_path / str(number), dice.choice(OPTIONS))
        pause = dice.choice((None, 0.001, 0.01))
        try:
            resume = False
            for _ in range(dice.choice((1, 1, 2))):
                with nullcontext() if pause is None else Bystander(disk.place, pause):
                    after = dice.uniform(0, 1.3 * seconds)
                    cut_off(victim, disk, after, background=background, resume=resume)
                disk.again()
                known = insist_on_reported(disk.place, pause, disk.options)
                for step in pointed(disk.place).values():
                    checkpoint.verify(checkpoint.folder(disk.place, step))
                at_once += not known
                later += bool(known)
                resume = True
            assert victim.ask(disk.place, background=background, resume=True)["code"] == 0
            assert ending(disk.place) == hashes
        finally:
            disk.remove()
    print(f"{at_once} cuts before the first checkpoint, {later} behind one")
