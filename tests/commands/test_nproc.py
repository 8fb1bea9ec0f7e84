"""`autotrain run --nproc`: real processes under torchrun's agent, their endings and exit codes."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import psutil
import pytest
import typer
from safetensors.torch import load_file

from autotrain import cli as command_line
from autotrain.commands import launch, run
from autotrain.commands.places import Processes
from autotrain.errors import AutotrainError, UsageError

from .house import cli, edit

CUT = {"micro_batch": 8, "accum_steps": 2, "global_batch": 16}
# Beside what the task does: rank 1 goes wrong at a step, or all are slow.
SPOILT = """
import os, time
from dataclasses import replace

_task, _what = task, os.environ.get("SPOILT", "")
_calls = [0]


def _spoilt(made):
    def loss(model, batch):
        _calls[0] += model.training
        time.sleep(0.05 if _what == "slow" else 0)
        if model.training and _calls[0] == 6 and os.environ.get("RANK") == "1":
            if _what == "kill":
                os.kill(os.getpid(), 9)
            if _what == "bug":
                raise ValueError("an odd sample")
            if _what == "stuck":
                time.sleep(600)
        return made.loss(model, batch)

    return replace(made, loss=loss)


def task(data, width=8):
    if _what == "absent" and os.environ.get("RANK") == "1":
        raise FileNotFoundError("no data on this machine")
    return _spoilt(_task(data, width))
"""
RUN = ("run", "plan.toml", "--trust", "--nproc", "2")


def final(folder):
    """The weights of a run's last checkpoint, and its step."""
    points = folder / "runs/mine/checkpoints"
    name = (points / "latest").read_text().strip()
    return load_file(points / name / "model.safetensors"), name


def furthest(one, other):
    return max(float((one[name] - other[name]).abs().max()) for name in one)


# Gloo's threads can abort a process while Python takes itself down: this tells that it does.
TAKEN_DOWN = """
import os, sys


class Last:
    def __del__(self, write=os.write):
        write(2, b"taken down")


if "RANK" in os.environ:
    sys.last_of_all = Last()
"""


@pytest.fixture
def spoilt(folder):
    """A task that goes wrong in one of the processes, as the environment says."""
    with (folder / "task.py").open("a") as file:
        file.write(SPOILT)
    edit(folder / "plan.toml", batch=CUT, train={"epochs": 6})
    return folder


def going_wrong(what):
    return {**os.environ, "SPOILT": what}


@contextmanager
def started(folder, what="slow", steps=1):
    """Two processes that have taken a step or two."""
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "autotrain", *RUN, "--json"], cwd=folder, text=True,
            stdout=subprocess.PIPE, stderr=said, start_new_session=True, env=going_wrong(what),
        )  # fmt: skip
    with process:
        for line in process.stdout:
            event = json.loads(line)
            if event["event"] == "step" and event["step"] >= steps:
                break
        yield process
        process.stdout.read()  # until the last of those that hold it has ended


def last_event(folder):
    return json.loads((folder / "runs/mine/events.jsonl").read_text().splitlines()[-1])


@pytest.mark.parametrize("strategy", ["ddp", "shard"])
def test_two_processes_train_what_one_does_and_one_speaks(folder, at, strategy):
    """The model has dropout: micro-batch and position decide what is drawn, not the process."""
    edit(folder / "plan.toml", batch=CUT, parallel={"strategy": strategy})
    with (folder / "task.py").open("a") as file:
        file.write(TAKEN_DOWN)
    assert at("run", "plan.toml", "--trust").code == 0
    alone = final(folder)
    done = cli(*RUN, "--fresh", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert final(folder)[1] == alone[1]
    assert furthest(final(folder)[0], alone[0]) < 1e-6
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [e["event"] for e in events if e["event"] in ("started", "stopped")] == [
        "started", "stopped",
    ]  # fmt: skip
    assert done.stderr.count("the task got") == 1
    assert "taken down" not in done.stderr
    (warned,) = (e["message"] for e in events if "processes" in e.get("message", ""))
    assert "accumulated over 1 micro-batches of 8 in each of 2 processes" in warned
    assert (folder / "runs/mine/report.json").exists()


@pytest.mark.parametrize(
    ("processes", "fault"),
    [
        (Processes(1, 2), "--nnodes 2: --rdzv-endpoint HOST:PORT"),
        (Processes(2, None, "here:1"), "are for --nnodes of 2 or more"),
        (Processes(2, 2, "here:1", 2), "--node-rank 2: of 2 machines, 0 to 1"),
    ],
)
def test_flags_that_do_not_go_together(processes, fault):
    with pytest.raises(UsageError, match=fault):
        launch.check(processes)


def test_nproc_within_torchrun_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(UsageError, match="torchrun started this process already"):
        launch.check(Processes(2))


def test_one_process_is_no_launch(folder, at):
    assert at("run", "plan.toml", "--nproc", "1", "--max-steps", "1").code == 0


def test_a_malformed_plan_is_said_once_before_anything_starts(folder, at):
    edit(folder / "plan.toml", batch={"micro_batch": 0})
    said = at("run", "plan.toml", "--nproc", "2")
    assert said.code == 2
    assert said.err.count("batch.micro_batch") == 1


OF_LAUNCH = {"nproc", "nnodes", "rdzv_endpoint", "node_rank"}
FLAGS = [
    option
    for option in typer.main.get_command(command_line.app).commands["run"].params
    if option.opts[0].startswith("--") and option.name not in {"help", *OF_LAUNCH}
]


@pytest.mark.parametrize("option", FLAGS, ids=lambda option: option.name)
def test_each_flag_of_run_reaches_the_processes(option, at, monkeypatch):
    """What each process is told says again what this one was told, whatever it was."""
    told = []
    monkeypatch.setattr(launch, "launch", lambda asked, _processes: told.append(asked) or 0)
    monkeypatch.setattr(run, "run", lambda asked: told.append(asked) or 0)
    value = [] if option.is_flag else ["3"]
    assert at("run", "plan.toml", option.opts[0], *value, "--nproc", "2").code == 0
    assert at(*launch.arguments(told[0])).code == 0
    plain = run.Asked("plan.toml", False, False, None, False, False)
    assert told[0] == told[1] != plain


def test_a_tracker_that_is_not_there_is_said_once_before_anything_starts(folder, at):
    said = at("run", "plan.toml", "--nproc", "2", "--track", "wandbb")
    assert said.code == 1
    assert said.err.count("wandbb") == 1
    assert not (folder / "runs").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="there it is as it is")
def test_on_windows_the_console_itself_sends_an_interrupt_to_the_processes(monkeypatch):
    """psutil would refuse SIGINT there, and kill for SIGTERM, which no other process can send."""
    monkeypatch.setattr(psutil.Process, "send_signal", _PsutilsProcess().send_signal)
    before = signal.getsignal(signal.SIGTERM)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        with monkeypatch.context() as there:
            there.setattr(sys, "platform", "win32")
            with launch.signals_go_on() as handed:
                assert signal.getsignal(signal.SIGTERM) is before
                signal.raise_signal(signal.SIGINT)
                signal.raise_signal(signal.SIGINT)
        assert child.poll() is None
        child.kill()
    assert launch.exit_code({0: Failure(130, 1.0)}, handed) == 130


class _PsutilsProcess:
    """As `psutil._pswindows.Process` has it."""

    def send_signal(self, number):
        raise ValueError("only SIGTERM, CTRL_C_EVENT and CTRL_BREAK_EVENT signals are supported")


class Failure:
    def __init__(self, exitcode, timestamp):
        self.exitcode, self.timestamp = exitcode, timestamp


def test_the_exit_code_is_that_of_the_first_failure():
    assert launch.exit_code({0: Failure(1, 2.0), 1: Failure(4, 1.0)}) == 4
    assert launch.exit_code({0: Failure(130, 1.0)}) == 130
    assert launch.exit_code({1: Failure(77, 1.0)}) == 1
    assert launch.exit_code({0: Failure(-15, 1.0)}) == 1
    assert launch.exit_code({0: Failure(-15, 1.0)}, [signal.SIGUSR1, signal.SIGTERM]) == 143
    with pytest.raises(AutotrainError, match="process 1 was killed by SIGKILL"):
        launch.exit_code({0: Failure(1, 1.0), 1: Failure(-9, 2.0)})


# --- slow: each starts processes that import torch ----------------------------------------------


# As in torch's wheels for Windows: a store that is asked for libuv cannot be made.
WITHOUT_LIBUV = """
import torch.distributed as dist
from torch.distributed import distributed_c10d, rendezvous


class Store(dist.TCPStore):
    def __init__(self, *given, use_libuv=True, **more):
        if use_libuv:
            raise RuntimeError("use_libuv was requested, but built without libuv support")
        super().__init__(*given, use_libuv=False, **more)


for module in (dist, distributed_c10d, rendezvous):
    module.TCPStore = Store
"""


@pytest.mark.slow
def test_processes_meet_where_torch_is_built_without_libuv(folder, tmp_path):
    """USE_LIBUV=0, which torch documents and its agent does not read, is usual on Windows."""
    (tmp_path / "wheel").mkdir()
    (tmp_path / "wheel" / "sitecustomize.py").write_text(WITHOUT_LIBUV)
    paths = [str(tmp_path / "wheel"), *sys.path]
    there = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    edit(folder / "plan.toml", batch=CUT)
    done = cli(*RUN, "--max-steps", "2", cwd=folder, env=there)
    assert done.returncode == 1
    assert "error: the processes could not be started: use_libuv was requested" in done.stderr
    done = cli(*RUN, "--max-steps", "2", cwd=folder, env={**there, "USE_LIBUV": "0"})
    assert done.returncode == 0, done.stderr
    assert final(folder)[1] == "step-00000002"


@pytest.mark.slow
def test_a_killed_process_ends_all_and_is_named(spoilt):
    done = cli(*RUN, cwd=spoilt, env=going_wrong("kill"))
    assert done.returncode == 1
    assert "error: process 1 was killed by SIGKILL" in done.stderr
    assert last_event(spoilt)["reason"] == "error"
    assert final(spoilt)[1] == "step-00000005"  # the last whole step


@pytest.mark.slow
def test_a_fault_in_one_is_an_error_said_once(spoilt):
    done = cli(*RUN, "--json", cwd=spoilt, env=going_wrong("bug"))
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    (error,) = errors
    assert error.startswith("error: process 1: step 6: ValueError: an odd sample")
    assert last_event(spoilt)["detail"] == error.removeprefix("error: ")


@pytest.mark.slow
def test_a_task_that_fails_in_one_is_said_before_the_run_begins(spoilt):
    done = cli(*RUN, cwd=spoilt, env=going_wrong("absent"))
    assert done.returncode == 1
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert error.startswith("error: process 1: ")
    assert "no data on this machine" in error
    assert not (spoilt / "runs").exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(
    ("number", "code", "reason"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_a_signal_stops_all_and_torchrun_goes_on(spoilt, number, code, reason, at):
    assert at("run", "plan.toml", "--trust").code == 0
    whole, name = final(spoilt)
    (spoilt / "runs").rename(spoilt / "alone")
    with started(spoilt) as process:
        os.kill(process.pid, number)
    assert process.returncode == code
    ended = last_event(spoilt)
    assert ended["reason"] == reason
    assert final(spoilt)[1] == f"step-{ended['step']:08d}"
    # `torchrun --nproc-per-node 2`: the user's own way to start them.
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m"]
    done = subprocess.run(
        [*torchrun, "autotrain", "run", "plan.toml", "--resume", "--trust"], cwd=spoilt,
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert final(spoilt)[1] == name
    assert furthest(final(spoilt)[0], whole) < 1e-6


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's end")
def test_processes_do_not_outlive_the_one_that_started_them(spoilt):
    with started(spoilt) as process:
        process.kill()
    ended = last_event(spoilt)
    assert (ended["event"], ended["reason"]) == ("stopped", "terminated")
    assert final(spoilt)[1] == f"step-{ended['step']:08d}"


@pytest.mark.slow
def test_a_killed_process_of_a_divided_model_ends_all(spoilt):
    """Its part of the last step is gone with it: what was saved before is kept."""
    edit(spoilt / "plan.toml", parallel={"strategy": "shard"},
         checkpoint={"every_epochs": None, "every_steps": 2})  # fmt: skip
    done = cli(*RUN, cwd=spoilt, env=going_wrong("kill"))
    assert done.returncode == 1
    assert "error: process 1 was killed by SIGKILL" in done.stderr
    assert final(spoilt)[1] == "step-00000004"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_second_interrupt_stops_all_at_once(spoilt):
    """One is stuck in its sixth step, and the other waits for it."""
    with started(spoilt, "stuck", steps=5) as process:
        time.sleep(1)
        os.kill(process.pid, signal.SIGINT)
        time.sleep(2)
        assert process.poll() is None
        os.kill(process.pid, signal.SIGINT)
        process.wait(20)
    assert process.returncode == 130
    assert "Traceback" not in (spoilt / "said").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("numbered", [False, True])
def test_two_machines_meet_at_an_endpoint(folder, at, numbered, tmp_path):
    """Two agents with a process each, in folders of their own: the one of rank 0 has the run."""
    edit(folder / "plan.toml", batch=CUT)
    assert at("run", "plan.toml").code == 0
    alone, name = final(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{free.getsockname()[1]}"
    machines = [tmp_path / str(number) / "mine" for number in range(2)]
    for machine in machines:
        shutil.copytree(folder, machine, ignore=shutil.ignore_patterns("runs"))
    flags = ("--nnodes", "2", "--rdzv-endpoint", endpoint)
    agents = [
        subprocess.Popen(
            [sys.executable, "-m", "autotrain", "run", "plan.toml", *flags,
             *(("--node-rank", str(number)) if numbered else ())],
            cwd=machine, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for number, machine in enumerate(machines)
    ]  # fmt: skip
    said = [agent.communicate(timeout=200)[1] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], said
    (wrote,) = [machine for machine in machines if (machine / "runs").exists()]
    assert wrote == machines[0] or not numbered
    assert final(wrote)[1] == name
    assert furthest(final(wrote)[0], alone) < 1e-6
