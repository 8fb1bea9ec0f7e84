"""What is in a mirror is never lost for what another run, or a resume, puts there."""

import errno
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from fsspec.implementations.local import LocalFileSystem

from autotrain import files
from autotrain.errors import AutotrainError
from autotrain.run.keeping import checkpoint, copier, mirror, rewind
from autotrain.run.keeping.checkpoint import MANIFEST
from autotrain.run.keeping.keeper import pointed
from autotrain.run.keeping.place import Place
from autotrain.run.loop import train
from autotrain.run.signals import Stop

from .plans import make_plan
from .tasks import noisy_task
from .test_mirror import patiently


def begun(directory, place, **more):
    """A run that saves after each step, as a generator; `rate` is so high that it gets worse."""
    kept = {"every_steps": 1, "every_epochs": None, "keep": 2, "mirror": str(place)}
    plan = make_plan(
        checkpoint=kept | more.pop("checkpoint", {}), run={"name": "mine"},
        optimizer={"lr": more.pop("rate", 1e-2)},
    )  # fmt: skip
    return train(plan, noisy_task(), directory, task_file=directory, **more)


def steps(place):
    return sorted(int(p.parent.name[5:]) for p in place.glob(f"checkpoints/step-*/{MANIFEST}"))


def tree(place):
    return {str(p.relative_to(place)): p.read_bytes() for p in place.rglob("*") if p.is_file()}


def warnings(seen):
    return [event.message for event in seen if event.name == "warned"]


def until(true, seconds=30):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def tear(directory, step):
    (checkpoint.folder(directory, step) / checkpoint.MODEL).write_bytes(b"torn")


@pytest.mark.parametrize("lost", ["folder", "checkpoints", "torn"])
def test_a_resume_without_checkpoints_here_takes_the_mirrors_and_ends_the_same(tmp_path, lost):
    """Nobody has to say `--from`: the plan names the place."""
    mine, there = tmp_path / "mine", tmp_path / "there"
    list(begun(tmp_path / "whole/mine", tmp_path / "other"))
    list(begun(mine, there, max_steps=9))
    if lost == "torn":
        for step in checkpoint.steps(mine):
            tear(mine, step)
    else:
        shutil.rmtree(mine if lost == "folder" else mine / "checkpoints")
    seen = list(begun(mine, there, resume=True, max_steps=10))
    assert seen[0].step == 9
    assert f"step-9 is from {there}/mine" in " ".join(warnings(seen))
    assert {9, 10} <= {*steps(there / "mine")}
    list(begun(mine, there, resume=True))
    ends = [checkpoint.folder(of, 15) / checkpoint.MODEL for of in (tmp_path / "whole/mine", mine)]
    assert ends[0].read_bytes() == ends[1].read_bytes()
    assert 15 in steps(there / "mine")
    assert not (there / "mine/run-2").exists()


def test_a_new_run_of_the_same_name_leaves_what_is_there_and_says_so_first(tmp_path):
    """From another computer, or `--fresh`: it gets a folder beside, which a resume then means."""
    there = tmp_path / "there"
    list(begun(tmp_path / "one/mine", there, max_steps=14))
    before = tree(there)
    seen = list(begun(tmp_path / "two/mine", there, max_steps=3))
    assert {name: tree(there)[name] for name in before} == before
    assert seen[1].message.startswith(f"{there}/mine is another run's")
    assert seen[1].advice.startswith(f"--resume --from {there}/mine ")
    list(begun(tmp_path / "two/mine", there, resume=True, max_steps=5))
    list(begun(tmp_path / "three/mine", there, max_steps=2))
    list(begun(tmp_path / "one/mine", there, resume=True))
    assert [max(steps(there / "mine" / of)) for of in (".", "run-2", "run-3")] == [15, 5, 2]
    step, notes = mirror.fetch(str(there), "mine", tmp_path / "bare/mine")
    assert step == 2
    assert [note for note in notes if f"{there}/mine holds another run, up to step-15" in note]
    assert mirror.fetch(f"{there}/mine/run-2", "mine", tmp_path / "other")[0] == 5
    assert mirror.fetch(str(there), "mine", tmp_path / "one/mine")[0] == 15


def test_the_best_comes_back_and_stays_there(tmp_path):
    mine, there = tmp_path / "mine", tmp_path / "there"
    list(begun(mine, there, rate=3.0, max_steps=12))
    best = pointed(mine)["best"]
    assert best < 10
    shutil.rmtree(mine)
    assert mirror.fetch(str(there), "mine", mine) == (12, [])
    assert pointed(mine) == {"latest": 12, "best": best}
    seen = list(begun(mine, there, rate=3.0, resume=True))
    assert seen[-1].best_step == best
    assert {best, 15} <= {*checkpoint.steps(mine)} & {*steps(there / "mine")}


def test_the_best_stays_there_where_it_is_lost_here(tmp_path):
    mine, there = tmp_path / "mine", tmp_path / "there"
    list(begun(mine, there, rate=3.0, max_steps=12))
    best = pointed(mine)["best"]
    shutil.rmtree(checkpoint.folder(mine, best))
    assert list(begun(mine, there, rate=3.0, resume=True))[-1].best_step == best
    assert best in steps(there / "mine")


def test_as_many_are_kept_there_as_here_on_a_bare_machine_too(tmp_path):
    mine, there, kept = tmp_path / "mine", tmp_path / "there", {"keep": 4, "every_steps": 1}
    patiently(mine, there, checkpoint=kept, max_steps=9)
    shutil.rmtree(mine)
    patiently(mine, there, checkpoint=kept, max_steps=11, resume=True)
    assert steps(there / "mine")[-4:] == [8, 9, 10, 11]
    assert not {6, 7} & {*steps(there / "mine")}


def test_of_two_that_go_on_with_one_run_neither_loses_anything(tmp_path):
    """The one that is taken over sees it, says it, and goes elsewhere."""
    one, two, there = tmp_path / "one/mine", tmp_path / "two/mine", tmp_path / "there"
    first = begun(one, there)
    seen = [next(first)]
    while seen[-1].step < 4:
        seen.append(next(first))
    until(lambda: steps(there / "mine"))
    mirror.fetch(str(there), "mine", two)
    list(begun(two, there, resume=True, max_steps=12))
    before = tree(there / "mine")
    seen += first
    after = tree(there / "mine")
    assert {name: after[name] for name in before} == before
    assert [told for told in warnings(seen) if f"copies go to {there}/mine/run-2" in told]
    assert max(steps(there / "mine/run-2")) == 15
    list(begun(two, there, resume=True, max_steps=13))
    assert [max(steps(there / "mine" / of)) for of in (".", "run-2")] == [13, 15]


def test_a_folder_that_was_copied_whole_is_such_a_pair_too(tmp_path):
    one, two, there = tmp_path / "one/mine", tmp_path / "two/mine", tmp_path / "there"
    list(begun(one, there, max_steps=6))
    shutil.copytree(one, two)
    list(begun(two, there, resume=True, max_steps=9))
    before = tree(there / "mine")
    list(begun(one, there, resume=True, max_steps=12))
    assert {name: tree(there / "mine")[name] for name in before} == before
    assert max(steps(there / "mine/run-2")) == 12


@pytest.mark.parametrize("mv", [LocalFileSystem.mv, lambda self, old, new: os.rename(old, new)])
def test_what_a_run_goes_back_behind_is_set_aside_there_too(tmp_path, monkeypatch, mv):
    """So a later fetch takes the way that the run went, and the other one is not lost.

    Not all file systems take the same when something is renamed.
    """
    monkeypatch.setattr(LocalFileSystem, "mv", mv)
    mine, there, offer = tmp_path / "mine", tmp_path / "there", copier.Copier.offer
    patiently(mine, there, checkpoint={"keep": 9, "every_steps": 1}, max_steps=9)
    before = tree(there / "mine/checkpoints/step-00000009")
    rewind.go_back(mine, "step-5")
    # However many copies are passed over: that of step 7 is the first one.
    monkeypatch.setattr(copier.Copier, "offer", lambda self, step: step == 7 and offer(self, 7))
    list(begun(mine, there, checkpoint={"keep": 9}, max_steps=7, resume=True))
    assert steps(there / "mine") == [1, 2, 3, 4, 5, 7]
    aside = there / "mine/checkpoints/aside-1"
    assert [p.name for p in sorted(aside.iterdir())] == [f"step-0000000{n}" for n in (6, 7, 8, 9)]
    assert tree(aside / "step-00000009") == before
    assert mirror.fetch(str(there), "mine", tmp_path / "bare/mine")[0] == 7


def test_a_step_that_is_there_is_never_written_over(tmp_path):
    ways = [tmp_path / f"{rate}/mine" for rate in (1e-2, 1e-3)]
    for way, rate in zip(ways, (1e-2, 1e-3), strict=True):
        list(begun(way, tmp_path / "elsewhere", max_steps=2, rate=rate))
    place = Place(str(tmp_path / "there"))
    for way in ways:
        place.put(checkpoint.folder(way, 2))
    kept = [tmp_path / "there/checkpoints" / of / "step-00000002" for of in ("aside-1", ".")]
    assert [tree(each) for each in kept] == [tree(checkpoint.folder(way, 2)) for way in ways]


def test_the_mirrors_newest_replaces_one_that_is_torn_here(tmp_path):
    mine, there = tmp_path / "mine", tmp_path / "there"
    list(begun(mine, there, max_steps=8))
    tear(mine, 8)
    assert mirror.fetch(str(there), "mine", mine) == (8, [])
    assert rewind.go_back(mine, "step-8") == "step-8 is the newest"
    torn = mine / "checkpoints/aside-1/step-00000008" / checkpoint.MODEL
    assert torn.read_bytes() == b"torn"
    assert next(begun(mine, there, resume=True)).step == 8


def test_another_runs_checkpoint_of_the_same_step_is_fetched_and_ones_own_set_aside(tmp_path):
    """What was asked for is what is in that place, not what bears its number here."""
    mine, there = tmp_path / "mine", tmp_path / "there"
    list(begun(tmp_path / "other/mine", there, max_steps=6, rate=1e-3))
    list(begun(mine, tmp_path / "elsewhere", max_steps=6))
    own = tree(checkpoint.folder(mine, 6))
    mirror.fetch(str(there), "mine", mine)
    assert tree(checkpoint.folder(mine, 6)) == tree(there / "mine/checkpoints/step-00000006")
    assert tree(mine / "checkpoints/aside-1/step-00000006") == own


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_mirror_on_a_disk_is_synced_as_a_checkpoint_is_the_manifest_last(tmp_path, monkeypatch):
    """Its folder before and after the manifest, and then the one that names it."""
    synced, fsync = [], os.fsync

    def seen(handle):
        synced.append(Path(os.readlink(f"/proc/self/fd/{handle}")))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", seen)
    list(begun(tmp_path / "mine", tmp_path / "there", max_steps=1))
    step = tmp_path / "there/mine/checkpoints/step-00000001"
    last = synced.index(step / MANIFEST)
    assert {*step.iterdir()} - {step / MANIFEST} <= {*synced[:last]}
    assert step in synced[:last]
    assert synced[last + 1 : last + 3] == [step, step.parent]


def test_what_is_fetched_is_on_disk_before_it_has_its_name(tmp_path, monkeypatch):
    list(begun(tmp_path / "mine", tmp_path / "there", max_steps=2))
    synced, lacking, fsync, rename, replace = set(), [], os.fsync, Path.rename, os.replace

    def seen(handle):
        synced.add(os.fstat(handle).st_ino)
        fsync(handle)

    def renamed(self, target):
        parts = [self, *self.iterdir()] if self.is_dir() else []
        lacking.extend(part.name for part in parts if part.stat().st_ino not in synced)
        synced.discard(self.parent.stat().st_ino)
        return rename(self, target)

    def replaced(source, target):
        if target.name == "latest" and target.parent.stat().st_ino not in synced:
            lacking.append("its folder")
        return replace(source, target)

    monkeypatch.setattr(os, "fsync", seen)
    monkeypatch.setattr(os, "replace", replaced)
    monkeypatch.setattr(Path, "rename", renamed)
    mirror.fetch(str(tmp_path / "there"), "mine", tmp_path / "bare/mine")
    assert lacking == []


def test_a_mirror_that_has_step_0_alone_has_one(tmp_path):
    list(begun(tmp_path / "mine", tmp_path / "there", max_steps=0))
    assert mirror.fetch(str(tmp_path / "there"), "mine", tmp_path / "bare/mine") == (0, [])
    assert mirror.fetch(str(tmp_path / "there"), "mine", tmp_path / "otherwise/named") == (0, [])


def hanging(monkeypatch):
    """From here on copies never end; the switch that ends them."""
    switch = threading.Event()
    monkeypatch.setattr(Place, "put", lambda self, path: switch.wait(60) and 0)
    return switch


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_copy_that_hangs_at_the_end_is_told_and_left_when_somebody_says_stop(
    tmp_path, monkeypatch, number
):
    switch = hanging(monkeypatch)
    monkeypatch.setattr(copier, "SILENT_SECONDS", 0.1)
    seen = []
    with Stop().catch() as stop:
        for event in begun(tmp_path / "mine", tmp_path / "there", max_steps=3, stop=stop):
            seen.append(event)
            if event.name == "warned" and "waiting for the copy of step" in event.message:
                began = time.monotonic()
                signal.raise_signal(number)
    assert time.monotonic() - began < 5
    switch.set()
    assert seen[-1].reason == "max_steps"
    assert len([told for told in warnings(seen) if "was not mirrored to" in told]) == 1


@pytest.mark.parametrize(("told", "bound"), [("terminated", "LAST"), (None, "MOST")])
def test_a_copy_that_hangs_at_the_end_is_not_waited_for_for_ever(
    tmp_path, monkeypatch, told, bound
):
    switch, stop = hanging(monkeypatch), Stop()
    monkeypatch.setattr(copier, f"{bound}_SECONDS", 0.2)
    seen, began = [], time.monotonic()
    for event in begun(tmp_path / "mine", tmp_path / "there", max_steps=3, stop=stop):
        seen.append(event)
        stop.reason = told
    assert time.monotonic() - began < 15
    switch.set()
    assert seen[-1].name == "stopped"
    place = f"{tmp_path}/there/mine"
    said = f"step {seen[-1].step} was not mirrored to {place}: the run ended first"
    assert said in warnings(seen)


def test_a_resume_makes_the_copy_that_the_end_did_not(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        switch = hanging(patch)
        patch.setattr(copier, "MOST_SECONDS", 0.1)
        list(begun(tmp_path / "mine", tmp_path / "there"))
        switch.set()
    assert steps(tmp_path / "there/mine") == []
    list(begun(tmp_path / "mine", tmp_path / "there", resume=True))
    assert 15 in steps(tmp_path / "there/mine")


def test_halves_of_copies_go(tmp_path, monkeypatch):
    """Of a kill with the next copy, of a place that is full at once."""
    mine, there = tmp_path / "mine", tmp_path / "there"
    list(begun(mine, there, max_steps=3))
    half = there / "mine/checkpoints/step-00000001"
    half.mkdir(exist_ok=True)
    (half / checkpoint.MODEL).write_bytes(b"half")
    list(begun(mine, there, resume=True, max_steps=5))
    assert not half.exists()
    put_file = Place._put_file

    def full(self, path, sha256):
        put_file(self, path, sha256)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Place, "_put_file", full)
    before = tree(there / "mine/checkpoints")
    seen = list(begun(mine, there, resume=True, max_steps=8))
    assert [told for told in warnings(seen) if os.strerror(errno.ENOSPC) in told]
    assert tree(there / "mine/checkpoints") == before


def test_a_full_disk_there_is_asked_and_not_written_to(tmp_path, monkeypatch):
    room, there = files.room, tmp_path / "there"
    monkeypatch.setattr(
        files,
        "room",
        lambda folder: (1, "1 B") if there in (folder, *folder.parents) else room(folder),
    )
    monkeypatch.setattr(Place, "_put_file", lambda *_: pytest.fail("written"))
    seen = list(begun(tmp_path / "mine", there, max_steps=2))
    assert "free 1 B; step-00000002 takes" in warnings(seen)[-1]
    assert not list((there / "mine/checkpoints").iterdir())


def test_the_runs_own_folder_is_no_mirror(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    for place in (tmp_path, tmp_path / "link"):
        with pytest.raises(AutotrainError, match="is the run's own folder"):
            next(begun(tmp_path / "mine", place))


def test_a_resume_that_needs_a_mirror_that_is_away_does_not_begin_anew(tmp_path):
    mine, there = tmp_path / "mine", tmp_path / "there"
    list(begun(mine, there, max_steps=3))
    shutil.rmtree(mine)
    there.rename(tmp_path / "away")
    there.touch()
    with pytest.raises(AutotrainError, match="the mirror could not be asked for one"):
        next(begun(mine, there, resume=True))
    there.unlink()
    (tmp_path / "away").rename(there)
    assert next(begun(mine, there, resume=True)).step == 3


def test_a_store_without_folders_keeps_as_much(tmp_path):
    """As object stores are: nothing is renamed there, a folder is what has files."""
    url, mine = f"memory:/{tmp_path}", tmp_path / "mine"
    list(begun(mine, url, max_steps=9))
    rewind.go_back(mine, f"step-{checkpoint.steps(mine)[1]}")
    list(begun(mine, url, resume=True, max_steps=10))
    list(begun(tmp_path / "two/mine", url, max_steps=3))
    place = Place(f"{url}/mine")
    assert [each.steps()[0] for each in place.runs()] == [10, 3]
    assert place.system.exists(f"{place.root}/checkpoints/aside-1/step-00000009/{MANIFEST}")
    shutil.rmtree(mine)
    assert next(begun(mine, url, resume=True)).step == 3
