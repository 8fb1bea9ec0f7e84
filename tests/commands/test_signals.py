"""Real signals to a real `autotrain run`, and the resume after each."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from .house import edit

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

SLOW = "__import__('time').sleep(0.05 * ('SLOW' in __import__('os').environ))\n        "


def final(folder) -> str:
    """SHA-256 of the weights of a run's last checkpoint."""
    points = folder / "runs/mine/checkpoints"
    model = points / (points / "latest").read_text().strip() / "model.safetensors"
    return hashlib.sha256(model.read_bytes()).hexdigest()


def events(folder):
    lines = (folder / "runs/mine/events.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines if line.endswith("}")]


@pytest.fixture
def whole(trained_once):
    """The final weights of the run that nobody stopped."""
    return final(trained_once[0])


@pytest.fixture
def running(folder):
    """A run of slow samples that has taken five of its sixteen steps: (its folder, the process)."""
    text = (folder / "task.py").read_text()
    (folder / "task.py").write_text(text.replace("return self.x[i", f"{SLOW}return self.x[i"))
    edit(folder / "plan.toml", checkpoint={"every_epochs": None, "every_steps": 3})
    process = subprocess.Popen(
        [sys.executable, "-m", "autotrain", "run", "plan.toml", "--trust", "--json"],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "SLOW": "1"}, start_new_session=True,
    )  # fmt: skip
    for line in process.stdout:
        found = json.loads(line)
        if found["event"] == "step" and found["step"] >= 5:
            break
    yield folder, process
    process.kill()
    process.communicate()


def test_a_checkpoint_that_is_asked_for_is_made_and_training_goes_on(whole, running):
    """SIGUSR1, as Slurm sends it before the end, or a person who is curious."""
    folder, process = running
    process.send_signal(signal.SIGUSR1)
    for line in process.stdout:
        found = json.loads(line)
        if found["event"] == "saved" and found["label"] == "asked":
            break
    assert (folder / "runs/mine/checkpoints/latest").read_text().strip() == (
        f"step-{found['step']:08d}"
    )
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert final(folder) == whole


@pytest.mark.parametrize(
    ("number", "code", "reason"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_a_stopped_run_saves_and_its_resume_ends_the_same(whole, running, at, number, code, reason):
    folder, process = running
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "Traceback" not in err
    last = events(folder)[-1]
    assert (last["event"], last["reason"]) == ("stopped", reason)
    points = folder / "runs/mine/checkpoints"
    assert (points / "interrupted").read_text().strip() == f"step-{last['step']:08d}"
    assert last["step"] % 8  # in mid-epoch
    assert (folder / "runs/mine/report.json").is_file()
    said = at("run", "plan.toml", "--resume", "--trust")
    assert said.code == 0
    assert f"resuming from step-{last['step']:08d}" in said.err
    assert final(folder) == whole


def test_a_killed_run_ends_the_same_after_its_resume(whole, running, at):
    folder, process = running
    process.kill()
    process.communicate()
    said = at("run", "plan.toml", "--resume", "--trust")
    assert said.code == 0
    assert "resuming from step-00000003" in said.err
    assert final(folder) == whole


def test_a_dropped_line_does_not_stop_a_run_and_a_second_interrupt_does_at_once(running):
    folder, process = running
    before = len(events(folder))
    process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 30
    while len(events(folder)) <= before + 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err


def test_a_line_that_drops_while_the_task_is_made_stops_nothing(folder):
    """To index much data takes long, and nothing of the run catches a signal yet."""
    slow = "    print('TASK', flush=True); __import__('time').sleep(1)\n"
    text = (folder / "task.py").read_text()
    head = "def task(data, width=8):\n"
    assert head in text
    text = text.replace(head, head + slow)
    (folder / "task.py").write_text(text)
    process = subprocess.Popen(
        [sys.executable, "-m", "autotrain", "run", "plan.toml", "--trust", "--max-steps", "1"],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    for line in process.stdout:
        if "TASK" in line:
            os.killpg(process.pid, signal.SIGHUP)
            break
    rest = process.communicate(timeout=60)[0]
    assert process.returncode == 0, rest
    assert events(folder)[-1]["reason"] == "max_steps"


def test_a_suspended_run_keeps_its_folder_and_learns_nothing_from_it(whole, running, at):
    """As ^Z, or a supervisor that needs the cores; a second run meanwhile is refused."""
    folder, process = running
    process.send_signal(signal.SIGSTOP)
    for how in ("--resume", "--fresh"):
        said = at("run", "plan.toml", how, "--trust")
        assert said.code == 1
        assert "another run is using it" in said.error
    time.sleep(1.0)
    process.send_signal(signal.SIGCONT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert final(folder) == whole
    assert all(e["step_seconds"] < 0.9 for e in events(folder) if e["event"] == "step")


def test_a_terminal_that_is_closed_and_a_reader_that_leaves_stop_nothing(whole, folder):
    """`autotrain run --json | head -1` in a window that is closed then."""
    master, slave = os.openpty()
    command = [sys.executable, "-m", "autotrain", "run", "plan.toml", "--json"]
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait", *command], cwd=folder, stdin=slave, stderr=slave,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.close(slave)
    process.stdout.readline()
    process.stdout.close()
    os.close(master)
    assert process.wait(60) == 0
    assert final(folder) == whole
    assert events(folder)[-1]["reason"] == "finished"
