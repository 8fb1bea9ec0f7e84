"""A disk that runs out of what it has, or turns away, in mid-run: training goes on."""

import os
import shutil
import subprocess
import time
from contextlib import suppress
from functools import partial

import pytest

from autotrain.run.keeping import checkpoint

from .conftest import alive, ending, insist_on_reported, reported, said
from .disks import Disk, can_mount


@pytest.fixture
def begun(victim, unharmed, dice, times):
    """For each trial: a run under way for a while, and whether it goes on."""

    def trials(make):
        for number in range(max(times // 20, 1)):
            directory = make(number)
            way = {"background": dice.random() < 0.5, "every": 1}
            pid = victim.under_way(directory, **way)
            time.sleep(dice.uniform(0, unharmed[1]))
            yield directory, partial(alive, pid)

    return trials


@pytest.fixture
def disk(tmp_path):
    """A small one with few inodes."""
    if not can_mount():
        pytest.skip("needs root, mkfs.ext4, and leave to mount")
    made = Disk(tmp_path / "image", tmp_path / "run", made=("-N", "64"))
    yield made
    made.remove()


def emptied(disk):
    for entry in disk.place.iterdir():
        if entry.name != "lost+found":
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    return disk.place


def insist_on_end(victim, unharmed, directory, code):
    """It ended well, or said what it lacked; and ends well once it has it."""
    insist_on_reported(directory)
    assert code in (0, 1), (victim.folder / "errors").read_text()
    if code:
        assert "could not be saved" in said(directory) or os.strerror(28) in said(directory)
    else:
        assert ending(directory) == unharmed[0]
    return said(directory)


@pytest.mark.root
def test_without_inodes_training_goes_on_and_says_so(victim, unharmed, begun, disk):
    """Bytes are free and no file can be made: the message names what is lacking."""
    told = 0
    for directory, _ in begun(lambda _: emptied(disk)):
        filler = disk.place / "filler"
        filler.mkdir(exist_ok=True)
        with suppress(OSError):
            for number in range(200):
                (filler / str(number)).touch()
        code = victim.answer()["code"]
        message = insist_on_end(victim, unharmed, directory, code)
        if "could not be saved" in message:
            assert "no inodes for more files" in message
            told += 1
        assert not list(checkpoint.checkpoints(directory).glob(".step*"))
        shutil.rmtree(filler)
        assert victim.ask(directory, resume=True)["code"] == 0
        assert ending(directory) == unharmed[0]
    print(f"{told} named inodes")


@pytest.mark.root
@pytest.mark.parametrize("back", [True, False], ids=["for a while", "for good"])
def test_a_disk_that_turns_read_only(victim, unharmed, begun, disk, back):
    for directory, _ in begun(lambda _: emptied(disk)):
        # A file under way makes the system refuse; it is asked again.
        words = ["mount", "-o", "remount,ro", str(disk.place)]
        while subprocess.run(words, capture_output=True, check=False).returncode:
            time.sleep(0.002)
        if back:
            time.sleep(unharmed[1] / 3)
            Disk.command("mount", "-o", "remount,rw", disk.place)
        code = victim.answer()["code"]
        insist_on_reported(directory)
        assert code in (0, 1), (victim.folder / "errors").read_text()
        if code:
            assert "ead-only" in said(directory), said(directory)
        if not back:
            Disk.command("mount", "-o", "remount,rw", disk.place)
        assert victim.ask(directory, resume=True)["code"] == 0
        assert ending(directory) == unharmed[0]


def test_a_run_whose_folder_is_removed_makes_it_again(victim, unharmed, begun, tmp_path):
    again = lost = 0
    for directory, under_way in begun(lambda number: tmp_path / str(number)):
        shutil.rmtree(directory, ignore_errors=True)
        before = len(reported(directory))
        running = under_way()
        code = victim.answer()["code"]
        assert code in (0, 1), (victim.folder / "errors").read_text()
        after = reported(directory)[before:]
        if running and len(after) > 1:
            assert code == 0, said(directory)
            insist_on_reported(directory)
            assert ending(directory) == unharmed[0]
            again += 1
        lost += running and code == 1  # its last save was under way
    assert lost <= again, "after a removal, saves do not come about any more"
    print(f"{again} went on in a new folder")
