"""A child that is interrupted while it answers: what it had said until then counts."""

import os
import signal
import sys
import threading
import time

import pytest

from autotrain.child import CutError, ask
from autotrain.schema import Record

CHILD = """
import sys, time
from pathlib import Path
from autotrain.probe.trial import serve
from says import Said

def work(line):
    asked = Said.model_validate_json(line)
    for count in range(1, asked.count + 1):
        yield Said(count=count)
    if asked.flag:
        Path(asked.flag).touch()
        time.sleep(60)

if __name__ == "__main__":
    serve(work)
"""


class Said(Record):
    """What is asked, and what is said."""

    count: int
    flag: str = ""


@pytest.fixture
def child(tmp_path, monkeypatch):
    """A module that says what it is asked to, in parts."""
    record = "from autotrain.schema import Record\n\nclass Said(Record):\n    count: int\n"
    (tmp_path / "says.py").write_text(f'{record}    flag: str = ""\n')
    (tmp_path / "saying.py").write_text(CHILD)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "saying"


def test_of_several_answers_the_last_is_the_answer(child):
    assert ask(child, Said(count=3), Said, seconds=60) == Said(count=3)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("count", [0, 2])
def test_an_interrupt_brings_what_was_said_until_then(child, tmp_path, count):
    flag = tmp_path / "flag"

    def interrupt():
        while not flag.exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=interrupt).start()
    try:
        with pytest.raises(KeyboardInterrupt) as caught:
            ask(child, Said(count=count, flag=str(flag)), Said, seconds=60)
    finally:
        signal.signal(signal.SIGINT, before)
    assert isinstance(caught.value, CutError) == bool(count)
    if count:
        assert caught.value.said == Said(count=count)
