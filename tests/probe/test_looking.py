"""Files looked at in another process: what ends or holds up that process names the file."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import psutil
import pytest
import soundfile
from PIL import Image

from autotrain.errors import AutotrainError
from autotrain.media import UnreadableError
from autotrain.probe import looking
from autotrain.probe.looking import MOST_LOST, Looker
from autotrain.probe.media import Picture, Recording

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


@pytest.fixture
def picture(tmp_path):
    Image.new("RGB", (4, 3)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_it_sees_what_is_seen_here(tmp_path, picture):
    soundfile.write(tmp_path / "a.wav", np.zeros(100), 8000)
    with Looker("image") as look:
        assert look(picture, True) == Picture(4, 3, "RGB")
        with pytest.raises(UnreadableError, match="No such file"):
            look(tmp_path / "b.png", False)
        assert look.lost == []
    with Looker("recording") as look:
        assert look(tmp_path / "a.wav", True) == Recording(100, 8000, 1, silent=True)


def test_a_name_that_is_no_text_arrives(tmp_path, picture):
    other = picture.rename(os.fsdecode(os.fsencode(tmp_path) + b"/d\xe9j\n.png"))
    with Looker("image") as look:
        assert look(other, True).width == 4


def test_a_file_whose_decoder_dies_is_named_and_the_next_is_looked_at(picture, tmp_path):
    with Looker("image") as look:
        look(picture, False)
        os.kill(look._process.pid, signal.SIGSEGV)
        with pytest.raises(UnreadableError, match="its decoder crashed"):
            look(tmp_path / "other.png", False)
        assert look(picture, True).width == 4


def test_a_file_whose_decoder_hangs_is_named_and_the_next_is_looked_at(picture, monkeypatch):
    with Looker("image") as look:
        look(picture, False)
        stuck = look._process.pid
        os.kill(stuck, signal.SIGSTOP)
        monkeypatch.setattr(looking, "SECONDS", 0.2)
        with pytest.raises(UnreadableError, match="had not ended after 200 ms"):
            look(picture, False)
        assert not psutil.pid_exists(stuck)
        monkeypatch.undo()
        assert look(picture, True).width == 4


def test_too_many_of_these_end_it_with_their_names(picture):
    with Looker("image") as look:

        def die():
            os.kill(look._begin().pid, signal.SIGKILL)
            look(picture, False)

        for _ in range(MOST_LOST - 1):
            with pytest.raises(UnreadableError):
                die()
        with pytest.raises(AutotrainError, match=r"5 files crash or stop .*a\.png"):
            die()


def test_it_ends_with_whoever_asked():
    process = subprocess.run(
        [sys.executable, "-m", looking.__name__], input=b"", capture_output=True, check=False
    )
    assert (process.returncode, process.stdout) == (0, b"")


def test_its_memory_is_bounded(tmp_path, monkeypatch):
    """An array within the limit of arrays, and not within that of this process."""
    code = (
        "import sys; from autotrain.probe import looking; looking.MEMORY_BYTES = 8 << 20;"
        "sys.argv = ['']; looking.main()"
    )
    Image.new("RGB", (4000, 4000)).save(tmp_path / "a.png")
    asked = json.dumps(["image", str(tmp_path / "a.png"), True])
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=asked + "\n",
        text=True,
        capture_output=True,
        check=False,
    )
    assert "it asks for more memory than" in json.loads(done.stdout)["problem"]
