"""kill -9 at any instant: what was reported as saved is there, and the end is the same."""

import shutil

import pytest

from autotrain.run.keeping import checkpoint

from .conftest import ending, insist_on_reported

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


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(map(str, way.values())))
def test_killed_again_and_again_a_run_comes_to_the_same_end(
    victim, unharmed, dice, times, tmp_path, way
):
    """Until it has ended once: each sample is learned from once an epoch, in the same order."""
    hashes, seconds = unharmed
    directory, kills, resume = tmp_path / "run", 0, False
    for _ in range(max(times, 5)):
        code = victim.ask(
            directory, **way, resume=resume, kill_after=dice.uniform(0.1, 0.7) * seconds
        )["code"]
        insist_on_reported(directory)
        resume = directory.exists()
        if code == 0:
            break
        kills += 1
    assert victim.ask(directory, **way, resume=resume)["code"] == 0
    assert ending(directory) == hashes
    print(f"{kills} kills")
