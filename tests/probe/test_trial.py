"""A trial: real steps of a plan, in this process where what it says matters, else in its child."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest
import torch

from autotrain.probe import race, ways
from autotrain.probe.child import Request, setup_of, take_steps
from autotrain.probe.steps import longest_samples
from autotrain.probe.trial import MOST_STEPS, tried
from autotrain.schema import Plan, Variant
from autotrain.task import Task

MIB = 2**20
TASK = """
import torch
from torch import nn
from torch.nn import functional
from autotrain import Loss, Task

class Points(torch.utils.data.Dataset):
    def __len__(self):
        return 64
    def __getitem__(self, index):
        return torch.randn(16) + index, index % 2

def net(wide=8):
    return nn.Sequential(nn.Linear(16, wide), nn.BatchNorm1d(wide), nn.ReLU(), nn.Linear(wide, 2))

def task(data):
    return Task.classification(model=net, train=Points(), valid=Points(){more})
"""
PREDICTED = ("tensor_peak", "reserved_peak", "device_peak", "checkpoint")
NUMBERS = {"low": 1, "expected": 2, "high": 3}


def plan(**changes) -> Plan:
    """A small plan; `plan(batch={"micro_batch": 8})` changes that key of that section."""
    sections = {
        "task": {"file": "task.py", "sha256": "0" * 64},
        "run": {"name": "test", "directory": "runs/test", "seed": 7, "log_every_steps": 2},
        "device": {"kind": "cpu", "index": 0, "threads": 1},
        "memory": {"share": 0.8, "budget_bytes": 1 << 30},
        "batch": {"micro_batch": 4, "accum_steps": 2, "world_size": 1, "global_batch": 8},
        "precision": {"dtype": "fp32"},
        "optimizer": {
            "name": "adamw",
            "lr": 1e-2,
            "weight_decay": 0.01,
            "implementation": "foreach",
            "clip_norm": 1.0,
        },
        "schedule": {"name": "cosine", "warmup_steps": 2, "min_lr": 0.0},
        "train": {"epochs": 3},
        "early_stop": {"min_delta": 0.0},
        "evaluate": {"every_epochs": 1},
        "checkpoint": {"every_epochs": 1, "keep": 2},
        "loader": {"workers": 0, "prefetch": 2, "pin_memory": False, "start_method": "fork"},
        "data": {"valid_share": 0.2},
        "inputs": {"hardware": "", "dataset": "", "model": ""},
        "predicted": {f"{name}_bytes": NUMBERS for name in PREDICTED}
        | {"step_seconds": NUMBERS, "run_seconds": NUMBERS},
    }
    sections = {name: {**keys, **changes.pop(name, {})} for name, keys in sections.items()}
    return Plan(schema=1, made_by="tests", recipe="none", **sections, **changes)


@pytest.fixture
def request_for(tmp_path):
    """A request on a task file: `request_for(end, more, **plan changes)`.

    `more` are arguments of the Task; `end` is source that stands at the end of the file.
    """

    def made(end="", more="", **changes):
        keywords = {key: changes.pop(key) for key in ("steps", "tensors") if key in changes}
        source = TASK.replace("{more}", f", {more}" if more else "")
        path = tmp_path / "task.py"
        path.write_text(source + textwrap.dedent(end))
        return Request(plan=plan(**changes), task_file=str(path), data=None, **keywords)

    return made


@pytest.fixture(autouse=True)
def as_before():
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    yield
    torch.set_rng_state(state)
    torch.set_num_threads(threads)


# --- what it does ---------------------------------------------------------------------------


def test_a_trial_says_what_was_tried_and_what_it_took(request_for):
    trial = tried(request_for(tensors=True))
    assert (trial.outcome, trial.message) == ("ok", "")
    assert (trial.micro_batch, trial.accum_steps) == (4, 2)
    assert 3 < trial.steps <= MOST_STEPS  # short ones: as many as can be
    # The step whose tensors are counted, in the end, adds two.
    assert len(trial.losses) == 2 * trial.steps + 2
    assert trial.device_peak_bytes >= trial.base_bytes > 50 * MIB
    parameters = 16 * 8 + 8 + 2 * 8 + 8 * 2 + 2
    assert 4 * parameters * 4 < trial.tensor_peak_bytes < 16 * parameters * 4
    assert trial.reserved_peak_bytes is None
    assert 0 < trial.update_seconds < 10
    assert 0 < trial.micro_seconds < 10


def test_sparse_gradients_are_clipped_too(request_for):
    """And an optimizer that takes none says so."""
    end = """
    def net():
        return nn.Sequential(nn.Embedding(9, 4, sparse=True), nn.Flatten(), nn.Linear(64, 2))
    def task(data):
        rows = [(torch.arange(16) % 9, index % 2) for index in range(64)]
        return Task.classification(model=net, train=rows, valid=rows)
    """
    chosen = {"name": "sgd", "weight_decay": 0.0}
    assert tried(request_for(end, optimizer=chosen)).outcome == "ok"
    refused = tried(request_for(end))
    assert "the gradients of 0.weight are sparse" in refused.message


def test_many_micro_batches_are_tried_as_two(request_for):
    many = {"micro_batch": 4, "accum_steps": 6, "global_batch": 24}
    trial = tried(request_for(batch=many, steps=2))
    assert trial.accum_steps == 2
    assert len(trial.losses) == 2 * trial.steps


SLOW_AT_FIRST = """
import time
class Slow(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.calls = net(), 0
    def forward(self, x):
        self.calls += 1
        time.sleep(0.15 if self.calls < 6 else 0.005)
        return self.net(x)
def task(data):
    return Task.classification(model=Slow, train=Points(), valid=Points())
"""


def test_short_steps_are_timed_once_they_are_warm_and_long_ones_are_few(request_for):
    assert tried(request_for(SLOW_AT_FIRST)).micro_seconds < 0.1
    long = tried(request_for(SLOW_AT_FIRST.replace("< 6", "< 99")))
    assert long.steps < 10
    assert long.micro_seconds > 0.15


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_the_plans_precision_and_optimizer_are_tried(request_for, dtype):
    trial = tried(
        request_for(
            precision={"dtype": dtype},
            optimizer={"name": "sgd", "momentum": 0.9, "implementation": "for-loop"},
            steps=2,
        )
    )
    assert trial.outcome == "ok"
    assert (trial.dtype, trial.optimizer, trial.momentum) == (dtype, "sgd", 0.9)


def test_it_leaves_the_processs_settings_as_they_were(request_for):
    before = torch.get_num_threads(), torch.get_float32_matmul_precision()
    tried(request_for(steps=1))
    assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == before


def test_the_longest_samples_are_tried_each_once():
    task = Task(model=None, train=range(100), loss=None, length=lambda i: (37 * i) % 101)
    chosen = longest_samples(task, 5)
    assert sorted(map(task.length, chosen), reverse=True) == [100, 99, 98, 97, 96]
    assert [task.length(i) for i in longest_samples(task, 2, most=50.5)] == [50, 49]
    assert len(set(longest_samples(task, 100))) == 100
    assert len(longest_samples(task, 250)) == 250


def test_without_lengths_samples_come_from_the_whole_dataset():
    task = Task(model=None, train=range(90), loss=None)
    assert longest_samples(task, 3) == [0, 30, 60]
    assert sorted(set(longest_samples(task, 200))) == list(range(90))


def test_every_bucket_is_tried_with_its_own_longest(request_for):
    seen = """
    import pathlib
    def note(samples):
        with open(pathlib.Path(__file__).parent / "seen", "a") as file:
            file.write(" ".join(str(label) for _, label in samples) + "\\n")
        return torch.utils.data.default_collate(samples)
    class Points(Points):
        def __getitem__(self, index):
            return torch.randn(16), index
    def task(data):
        return Task(model=net, train=Points(), length=float, collate=note, loss=lambda model, batch:
            Loss(total=functional.cross_entropy(model(batch[0]), batch[1] % 2, reduction="sum"),
                 weight=len(batch[1])))
    """
    batch = {"micro_batch": 2, "buckets": [[10.0, 4], [64.0, 2]], "target_items": 80.0}
    request = request_for(seen, batch=batch, steps=1)
    trial = tried(request)
    assert trial.outcome == "ok", trial.message
    assert trial.buckets == ((10.0, 4), (64.0, 2))
    seen = Path(request.task_file).with_name("seen").read_text().splitlines()
    assert seen[:2] == ["10 9 8 7", "63 62"]


# --- what it names --------------------------------------------------------------------------

LOSS = "loss=lambda model, batch: wrong(model, batch)"
END = """
def task(data):
    return Task(model=net, train=Points(), {more}loss=lambda model, batch: wrong(model, batch))
def good(model, batch):
    total = functional.cross_entropy(model(batch[0]), batch[1], reduction="sum")
    return Loss(total=total, weight=len(batch[1]))
def wrong(model, batch):
    {body}
"""


def wrong(body, more=""):
    return END.replace("{body}", body).replace("{more}", more)


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_loss_that_is_no_number_is_named(request_for, value):
    body = f"return Loss(total=good(model, batch).total * float('{value}'), weight=1)"
    trial = tried(request_for(wrong(body)))
    assert trial.outcome == "not_finite"
    assert f"the loss is {value} at step 1, micro-batch 1" in trial.message
    assert "optimizer.lr" in trial.hint


@pytest.mark.parametrize(
    ("end", "says"),
    [
        (wrong("return batch[2]"), "the loss: IndexError"),
        (
            wrong("return good(model, batch)", "measure=lambda model, batch: 1 / 0, "),
            "the task's measure: ZeroDivisionError",
        ),
        (
            wrong("return good(model, batch)", "collate=lambda samples: samples[99], "),
            "the collate refuses a batch: IndexError",
        ),
        (
            "class Points(Points):\n    def __getitem__(self, index): raise OSError('torn')",
            "loading training sample 0: OSError: torn",
        ),
        ("def net(): return 1 / 0", "building the model: ZeroDivisionError"),
        (
            wrong("return Loss(total=good(model, batch).total.detach(), weight=1)"),
            "the gradients: RuntimeError",
        ),
        ("def task(data): return None", "returned NoneType, not autotrain.Task"),
    ],
)
def test_an_error_in_the_tasks_code_is_named_with_its_line(request_for, end, says):
    request = request_for(end)
    trial = tried(request)
    assert trial.outcome == "failed"
    assert says in trial.message
    assert trial.message.startswith(request.task_file)
    if "Error" in says and "gradients" not in says:
        assert trial.message.split(":")[1].isdigit()


def test_memory_that_runs_out_is_named(request_for):
    trial = tried(request_for(wrong("torch.empty(1 << 50)")))
    assert trial.outcome == "out_of_memory"
    assert "the loss" in trial.message


def test_a_model_that_ignores_its_input_is_named(request_for):
    deaf = """
    class Deaf(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(2))
        def forward(self, x):
            return self.bias.expand(len(x), 2)
    net = Deaf
    """
    trial = tried(request_for(deaf))
    assert trial.outcome == "failed"
    assert "does not depend on its input" in trial.message


def test_a_model_whose_output_is_the_most_over_samples_is_not_suspected(request_for):
    """It answers the same in whatever order it is given the samples."""
    most = """
    class Most(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(16, 2)
        def forward(self, x):
            return self.layer(x).amax(0, keepdim=True).expand(len(x), 2)
    net = Most
    """
    assert tried(request_for(most)).outcome == "ok"


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_on_a_gpu_the_allocator_and_the_driver_tell(request_for, dtype):
    device = {"kind": "cuda", "index": 0, "threads": 1}
    request = request_for(device=device, precision={"dtype": dtype})
    trial = take_steps(request, seconds=120)
    assert trial.outcome == "ok", trial.message
    assert 0 < trial.tensor_peak_bytes <= trial.reserved_peak_bytes
    assert trial.base_bytes == 0
    assert trial.device_peak_bytes is None or trial.device_peak_bytes > trial.reserved_peak_bytes


# --- the child ------------------------------------------------------------------------------


def test_the_child_answers_and_what_a_task_prints_is_no_answer(request_for, capfd):
    loud = 'print(\'{"outcome": "failed"}\')\nimport sys; sys.stdin.read()'
    trial = take_steps(request_for(loud, steps=2), seconds=120)
    assert (trial.outcome, trial.steps) == ("ok", MOST_STEPS), trial.message
    assert trial.device_peak_bytes > 100 * MIB
    assert capfd.readouterr() == ("", "")
    assert not [c for c in psutil.Process().children() if "autotrain.probe.trial" in c.cmdline()]


HANGS = """
import os, pathlib, subprocess, time
def net():
    one = subprocess.Popen(["sleep", "600"])
    two = subprocess.Popen(["sleep", "600"], start_new_session=True)
    (pathlib.Path(__file__).parent / "pids").write_text(f"{os.getpid()} {one.pid} {two.pid}")
    time.sleep(600)
"""


def pids(request, seconds=120):
    """Of the child and what it started, once it has."""
    place = Path(request.task_file).with_name("pids")
    for _ in range(int(seconds / 0.1)):
        if place.exists() and len(found := place.read_text().split()) == 3:
            return [int(pid) for pid in found]
        time.sleep(0.1)
    raise AssertionError("the child did not start")


def gone(pid):
    for _ in range(100):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.1)
    return False


def test_a_child_is_stopped_in_time(request_for):
    begun = time.monotonic()
    trial = take_steps(request_for(HANGS), seconds=0.5)
    assert time.monotonic() - begun < 6
    assert (trial.outcome, trial.message) == ("timed_out", "it had not finished after 500 ms")
    assert not [c for c in psutil.Process().children() if "autotrain.probe.trial" in c.cmdline()]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="starts sleep")
def test_a_child_that_takes_too_long_is_ended_with_all_it_started(request_for):
    request = request_for(HANGS)
    begun = time.monotonic()
    trial = take_steps(request, seconds=25)
    assert time.monotonic() - begun < 60
    assert trial.outcome == "timed_out"
    assert "25 s" in trial.message
    assert all(gone(pid) for pid in pids(request))


@pytest.mark.skipif(sys.platform == "win32", reason="kills by signal")
@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_a_child_dies_with_the_process_that_started_it(request_for, tmp_path, end):
    request = request_for(HANGS)
    (tmp_path / "request.json").write_text(request.model_dump_json(by_alias=True))
    code = (
        "import sys, pathlib; from autotrain.probe.child import Request, take_steps;"
        "take_steps(Request.model_validate_json(pathlib.Path(sys.argv[1]).read_bytes()),"
        " seconds=300)"
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "request.json"], stderr=subprocess.DEVNULL
    )
    offspring = pids(request)
    starter.send_signal(end)
    starter.wait(30)
    assert all(map(gone, offspring))


@pytest.mark.slow
def test_a_child_that_the_system_kills_ran_out_of_memory(request_for):
    killed = "import os, signal\ndef net(): os.kill(os.getpid(), signal.SIGKILL)"
    trial = take_steps(request_for(killed), seconds=120)
    assert trial.outcome == "out_of_memory"
    assert trial.device_peak_bytes > 50 * MIB


@pytest.mark.slow
def test_a_crash_of_native_code_is_named(request_for):
    trial = take_steps(request_for("import os\ndef net(): os.abort()"), seconds=120)
    assert trial.outcome == "failed"
    assert "signal 6" in trial.message


HUNGRY = wrong(
    "globals().setdefault('kept', []).append(torch.ones(1 << 26)); return good(model, batch)"
)


@pytest.mark.slow
def test_a_child_that_holds_more_than_there_is_is_ended(request_for):
    request = request_for(HUNGRY + "\nimport time; time.sleep(0)", steps=500)
    trial = take_steps(request, seconds=120, most_bytes=1500 * MIB)
    assert trial.outcome == "out_of_memory"
    assert trial.device_peak_bytes > 1500 * MIB


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits its own address space")
def test_a_limit_of_the_address_space_is_memory_that_runs_out(request_for):
    limited = "import resource\nresource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30))\n"
    trial = take_steps(request_for(HUNGRY + limited, steps=500), seconds=120)
    assert trial.outcome == "out_of_memory"
    assert "the loss" in trial.message


def test_a_setup_is_the_plans(request_for):
    request = request_for(steps=1)
    trial = tried(request)
    assert {name: getattr(trial, name) for name in setup_of(request.plan)} == setup_of(request.plan)


def test_a_race_keeps_the_kernels_of_all_its_ways(request_for, monkeypatch):
    """A run keeps those of one step: each way would push out the others', and make its own anew."""
    kept, step = set(), ways.step

    def noted(*arguments):
        kept.add(os.environ.get("ONEDNN_PRIMITIVE_CACHE_CAPACITY"))
        return step(*arguments)

    monkeypatch.setattr(ways, "step", noted)
    entered = tuple(Variant(dtype, "contiguous", 1) for dtype in ("fp32", "bf16"))
    asked = race.RaceRequest(
        take=request_for(), variants=entered, margin=0.05, near=1.25, seconds=0.0
    )
    assert race.raced(asked).outcome == "ok"
    assert kept == {str(race.KERNELS)}
    assert "ONEDNN_PRIMITIVE_CACHE_CAPACITY" not in os.environ
