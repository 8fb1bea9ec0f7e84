"""Copies of checkpoints elsewhere: whole or not there, never waited for, enough to go on from."""

import errno
import json
import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from autotrain.errors import AutotrainError
from autotrain.run.keeping import checkpoint, mirror
from autotrain.run.keeping.keeper import Keeper
from autotrain.run.loop import train

from .plans import make_plan
from .tasks import noisy_task


def run(directory, place, **more):
    more_of = more.pop("checkpoint", {})
    plan = make_plan(
        checkpoint={"every_steps": 2, "keep": 2, "mirror": str(place), **more_of},
        run={"name": directory.name},
    )
    return list(train(plan, noisy_task(), directory, task_file=directory, **more))


def patiently(directory, place, **more):
    """As `run`, where each checkpoint is copied before training goes on."""
    waited, took = [], Keeper._took

    def took_and_waited(self, kept, asked):
        told = took(self, kept, asked)
        copy = place / directory.name / f"checkpoints/step-{asked.step:08d}" / checkpoint.MANIFEST
        deadline = time.monotonic() + 20
        while self.mirror is not None and not copy.exists() and time.monotonic() < deadline:
            time.sleep(0.001)
        waited.append(asked.step)
        return told

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Keeper, "_took", took_and_waited)
        seen = run(directory, place, **more)
    assert waited
    return seen


def manifests(folder):
    return {p.parent.name: p.read_bytes() for p in folder.rglob(checkpoint.MANIFEST)}


@pytest.mark.parametrize("background", [False, True])
def test_what_is_kept_here_is_kept_there_and_told(tmp_path, background):
    seen = patiently(tmp_path / "mine", tmp_path / "there", checkpoint={"background": background})
    assert seen[-1].reason == "finished"
    assert manifests(tmp_path / "there/mine") == manifests(tmp_path / "mine")
    for path in (tmp_path / "there/mine/checkpoints").iterdir():
        checkpoint.verify(path)
    copied = [event for event in seen if event.name == "saved" and event.label == "mirrored"]
    assert copied[-1].step == 15
    assert copied[-1].path == f"{tmp_path}/there/mine/checkpoints/step-00000015"
    assert seen.index(copied[-1]) < len(seen) - 1
    assert not [t for t in threading.enumerate() if t.name == "autotrain-mirror"]


def test_a_bare_machine_goes_on_from_there_to_the_same_end(tmp_path):
    whole, first = tmp_path / "whole", tmp_path / "here" / "mine"
    run(whole, tmp_path / "other")
    run(first, tmp_path / "there", max_steps=7)
    shutil.rmtree(first)
    assert mirror.fetch(str(tmp_path / "there"), "mine", first) == (7, [])
    seen = run(first, tmp_path / "there", resume=True)
    assert seen[0].step == 7
    ends = [checkpoint.folder(of, 15) / "model.safetensors" for of in (whole, first)]
    assert ends[0].read_bytes() == ends[1].read_bytes()


def test_a_torn_copy_is_passed_over_and_a_lie_is_not_believed(tmp_path):
    """The newest that verifies is taken; nothing half made stays here."""
    patiently(tmp_path / "mine", tmp_path / "there", checkpoint={"keep": 9})
    there = tmp_path / "there/mine/checkpoints"
    (there / "step-00000015/model.safetensors").write_bytes(b"half")
    with open(there / "step-00000014/optimizer.safetensors", "r+b") as file:
        file.seek(200)
        file.write(b"\xff\xff")
    lie = there / "step-00000012" / checkpoint.MANIFEST
    said = json.loads(lie.read_text())
    said["files"]["../../../escaped"] = {"bytes": 1, "sha256": ""}
    lie.write_text(json.dumps(said))
    (there / "step-00000010" / checkpoint.MANIFEST).unlink()
    step, torn = mirror.fetch(str(tmp_path / "there/mine"), "mine", tmp_path / "bare")
    assert step == 8
    assert len(torn) == 3
    assert "step-00000015/model.safetensors: not of" in torn[0]
    assert "optimizer.safetensors: its content is not what was written" in torn[1]
    assert "not a manifest of schema" in torn[2]
    best = (tmp_path / "bare/checkpoints/best").read_text().strip()
    kept = {p.name for p in (tmp_path / "bare/checkpoints").iterdir()}
    assert kept == {"step-00000008", best, "latest", "best"}


def test_a_place_that_fails_is_told_and_the_run_is_not(tmp_path, monkeypatch):
    """Nothing that counts is left behind there; the next copy is tried. (Of one that was removed
    here before its copy failed nothing is told: all are kept.)"""
    put, tried = mirror.Place.put, []

    def fails(self, path):
        tried.append(path.name)
        if len(tried) == 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return put(self, path)

    monkeypatch.setattr(mirror.Place, "put", fails)
    seen = run(tmp_path / "mine", tmp_path / "there", checkpoint={"keep": 99})
    warned = [event.message for event in seen if event.name == "warned"]
    assert len(warned) == 1
    assert "was not mirrored to" in warned[0]
    assert os.strerror(errno.ENOSPC) in warned[0]
    assert seen[-1].reason == "finished"
    assert "step-00000015" in manifests(tmp_path / "there")


def test_a_copy_that_reads_back_otherwise_is_no_copy(tmp_path, monkeypatch):
    """A place may take bytes and keep others: that is found at once, not when they are needed."""
    from fsspec.implementations.local import LocalFileSystem

    put_file = LocalFileSystem.put_file

    def bent(self, source, target, **more):
        put_file(self, source, target, **more)
        if target.endswith("step-00000004/model.safetensors"):
            raw = bytearray(Path(target).read_bytes())
            raw[-1] ^= 1
            Path(target).write_bytes(raw)

    monkeypatch.setattr(LocalFileSystem, "put_file", bent)
    seen = run(tmp_path / "mine", tmp_path / "there", max_steps=4)
    warned = [event.message for event in seen if event.name == "warned"]
    assert "step-00000004/model.safetensors: read back otherwise than written" in warned[0]
    assert "step-00000004" not in manifests(tmp_path / "there")


def test_training_waits_for_no_copy_and_only_the_newest_and_the_best_are_made(
    tmp_path, monkeypatch
):
    put = mirror.Place.put

    def slow(self, path):
        time.sleep(0.3)
        return put(self, path)

    monkeypatch.setattr(mirror.Place, "put", slow)
    seen = run(tmp_path / "mine", tmp_path / "there", checkpoint={"background": True})
    copied = [event.step for event in seen if event.name == "saved" and event.label == "mirrored"]
    saved = [event.step for event in seen if event.name == "saved" and event.label != "mirrored"]
    assert {15, seen[-1].best_step} <= {*copied}
    assert len(copied) < len(set(saved))


def test_a_place_where_nothing_can_be_written_is_refused_before_anything_runs(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(AutotrainError, match=r"file/there.*: NotADirectoryError"):
        run(tmp_path / "mine", tmp_path / "file" / "there")
    for url in ("nonsense://there", "s3://bucket/there"):
        with pytest.raises(AutotrainError, match=url):
            run(tmp_path / "mine", url)
    assert not (tmp_path / "mine" / "checkpoints").exists()


def test_a_place_that_is_away_when_a_run_goes_on_is_told_and_not_waited_for(tmp_path):
    """The copy is made as soon as it is back."""
    run(tmp_path / "mine", tmp_path / "there", max_steps=4)
    (tmp_path / "there").rename(tmp_path / "away")
    (tmp_path / "there").touch()
    seen = run(tmp_path / "mine", tmp_path / "there", resume=True, max_steps=7)
    assert [e for e in seen if e.name == "warned" and "not mirrored" in e.message]
    assert seen[-1].step == 7
    (tmp_path / "there").unlink()
    (tmp_path / "away").rename(tmp_path / "there")
    seen = run(tmp_path / "mine", tmp_path / "there", resume=True)
    assert seen[-1].reason == "finished"
    last = [manifests(tmp_path / of)["step-00000015"] for of in ("there/mine", "mine")]
    assert last[0] == last[1]


def test_what_is_there_is_not_copied_again(tmp_path):
    """The last checkpoint is reported twice: as the one asked for, and as the best."""
    seen = run(tmp_path / "mine", tmp_path / "there", max_steps=3)
    labels = [e.label for e in seen if e.name == "saved" and e.step == 3]
    assert sorted(labels) == ["best", "max_steps", "mirrored"]


def test_a_place_without_any_says_so(tmp_path):
    with pytest.raises(AutotrainError, match="no checkpoint of mine that is whole"):
        mirror.fetch(str(tmp_path), "mine", tmp_path / "here")


def test_a_stage_is_found_by_the_place_that_its_plan_names(tmp_path):
    """It has a folder of its own in that of the run."""
    stage = tmp_path / "mine" / "1-encoder"
    plan = make_plan(checkpoint={"mirror": str(tmp_path / "there")}, run={"name": "mine"})
    list(train(plan, noisy_task(), stage, task_file=stage, max_steps=3))
    assert (tmp_path / "there/mine/1-encoder/checkpoints/step-00000003").is_dir()
    bare = tmp_path / "bare" / "1-encoder"
    assert mirror.fetch(str(tmp_path / "there"), "mine", bare) == (3, [])
