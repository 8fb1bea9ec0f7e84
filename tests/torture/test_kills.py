"""kill -9 at any instant: what was reported as saved is there, and the end is the same."""

import os
import shutil
import signal
import time
from contextlib import suppress

import pytest

from autotrain.run.keeping import checkpoint

from .conftest import alive, ending, insist_on_reported, reported

WAYS = [
    {"background": background, "workers": workers} for background in (False, True)
    for workers in (0, 1)
]  # fmt: skip


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(map(str, way.values())))
def test_killed_anywhere_a_run_ends_the_same_after_its_resume(
    victim, unharmed, dice, times, tmp_path, way
):
    hashes, seconds = unharmed
    at_once = later = 0
    for number in range(max(times // len(WAYS), 1)):
        directory = tmp_path / str(number)
        victim.ask(directory, **way, kill_after=dice.uniform(0, 1.3 * seconds))
        known = insist_on_reported(directory)
        at_once += not known
        later += bool(known)
        assert victim.ask(directory, **way, resume=True)["code"] == 0
        assert ending(directory) == hashes
        assert not list(checkpoint.checkpoints(directory).glob(".*"))
        shutil.rmtree(directory)
    print(f"{at_once} before the first checkpoint, {later} behind one")


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_killed_three_times_in_one_epoch_it_learns_from_each_sample_once(
    victim, dice, times, tmp_path, workers
):
    """The epoch is the only one, and a checkpoint is made after every step."""
    way = {"workers": workers, "every": 1, "epochs": 1, "samples": {"count": 400}}
    whole = tmp_path / "whole"
    assert victim.ask(whole, **way)["code"] == 0
    for number in range(max(times // 50, 1)):
        directory = tmp_path / str(number)
        for _ in range(3):
            before = len(reported(directory))
            way["background"] = dice.random() < 0.5
            pid = victim.under_way(directory, **way, resume=directory.exists())
            more = dice.randint(1, 4)
            while len(reported(directory)) < before + more and alive(pid):
                time.sleep(0.001)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            assert victim.answer()["code"] == -signal.SIGKILL, "the epoch was over before"
            insist_on_reported(directory)
        assert victim.ask(directory, **way, resume=True)["code"] == 0
        assert ending(directory) == ending(whole)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_killed_again_and_again_a_run_comes_to_the_same_end(victim, dice, times, tmp_path, workers):
    """Fifty times, each soon after a checkpoint: a sample is still learned from once an epoch."""
    kills = max(times // 20, 5)
    way = {"background": dice.random() < 0.5, "workers": workers, "epochs": 2 * kills}
    directory, whole = tmp_path / "run", tmp_path / "whole"
    seconds = victim.ask(whole, **way)["seconds"]
    for _ in range(kills):
        pid = victim.under_way(directory, **way, resume=directory.exists())
        while not reported(directory) and alive(pid):
            time.sleep(0.002)
        time.sleep(dice.uniform(0, seconds / kills / 2))
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        code = victim.answer()["code"]
        assert code == -signal.SIGKILL, "it came to its end before it was killed so often"
        insist_on_reported(directory)
    assert victim.ask(directory, **way, resume=True)["code"] == 0
    assert ending(directory) == ending(whole)
    print(f"{kills} kills of one run, {workers} workers")
