"""`autotrain evaluate`: the run's own figures again, other splits, and what is refused."""

import json

import pytest

from .house import PLAN, edit, read_only, tree
from .staged import SMALL as STAGED_SMALL
from .staged import STAGES, here
from .staged import TASK as STAGED
from .used import AVERAGES, WHOLE, copied, learned


def events(run, name):
    lines = (run / "events.jsonl").read_text().splitlines()
    return [event for line in lines if (event := json.loads(line))["event"] == name]


@pytest.fixture(scope="module")
def classes(tmp_path_factory, home):
    """A run of a task with a test set and names for its classes, averaging its weights."""
    return learned(tmp_path_factory.mktemp("used") / "mine", home, WHOLE, *AVERAGES)


@pytest.fixture
def trained(classes, tmp_path, monkeypatch):
    """A copy of it, to spoil; the test works in it."""
    folder = copied(classes, tmp_path)
    monkeypatch.chdir(folder)
    return folder


def evaluated(at, *arguments):
    said = at("evaluate", *arguments, "--json")
    assert said.code == 0
    return json.loads(said.out)


@pytest.mark.parametrize("which", ["best", "latest"])
def test_a_checkpoint_gets_the_runs_own_figures_to_the_bit(classes, at, which):
    run = classes / "runs/mine"
    found = evaluated(at, run, "--checkpoint", which)
    (told,) = [e for e in events(run, "evaluated") if e["step"] == found["step"]]
    assert (found["loss"], found["metrics"]) == (told["loss"], told["metrics"])
    assert found["samples"] == 16
    assert found["averaged"]
    assert found["weights_sha256"]


def test_a_step_can_be_named_and_one_that_is_not_there_is_told(trained, at):
    found = evaluated(at, "runs/mine", "--checkpoint", "step-8")
    assert found["step"] == 8
    said = at("evaluate", "runs/mine", "--checkpoint", "step-7")
    assert said.code == 1
    assert "--checkpoint step-7: no such checkpoint" in said.error
    assert "step-8" in said.err


def test_other_splits_have_their_own_samples_and_figures(classes, at):
    run = classes / "runs/mine"
    valid, test, train = (evaluated(at, run, "--split", s) for s in ("valid", "test", "train"))
    assert [e["samples"] for e in (valid, test, train)] == [16, 12, 64]
    assert len({e["loss"] for e in (valid, test, train)}) == 3
    assert json.loads((run / "evaluation-test.json").read_text()) == test


def test_each_class_is_told_and_what_it_is_taken_for(classes, at):
    run = classes / "runs/mine"
    found = evaluated(at, run, "--split", "train")
    (a, b), (c, d) = found["confusion"]
    assert a + b + c + d == 64
    assert found["metrics"]["accuracy"] == pytest.approx((a + d) / 64)
    left, right = found["classes"]
    assert (left["class"], right["class"]) == ("left", "right")
    assert (left["samples"], left["recall"]) == (a + b, pytest.approx(a / (a + b)))
    assert right["precision"] == (pytest.approx(d / (b + d)) if b + d else None)
    said = at("evaluate", run, "--split", "train")
    assert "is \\ taken for" in said.out
    assert f"left taken for right: {b} time" in said.out or b == 0
    assert (run / "confusion-train.png").stat().st_size > 1000


def test_a_task_without_a_test_set_says_what_one_is(trained, at):
    (trained / "task.py").write_text(WHOLE.replace("test=Points(12, 3), ", ""))
    edit(trained / "runs/mine/plan.toml", task={"file": str(trained / "task.py")})
    said = at("evaluate", "runs/mine", "--split", "test", "--trust")
    assert said.code == 1
    assert said.error == "error: the task has no test set"
    assert "Task(test=...)" in said.err


def test_the_text_names_the_next_command_and_the_task_prints_to_stderr(trained, at):
    said = at("evaluate", "runs/mine")
    assert said.code == 0
    assert "evaluated   mine at step-" in said.out
    assert ", the best, averaged weights: 16 samples of valid on cpu, fp32" in said.out
    assert said.out.splitlines()[-1] == "next        autotrain predict runs/mine INPUT..."
    assert "the task got" in said.err
    assert "the task got" not in said.out


@pytest.mark.parametrize("name", ["nowhere", "task.py"])
def test_what_holds_no_run_is_refused(trained, at, name):
    assert at("evaluate", name).code in (1, 2)


def test_wrong_words_are_wrong_usage(trained, at):
    for words in (["--split", "tset"], ["--device", "tpu"], ["--stage", "x"]):
        said = at("evaluate", "runs/mine", *words)
        assert said.code == 2
        assert words[1] in said.error


def test_a_device_that_is_not_here_is_told_with_the_way_out(trained, at):
    said = at("evaluate", "runs/mine", "--device", "cuda:99")
    assert said.code == 1
    assert "torch sees no such device here" in said.error
    assert "--device cpu" in said.err


def test_code_that_is_not_trusted_does_not_run(trained, at, tmp_path, monkeypatch):
    monkeypatch.setenv("AUTOTRAIN_HOME", str(tmp_path / "stranger"))
    said = at("evaluate", "runs/mine")
    assert said.code == 1
    assert "has not been trusted on this machine" in said.error
    assert "the task got" not in said.err
    assert at("evaluate", "runs/mine", "--trust").code == 0


def test_code_that_has_changed_does_not_run(trained, at):
    plan = trained / "runs/mine/plan.toml"
    (trained / "task.py").write_text(WHOLE + "\n# changed\n")
    edit(plan, task={"file": str(trained / "task.py")})
    said = at("evaluate", "runs/mine")
    assert said.code == 1
    assert "the code has changed since" in said.error


def test_a_torn_checkpoint_is_named(trained, at):
    run = trained / "runs/mine"
    best = (run / "checkpoints/best").read_text().strip()
    with open(run / "checkpoints" / best / "model.safetensors", "r+b") as file:
        file.seek(-4, 2)
        file.write(b"torn")
    said = at("evaluate", "runs/mine")
    assert said.code == 1
    assert "model.safetensors: its content is not what was written" in said.error


@pytest.mark.root
def test_a_folder_that_cannot_be_written_costs_the_file_and_not_the_figures(trained):
    before = tree(trained / "runs/mine")
    done = read_only(str(trained), "evaluate", "runs/mine")
    assert done.returncode == 0, done.stderr
    assert "warning: not written: " in done.stderr
    assert "accuracy" in done.stdout
    assert tree(trained / "runs/mine") == before


def test_of_a_run_with_stages_the_last_is_meant_or_the_one_that_is_named(tmp_path, at):
    (tmp_path / "task.py").write_text(STAGED)
    assert here(tmp_path, *PLAN, *STAGED_SMALL, *STAGES) == 0
    assert here(tmp_path, "run", "plan.toml") == 0
    (run,) = (tmp_path / "runs").iterdir()
    last, first = evaluated(at, run), evaluated(at, run, "--stage", "encoder")
    assert "2-head" in last["name"]
    assert "1-encoder" in first["name"]
    assert last["loss"] == events(run / "2-head", "evaluated")[-1]["loss"]
    assert evaluated(at, run / "1-encoder")["loss"] == first["loss"]
    said = at("evaluate", run, "--stage", "haed")
    assert said.code == 2
    assert "did you mean 'head'?" in said.error
