"""A corpus whose making is killed at any clip goes on, and ends with the same bytes."""

import hashlib
import os
import signal
import subprocess
import sys
import time

import pytest

from autotrain.blocks.corpus import espeak

CLIPS = 40


def make(out):
    call = [sys.executable, "-m", "autotrain.blocks.corpus", str(out)]
    return subprocess.Popen(
        [*call, "--clips", str(CLIPS), "--seed", "4"], start_new_session=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip


def digests(folder):
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.rglob("*")
        if file.is_file()
    }


@pytest.fixture(scope="module")
def wanted(tmp_path_factory):
    if not espeak.is_here():
        pytest.skip("needs espeak-ng")
    whole = tmp_path_factory.mktemp("corpus") / "whole"
    assert make(whole).wait() == 0
    return digests(whole)


def test_a_killed_corpus_goes_on_and_ends_the_same(tmp_path, dice, times, wanted):
    for trial in range(-(-times // 8)):
        out, half = tmp_path / f"{trial}", tmp_path / f"{trial}.part"
        process, until = make(out), dice.randrange(1, CLIPS)
        while process.poll() is None and len(list(half.glob("wavs/*.tsv"))) < until:
            time.sleep(0.003)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for torn in dice.sample(sorted(half.glob("wavs/*")), 2) if half.exists() else ():
            torn.write_bytes(torn.read_bytes()[: dice.choice((0, 100))])  # a power cut
        assert out.exists() or make(out).wait() == 0
        assert digests(out) == wanted, f"trial {trial}, killed at {until}"
