"""^C, SIGTERM and a dropped line."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from autotrain.run.signals import Stop, starting

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


@posix
@pytest.mark.parametrize(
    ("number", "reason"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")]
)
def test_the_first_signal_is_a_wish(number, reason):
    """The program goes on; whoever looks at the Stop sees why it should end."""
    before = signal.getsignal(number)
    with Stop().catch() as stop:
        os.kill(os.getpid(), number)
        assert stop.reason == reason
    assert signal.getsignal(number) is before


@posix
def test_the_second_interrupt_stops_at_once():
    """As ^C always does."""
    with Stop().catch(), pytest.raises(KeyboardInterrupt):  # noqa: PT012
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


@posix
def test_a_second_interrupt_waits_for_a_process_that_is_being_started():
    """In the middle of a fork Python would print it, and lose it."""
    came = []
    with Stop().catch(), pytest.raises(KeyboardInterrupt):  # noqa: PT012
        os.kill(os.getpid(), signal.SIGINT)
        with starting():
            threading.Thread(target=os.kill, args=[os.getpid(), signal.SIGINT]).start()
            time.sleep(0.05)
            came.append(True)
    assert came
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


@posix
def test_a_second_sigterm_kills():
    """The process dies of the signal itself, as a supervisor expects."""
    code = (
        "import os, signal, time; from autotrain.run.signals import AT_ONCE, Stop\n"
        "with Stop().catch():\n"
        "    os.kill(os.getpid(), signal.SIGTERM); time.sleep(AT_ONCE)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGTERM


@posix
def test_sigterms_at_once_are_one():
    """One to the group and one handed on; or one for each thread of a parent that ended."""
    with Stop().catch() as stop:
        for _ in range(5):
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.reason == "terminated"


@posix
def test_a_dropped_line_is_ignored():
    """SIGHUP neither stops a run nor asks it to."""
    with Stop().catch() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert stop.reason is None


def test_in_another_thread_nothing_is_caught():
    """Python delivers signals to the main thread alone; the Stop still serves."""
    seen = []

    def work():
        with Stop().catch() as stop:
            seen.append(stop.reason)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [None]
