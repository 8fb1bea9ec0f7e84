"""Signals at any instant, one or two, to a run or to its loader workers too."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from commands.house import TASK, cli
from run.plans import make_plan

from autotrain import planfile, task
from autotrain.run.keeping import checkpoint, keeper
from autotrain.run.signals import AT_ONCE

from .conftest import ending, healed, insist_on_reported, said

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

WAYS = [
    {"background": background, "workers": workers} for background in (False, True)
    for workers in (0, 1, 2)
]  # fmt: skip
HARMLESS = ["SIGHUP", "SIGUSR1", "SIGCONT"]
CODES = {"SIGINT": 130, "SIGTERM": 143}


def named(way):
    return "-".join(map(str, way.values()))


def asked(dice, seconds):
    """What is sent when: (seconds since the one before, number, to the workers too)."""
    group = dice.random() < 0.5
    sent = [(dice.uniform(0, 1.1 * seconds), dice.choice(["SIGINT", "SIGTERM"]))]
    if dice.random() < 0.3:
        sent.insert(0, (dice.uniform(0, 0.9 * seconds), dice.choice(HARMLESS)))
    if dice.random() < 0.4:  # a SIGTERM is a second one only after a while
        gap = dice.choice([dice.uniform(0, 0.02), dice.uniform(0, 0.2), AT_ONCE])
        sent.append((gap, dice.choice(["SIGINT", "SIGTERM"])))
    return [(wait, int(getattr(signal, name)), group) for wait, name in sent]


def complaints(victim):
    return os.path.getsize(victim.folder / "errors")


@pytest.mark.parametrize("way", WAYS, ids=named)
def test_signals_at_any_instant_lose_nothing_and_leave_no_traceback(
    victim, unharmed, dice, times, tmp_path, way
):
    hashes, seconds = unharmed
    ended = {}
    for number in range(max(times // len(WAYS), 1)):
        directory, signals = tmp_path / str(number), asked(dice, seconds)
        before = complaints(victim)
        code = victim.ask(directory, **way, signals=signals)["code"]
        ended[code] = ended.get(code, 0) + 1
        # Killed by the signal itself: before a run catches it, or by the second.
        assert code in (0, 130, 143, -signal.SIGTERM, -signal.SIGUSR1), signals
        insist_on_reported(directory, signals, code)
        asks = [n for _, n, _ in signals if n in (signal.SIGINT, signal.SIGTERM)]
        if code in CODES.values() and len(asks) == 1 and directory.exists() and not said(directory):
            held = keeper.pointed(directory)
            newest, _ = checkpoint.newest_good(directory)
            if newest is not None:
                assert held["interrupted"] == held["latest"] == checkpoint.step_of(newest)
        with open(victim.folder / "errors") as log:
            log.seek(before)
            assert "Traceback" not in log.read(), signals
        assert victim.ask(directory, **way, resume=directory.exists())["code"] == 0, signals
        assert ending(directory) == hashes, signals
        assert not list(checkpoint.checkpoints(directory).glob(".*"))
        shutil.rmtree(directory)
    print(ended)


@pytest.mark.parametrize("way", WAYS[::2], ids=named)
def test_a_suspended_run_goes_on_as_if_it_had_not_been(
    victim, unharmed, dice, times, tmp_path, way
):
    """Also where it was in the middle of a save, and where its workers stand still with it."""
    hashes, seconds = unharmed
    for number in range(max(times // 300, 1)):
        directory = tmp_path / str(number)
        pause = 60.0 if times >= 300 else 1.0
        asked = {"samples": {"pauses": dice.randrange(60), "seconds": pause}}
        if not way["workers"]:
            asked = {"signals": [(dice.uniform(0.1, 0.9) * seconds, int(signal.SIGSTOP), True),
                                 (pause, int(signal.SIGCONT), True)]}  # fmt: skip
        told = victim.ask(directory, **way, **asked, timeout=0.5)
        assert told["code"] == 0
        assert told["seconds"] > pause
        assert not healed(directory)
        assert ending(directory) == hashes
        shutil.rmtree(directory)


@pytest.fixture
def command_line(tmp_path):
    """A folder with a plan, to be run by the command line: the folder, and how."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "task.py").write_text(TASK)
    sha256 = task.file_sha256(folder / "task.py")
    plan = make_plan(task={"file": "task.py", "sha256": sha256}, loader={"workers": 1},
                     run={"name": "mine", "directory": "runs/mine"})  # fmt: skip
    planfile.save(plan, folder / "plan.toml")
    return folder, ["run", "plan.toml", "--trust"]


@pytest.mark.slow  # three processes for each trial
def test_a_signal_while_a_run_starts_leaves_nothing_half_made(command_line, dice, times, tmp_path):
    """From the first import to the last line, to the whole group, as ^C at a terminal."""
    folder, run = command_line
    begun = time.perf_counter()
    assert cli(*run, cwd=folder).returncode == 0
    seconds, run_folder = time.perf_counter() - begun, folder / "runs/mine"
    model = "checkpoints/{}/model.safetensors"
    name = (run_folder / "checkpoints/latest").read_text().strip()
    whole, ended = (run_folder / model.format(name)).read_bytes(), {}
    for _ in range(max(times // 20, 1)):
        shutil.rmtree(run_folder, ignore_errors=True)
        number = dice.choice([signal.SIGINT, signal.SIGTERM])
        with subprocess.Popen(
            [sys.executable, "-m", "autotrain", *run], cwd=folder, stderr=subprocess.PIPE,
            text=True, start_new_session=True,
        ) as process:  # fmt: skip
            time.sleep(dice.uniform(0, 1.1 * seconds))
            if process.poll() is None:
                os.killpg(process.pid, number)
            _, said = process.communicate(timeout=60)
        code = process.returncode
        ended[code] = ended.get(code, 0) + 1
        assert code in (0, CODES[number.name], -number), said
        # Python itself shows where an interrupt met it before there was a `main`.
        assert "Traceback" not in said or ", in main" not in said, said
        how = ["--resume"] if run_folder.exists() else []
        done = cli(*run, *how, cwd=folder)
        assert done.returncode == 0, done.stderr
        assert (run_folder / model.format(name)).read_bytes() == whole
    print(ended)
