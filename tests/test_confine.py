"""What a confined process may take."""

import signal
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")


def confined(code):
    begin = "from autotrain.confine import confine; confine(64 << 20, 1, 1 << 16)\n"
    return subprocess.run(
        [sys.executable, "-c", begin + code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_memory_beyond_what_it_may_have_is_refused():
    assert confined("bytearray(32 << 20)").returncode == 0
    assert "MemoryError" in confined("bytearray(128 << 20)").stderr


def test_processor_time_ends():
    assert confined("while True: pass").returncode == -signal.SIGXCPU


def test_a_file_grows_no_longer_than_it_may(tmp_path):
    done = confined(f"open({str(tmp_path / 'x')!r}, 'wb').write(bytes(1 << 20))")
    assert "File too large" in done.stderr
    assert (tmp_path / "x").stat().st_size <= 1 << 16
