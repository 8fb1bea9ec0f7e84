"""On the strictest of disks, at any instant: what was reported is there, what is named is whole."""

import json

import pytest

from autotrain.run.keeping import checkpoint
from autotrain.run.keeping.checkpoint import POINTERS

from .conftest import traced_by
from .strict import CALLS, Strict, calls
from .test_syscalls import can_trace

pytestmark = pytest.mark.skipif(not can_trace(), reason="needs strace, and leave to use it")


def whole(folder):
    """What is wrong with a checkpoint as it is found after a power cut; empty if nothing."""
    manifest = folder.kept.get(checkpoint.MANIFEST)
    if manifest is None:
        return "no manifest"
    for name in (checkpoint.MANIFEST, *json.loads(manifest.content)["files"]):
        if name not in folder.kept:
            return f"no {name}"
        if folder.kept[name].unsynced:
            return f"{name} was not synced"
    return ""


@pytest.mark.parametrize("background", [False, True], ids=["waiting", "background"])
def test_nothing_is_reported_or_named_before_it_would_survive(victim, tmp_path, background):
    directory, log = tmp_path / "runs" / "one", tmp_path / "calls"
    directory.parent.mkdir()
    pid = victim.halted(directory, background=background)
    traced = f"trace={','.join(CALLS)}"
    tracer = traced_by(
        ["strace", "-f", "-qq", "-y", "-s", "65536", "-o", log, "-p", str(pid), "-e", traced], pid
    )
    assert victim.answer()["code"] == 0
    tracer.wait(timeout=20)
    disk, place, reported, named = Strict(), checkpoint.checkpoints(directory), 0, 0
    disk.folder(directory)
    for call, words, came in calls(log):
        if f"{directory.name}.reported>" in words:
            step = int(words.split('"')[1].partition("\\n")[0])
            found = disk.at(checkpoint.folder(directory, step), kept=True)
            assert found is not None, f"step {step} is reported and its name may be lost"
            assert not whole(found), (step, whole(found))
            reported += 1
            continue
        disk.tell(call, words, came)
        for name in POINTERS:
            pointer = disk.at(place / name, kept=True)
            if pointer is not None:
                assert not pointer.unsynced, name
                target = disk.at(place / pointer.content.decode().strip(), kept=True)
                assert target is not None, (name, pointer.content, call, words)
                assert not whole(target), (name, whole(target))
                named += 1
    assert reported > 5
    assert named > 100
