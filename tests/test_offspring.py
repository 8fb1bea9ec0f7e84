"""Processes that others start for us: where they take their modules from."""

import multiprocessing
import os
import subprocess
import sys

import pytest

from autotrain.offspring import safe_path, usual_path


def starts_another(answers):
    """In the process: whether it is safe, and then whether what it starts itself is."""
    usual_path()
    ask = [sys.executable, "-c", "import sys; print(sys.flags.safe_path)"]
    said = subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()
    answers.send((sys.flags.safe_path, said))


@pytest.mark.parametrize("asked", [None, "1"])
def test_only_what_we_start_leaves_the_current_folder_out(asked, monkeypatch):
    """Or all of them, where the person said so."""
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    if asked is not None:
        monkeypatch.setenv("PYTHONSAFEPATH", asked)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=starts_another, args=(theirs,))
    with safe_path():
        process.start()
    assert os.environ.get("PYTHONSAFEPATH") == asked
    assert ours.recv() == (True, str(asked is not None))
    process.join()
