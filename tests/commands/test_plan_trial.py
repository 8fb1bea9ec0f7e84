"""`autotrain plan --trial`: real steps in a child correct the plan, and are kept."""

import json
import re

import pytest

from autotrain import planfile
from autotrain.commands import racing, trying
from autotrain.errors import DoesNotFitError
from autotrain.probe import child, limits
from autotrain.schema import Trial

from .house import ONE_WAY, PLAN, SMALL, TASK, trial


@pytest.fixture
def task(tmp_path, monkeypatch):
    """A folder with a task file; `task(source)` changes it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUTOTRAIN_HOME", str(tmp_path / "home"))

    def write(source=TASK):
        (tmp_path / "task.py").write_text(source)
        return tmp_path

    write()
    return write


@pytest.fixture
def steps(monkeypatch):
    """In place of the child: `steps.answers` are given in turn, `steps.asked` is what was tried.

    Nothing races besides.
    """

    class Steps:
        def __init__(self):
            self.asked, self.answers = [], []

        def __call__(self, request, *, seconds, most_bytes=None):
            self.asked.append(child.setup_of(request.plan))
            return trial(request.plan, **self.answers.pop(0) if self.answers else {})

    made = Steps()
    monkeypatch.setattr(child, "take_steps", made)
    monkeypatch.setattr(racing, "raced", lambda case, *_, **__: case)
    return made


def planned(at, *more):
    said = at(*PLAN, *SMALL, "--json", *more)
    assert said.code == 0, said.err
    return json.loads(said.out), said.err


def test_a_sample_that_cannot_be_read_ends_no_plan_and_is_named(task, at):
    """The first, which every plan looks at; a run of the plan puts it aside."""
    torn = """
class Torn(Points):
    def __getitem__(self, index):
        return super().__getitem__(index or 1 / 0)


def net("""
    task(TASK.replace("def net(", torn).replace("train=Points", "train=Torn"))
    plan, err = planned(at, *ONE_WAY, "--trial")
    assert plan["batch"]["micro_batch"] == 8
    (line,) = [x for x in err.splitlines() if x.startswith("tried ")]
    assert "training sample 0 is left out" in line
    assert "ZeroDivisionError" in line
    assert at("run", "plan.toml").code == 0


def test_a_trial_by_the_real_thing_corrects_the_plan_and_serves_the_next(task, at, monkeypatch):
    # Both plans are made in this process, which grows by loading the task for the first alone.
    monkeypatch.setattr(limits, "resident_bytes", lambda: 600 << 20)
    plan, err = planned(at, *ONE_WAY, "--trial")
    (line,) = [x for x in err.splitlines() if x.startswith("tried ")]
    assert re.match(r"tried \d+ steps at micro_batch 8: ", line)
    assert ", predicted " in line
    assert line.endswith("a step")
    said = plan["because"]["predicted"]["device_peak_bytes"]
    assert said["kind"] == "measured"
    assert said["formula"].startswith("a trial at micro_batch 8 took ")
    peak = plan["predicted"]["device_peak_bytes"]
    assert peak["high"] < 1.1 * peak["expected"]

    def never(*arguments, **more):
        raise AssertionError("tried again")

    monkeypatch.setattr(child, "take_steps", never)
    monkeypatch.setenv("AUTOTRAIN_TRIAL", "")
    again, err = planned(at, *ONE_WAY)
    assert again["predicted"]["device_peak_bytes"] == peak
    assert "tried" not in err


def test_without_a_trial_nothing_that_was_tried_counts(task, at, steps):
    tried, _ = planned(at, "--trial")
    alone, err = planned(at, "--no-trial")
    assert len(steps.asked) == 1
    assert "tried" not in err
    assert alone["because"]["predicted"]["device_peak_bytes"]["kind"] == "rule"
    assert alone["predicted"]["device_peak_bytes"] != tried["predicted"]["device_peak_bytes"]


def test_by_default_it_is_tried_where_that_takes_seconds(task, at, steps, monkeypatch):
    monkeypatch.setenv("AUTOTRAIN_TRIAL", "")
    planned(at)
    assert len(steps.asked) == 1
    task(TASK + "\n# changed\n")
    monkeypatch.setattr(trying, "UNASKED_SECONDS", 1.0)
    planned(at)
    assert len(steps.asked) == 1
    monkeypatch.setenv("AUTOTRAIN_TRIAL", "on")
    planned(at)
    assert len(steps.asked) == 2


def test_a_changed_task_file_is_tried_anew(task, at, steps, monkeypatch):
    monkeypatch.setenv("AUTOTRAIN_TRIAL", "")
    planned(at)
    planned(at)
    assert len(steps.asked) == 1
    task(TASK + "\n# changed\n")
    planned(at)
    assert len(steps.asked) == 2


def test_another_machine_is_not_tried_on(task, at, steps, monkeypatch):
    monkeypatch.setenv("AUTOTRAIN_TRIAL", "")
    machine = ("--machine", "rtx-3050-laptop-4gb")
    planned(at, *machine)
    assert not steps.asked
    said = at(*PLAN, *SMALL, *machine, "--trial")
    assert (said.code, said.out) == (1, "")
    assert "cannot be made on another machine" in said.error


def test_a_word_that_the_environment_may_not_say(task, at, monkeypatch):
    monkeypatch.setenv("AUTOTRAIN_TRIAL", "maybe")
    said = at(*PLAN, *SMALL)
    assert said.code == 2
    assert "AUTOTRAIN_TRIAL: 'maybe'" in said.error


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ({"outcome": "failed", "message": "task.py:3: the loss: KeyError: 'x'"}, "task.py:3"),
        ({"outcome": "not_finite", "message": "the loss is nan at step 1"}, "the loss is nan"),
    ],
)
def test_what_would_end_the_run_ends_the_plan(task, at, steps, answer, says):
    steps.answers = [answer]
    said = at(*PLAN, *SMALL, "--trial")
    assert (said.code, said.out) == (1, "")
    assert says in said.error
    assert "\nhint: " in said.err
    assert not (task() / "plan.toml").exists()


def test_a_trial_that_takes_too_long_changes_nothing(task, at, steps):
    steps.answers = [{"outcome": "timed_out", "message": "it had not finished after 60 s"}]
    plan, err = planned(at, "--trial")
    assert "it had not finished after 60 s; the plan stays as predicted" in err
    assert "--trial waits longer" in err
    assert plan["because"]["predicted"]["device_peak_bytes"]["kind"] == "rule"


LARGE = (
    *PLAN,
    "--set",
    "task.width=900000",
    "--set",
    "batch.global_batch=64",
    "--set",
    "loader.workers=0",
    "--json",
)


def test_where_memory_runs_out_a_smaller_batch_is_tried(task, at, steps):
    """The first size runs out; the second is smaller, and is what the plan says."""
    alone = json.loads(at(*LARGE, "--set", "batch.micro_batch=32", "--no-trial").out)
    budget = int(alone["predicted"]["device_peak_bytes"]["high"])
    within = (*LARGE, "--set", f"memory.budget_bytes={budget}")
    steps.answers = [
        {"outcome": "out_of_memory", "message": "killed", "device_peak_bytes": int(0.9 * budget)}
    ]
    said = at(*within, "--trial")
    first, second = (asked["micro_batch"] for asked in steps.asked)
    assert second < first
    assert said.code == 0
    assert json.loads(said.out)["batch"]["micro_batch"] == second
    assert f"memory ran out (killed); planned again with {second}" in said.err


def test_where_memory_runs_out_at_three_sizes_no_fourth_is_believed(folder):
    plan = planfile.load(folder / "plan.toml")
    lost = [
        Trial.model_validate(
            child.setup_of(plan)
            | {"outcome": "out_of_memory", "message": "killed", "micro_batch": n}
        )
        for n in (64, 32, 16)
    ]
    trying.refuse_what_ran_out(plan, tuple(lost[:2]))
    with pytest.raises(DoesNotFitError, match="at micro_batch 16, 32, 64: killed"):
        trying.refuse_what_ran_out(plan, tuple(lost))


def test_where_less_is_taken_than_predicted_a_larger_batch_is_tried(task, at, steps):
    alone = json.loads(at(*LARGE, "--set", "batch.micro_batch=16", "--no-trial").out)
    budget = int(alone["predicted"]["device_peak_bytes"]["high"])
    said = at(*LARGE, "--set", f"memory.budget_bytes={budget}", "--trial")
    sizes = [asked["micro_batch"] for asked in steps.asked]
    assert said.code == 0
    assert sizes == sorted(sizes)
    assert 1 < len(sizes) <= 3
    assert json.loads(said.out)["batch"]["micro_batch"] >= sizes[-1]


def test_where_memory_runs_out_at_the_users_own_size_the_plan_says_so(task, at, steps):
    steps.answers = [{"outcome": "out_of_memory", "message": "killed", "device_peak_bytes": 1}]
    said = at(*PLAN, *SMALL, "--trial")
    assert said.code == 4
    assert "memory ran out in a trial at micro_batch 8: killed" in said.error
    assert len(steps.asked) == 1


NAN = TASK.replace(
    "return self.x[index], self.y[index]", "return self.x[index] / 0 * 0, self.y[index]"
)


@pytest.mark.slow
def test_a_loss_that_is_no_number_is_named_before_training(task, at):
    task(NAN)
    said = at(*PLAN, *SMALL, "--trial")
    assert said.code == 1
    assert "in a trial of the plan" in said.error
    assert "the loss is nan at step 1, micro-batch 1" in said.error
