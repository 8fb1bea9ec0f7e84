"""`run` of a plan with stages: what is handed on, and going on after every kind of end."""

import json
import multiprocessing
import os
import shutil
import signal
import sys
import tomllib

import pytest

from autotrain import amending, planfile
from autotrain.events import Healed, from_json

from .house import edit, tree
from .staged import PLAN, SMALL, STAGES, TASK, digest, here

RUN = "runs/mine"


@pytest.fixture(scope="module")
def planned(home, tmp_path_factory):
    folder = tmp_path_factory.mktemp("planned") / "mine"
    folder.mkdir()
    (folder / "task.py").write_text(TASK)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTOTRAIN_HOME", str(home))
        assert here(folder, *PLAN, *STAGES, *SMALL) == 0
    return folder


@pytest.fixture(scope="module")
def whole(planned, home, tmp_path_factory):
    """The planned folder after the run that nobody stopped."""
    folder = tmp_path_factory.mktemp("whole") / "mine"
    shutil.copytree(planned, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTOTRAIN_HOME", str(home))
        assert here(folder, "run", "plan.toml") == 0
    return folder / RUN


@pytest.fixture
def folder(planned, tmp_path, monkeypatch):
    copy = tmp_path / "mine"
    shutil.copytree(planned, copy)
    monkeypatch.chdir(copy)
    return copy


@pytest.fixture
def trained(whole, tmp_path, monkeypatch):
    """A copy of the folder of the whole run, to spoil."""
    copy = tmp_path / "mine"
    shutil.copytree(whole.parent.parent, copy)
    monkeypatch.chdir(copy)
    return copy


def events(place, name=None):
    found = [from_json(line) for line in (place / "events.jsonl").read_text().splitlines()]
    return [event for event in found if name in (None, event.name)]


def ends_as(run, whole):
    """Every stage's last weights, to the bit."""
    for place in ("1-encoder", "2-head"):
        assert digest(run / place) == digest(whole / place)


def last_step(place):
    return int((place / "checkpoints/latest").read_text().strip().removeprefix("step-"))


def test_each_stage_is_a_run_of_its_own_and_the_next_begins_with_its_weights(whole):
    assert sorted(p.name for p in whole.iterdir() if p.is_dir()) == ["1-encoder", "2-head"]
    for place in ("1-encoder", "2-head"):
        assert (whole / place / "report.png").is_file()
        assert events(whole / place)[-1].reason == "finished"
    (first,), (second,) = (events(whole / p, "started") for p in ("1-encoder", "2-head"))
    assert (first.stage, first.weights_from) == ("encoder", None)
    assert second.stage == "head"
    best = (whole / "1-encoder/checkpoints/best").read_text().strip()
    assert second.weights_from.endswith(os.path.join("1-encoder", "checkpoints", best))
    assert second.weights_taken == (
        "encoder.*: 2 tensors taken over; head.*: 2 new; decoder.*: 2 left behind"
    )


def test_the_report_of_the_whole_names_every_stage(whole, at):
    data = json.loads((whole / "report.json").read_text())
    assert [(s["stage"], s["path"]) for s in data["stages"]] == [
        ("encoder", "1-encoder"),
        ("head", "2-head"),
    ]
    assert [s["stopped"]["reason"] for s in data["stages"]] == ["finished"] * 2
    assert data["seconds"] == pytest.approx(sum(s["seconds"] for s in data["stages"]))
    said = at("report", whole)
    assert "encoder: finished; 16 steps" in said.out
    assert "tensorboard --logdir" in said.out
    again = json.loads(at("report", whole, "--json").out)
    for stage in (*again["stages"], *data["stages"]):  # whose command names the plan from here
        del stage["diagnosis"]
    assert again == data


def test_a_new_run_into_a_folder_that_holds_one_is_refused(trained, at):
    before = tree(trained)
    for more in ((), ("--stage", "head")):
        said = at("run", "plan.toml", *more)
        assert said.code == 1
        assert "holds a run already" in said.error
    assert tree(trained) == before


def test_finished_stages_are_not_run_again(trained, at, whole):
    before = {p: (trained / RUN / p / "events.jsonl").read_text() for p in ("1-encoder", "2-head")}
    said = at("run", "plan.toml", "--resume")
    assert said.code == 0
    assert "stage 1 of 2, encoder: finished already" in said.err
    assert "stage 2 of 2, head: finished already" in said.err
    for place, text in before.items():
        assert (trained / RUN / place / "events.jsonl").read_text() == text
    said = at("run", "runs/mine/plan.toml", "--resume")  # the copy as run
    assert "stage 2 of 2, head: finished already" in said.err


def test_a_finished_stage_whose_checkpoint_is_torn_is_run_again(trained, at, whole):
    place = trained / RUN / "2-head/checkpoints"
    torn = place / (place / "latest").read_text().strip() / "model.safetensors"
    torn.write_bytes(torn.read_bytes()[:-1])
    said = at("run", "plan.toml", "--resume")
    assert said.code == 0
    assert "stage 1 of 2, encoder: finished already" in said.err
    assert "passed over a torn checkpoint" in said.err
    ends_as(trained / RUN, whole)


def killed(folder, at):
    """A real SIGKILL at a place of the task's own code."""
    again = ["--resume"] if (folder / RUN).exists() else []
    process = multiprocessing.get_context("fork").Process(
        target=_begun, args=(folder, at, "run", "plan.toml", *again)
    )
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


def _begun(folder, at, *arguments):
    os.environ["KILL_AT"] = at
    here(folder, *arguments)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_run_that_is_killed_in_both_stages_and_between_them_ends_the_same(folder, at, whole):
    run = folder / RUN
    killed(folder, "rebuild:14")
    assert 0 < last_step(run / "1-encoder") < 16
    killed(folder, "classify:task")
    assert events(run / "1-encoder")[-1].reason == "finished"
    assert not (run / "2-head").exists()
    killed(folder, "classify:13")
    assert 0 < last_step(run / "2-head") < 8
    said = at("run", "plan.toml", "--resume")
    assert said.code == 0
    assert "stage 1 of 2, encoder: finished already" in said.err
    assert "resuming from step-0000000" in said.err
    ends_as(run, whole)
    assert [bool(e.weights_from) for e in events(run / "2-head", "started")] == [True, False]


def test_an_interrupted_stage_stops_the_run_and_its_resume_ends_the_same(folder, at, whole):
    text = (folder / "task.py").read_text()
    trap = text.replace("def counted(goal):\n", f"def counted(goal):\n    {INTERRUPTS}\n")
    (folder / "task.py").write_text(trap)
    said = at("run", "plan.toml", "--trust")
    assert said.code == 130
    run = folder / RUN
    assert events(run / "1-encoder")[-1].reason == "interrupted"
    assert not (run / "2-head").exists()
    assert "1 stage not begun" in said.err
    assert "autotrain run plan.toml --resume" in said.err
    (folder / "task.py").write_text(text)
    assert at("run", "plan.toml", "--resume").code == 0
    ends_as(run, whole)


INTERRUPTS = "if CALLS.get(goal) == 5: os.kill(os.getpid(), signal.SIGINT)"


def test_steps_at_most_count_in_every_stage_and_the_resume_ends_the_same(folder, at, whole):
    said = at("run", "plan.toml", "--max-steps", "3")
    assert said.code == 0
    run = folder / RUN
    assert (last_step(run / "1-encoder"), last_step(run / "2-head")) == (3, 3)
    said = at("run", "plan.toml", "--resume")
    assert said.code == 0
    assert "the stage before has other weights now; its run is kept in" in said.err
    assert "no checkpoint to resume from" not in said.err  # what begins anew does not resume
    assert (run / "2-head.before-1").is_dir()
    ends_as(run, whole)


def test_fresh_starts_every_stage_anew_and_keeps_what_was(trained, at, whole):
    said = at("run", "plan.toml", "--fresh", "--max-steps", "1")
    assert said.code == 0
    assert "the earlier run is kept in" in said.err
    kept = trained / "runs/mine.before-1"
    assert digest(kept / "2-head") == digest(whole / "2-head")
    assert last_step(trained / RUN / "2-head") == 1


def test_a_fresh_run_that_cannot_begin_leaves_everything_as_it_was(trained, at):
    before = tree(trained / "runs")
    (trained / "task.py").write_text(TASK.replace("def task(data, goal", "def task(data, gaol"))
    said = at("run", "plan.toml", "--fresh", "--trust")
    assert said.code == 1
    assert {k: v for k, v in tree(trained / "runs").items() if not k.endswith(".lock")} == {
        k: v for k, v in before.items() if not k.endswith(".lock")
    }


def test_a_run_that_cannot_begin_leaves_nothing(folder, at):
    (folder / "task.py").write_text(TASK.replace("def task(", "def toast("))
    assert at("run", "plan.toml", "--trust").code == 1
    assert not (folder / "runs").exists()


def test_one_stage_alone(folder, at, whole):
    said = at("run", "plan.toml", "--stage", "head")
    assert said.code == 1
    assert "begins with the best weights of encoder, which has not finished" in said.error
    assert not (folder / "runs").exists()
    assert at("run", "plan.toml", "--stage", "encoder").code == 0
    assert not (folder / RUN / "2-head").exists()
    assert at("run", "plan.toml", "--stage", "head").code == 0
    ends_as(folder / RUN, whole)
    assert at("run", "plan.toml", "--stage", "head", "--fresh").code == 0
    assert (folder / RUN / "2-head.before-1").is_dir()
    ends_as(folder / RUN, whole)
    said = at("run", "plan.toml", "--stage", "haed")
    assert said.code == 2
    assert "no stage 'haed' (did you mean 'head'?)" in said.error


def test_a_stage_named_of_a_plan_that_has_none_is_refused(folder, at):
    edit(folder / "plan.toml", stage=[])
    said = at("run", "plan.toml", "--stage", "head")
    assert said.code == 2
    assert "the plan has no stages" in said.error


def test_what_a_resume_cannot_change_is_named_with_its_stage(trained, at):
    before = tree(trained / "runs")
    data = tomllib.loads((trained / "plan.toml").read_text())["stage"]
    data[1]["batch"] = {"accum_steps": 4, "global_batch": 32}
    edit(trained / "plan.toml", stage=data)
    said = at("run", "plan.toml", "--resume")
    assert said.code == 2
    assert "plan.toml: stage head: batch.global_batch: 32 here, 16 in the run" in said.error
    assert tree(trained / "runs") == before


def test_a_stage_that_fits_nothing_is_refused_and_one_that_begins_anew_is_not(folder, at):
    text = TASK.replace("self.encoder = ", "setattr(self, goal, ").replace(
        "nn.Tanh())\n", "nn.Tanh()))\n"
    )
    text = text.replace("model.encoder", "model.rebuild", 1).replace(
        "model.encoder", "model.classify"
    )
    (folder / "task.py").write_text(text)
    said = at("run", "plan.toml", "--trust", "--max-steps", "1")
    assert said.code == 1
    assert "nothing of it fits the model: rebuild.*: 2 tensors left behind" not in said.error
    assert "nothing of it fits the model: classify.*: 2 tensors new" in said.error
    assert not (folder / RUN / "2-head").exists()
    assert json.loads((folder / RUN / "report.json").read_text())["planned_stages"] == 2
    data = tomllib.loads((folder / "plan.toml").read_text())["stage"]
    data[1]["weights"] = "none"
    edit(folder / "plan.toml", stage=data)
    assert at("run", "plan.toml", "--trust", "--max-steps", "1", "--resume").code == 0
    assert events(folder / RUN / "2-head", "started")[0].weights_from is None


def test_an_amendment_lands_in_the_stages_own_plan_and_its_resume_uses_it(folder, at):
    assert at("run", "plan.toml", "--max-steps", "2", "--stage", "encoder").code == 0
    own = folder / RUN / "1-encoder/plan.toml"
    amends = {"batch.micro_batch": [8, 4], "batch.accum_steps": [1, 2]}
    amending.write(
        Healed(step=2, epoch=1, fault="no memory", cure="cut", cost_seconds=0.0, amends=amends), own
    )
    assert at("run", "plan.toml", "--resume").code == 0
    assert planfile.load(own).batch.micro_batch == 4
    assert planfile.load(folder / "plan.toml").batch.micro_batch == 8
    head = planfile.load(folder / RUN / "2-head/plan.toml")
    assert (head.batch.micro_batch, head.amendments) == (8, ())


def test_json_tells_of_every_stage_in_turn(folder, at):
    said = at("run", "plan.toml", "--max-steps", "1", "--json")
    found = [from_json(line) for line in said.out.splitlines()]
    assert [e.stage for e in found if e.name == "started"] == ["encoder", "head"]
    assert [e.reason for e in found if e.name == "stopped"] == ["max_steps"] * 2


def test_a_stages_copy_of_its_plan_goes_on_by_itself(folder, at, whole):
    assert at("run", "plan.toml", "--stage", "encoder").code == 0
    assert at("run", "plan.toml", "--stage", "head", "--max-steps", "5").code == 0
    assert at("run", f"{RUN}/2-head/plan.toml", "--resume").code == 0
    ends_as(folder / RUN, whole)
    shutil.rmtree(folder / RUN / "2-head/checkpoints")  # not even one was saved
    assert at("run", f"{RUN}/2-head/plan.toml", "--resume").code == 0
    ends_as(folder / RUN, whole)


@pytest.mark.parametrize("more", [(), ("--fresh",), ("--stage", "encoder"), ("--resume",)])
def test_stages_touch_nothing_where_nobody_said_that_they_may_write(folder, at, more):
    outside = folder.parent / "outside"
    outside.mkdir()
    for name in ("report.json", ".lock", "events.jsonl"):
        (outside / name).write_text(f"precious {name}")
    if more in (("--fresh",), ("--resume",)):
        shutil.copy(folder / "plan.toml", outside)
    edit(folder / "plan.toml", run={"directory": "../outside"})
    before = tree(folder.parent)
    said = at("run", "plan.toml", *more)
    assert said.code == 1
    assert said.error.startswith("error: plan.toml: run.directory: ")
    assert tree(folder.parent) == before


def test_stages_that_cannot_begin_leave_what_was_in_their_folder(folder, at):
    run = folder / RUN
    run.mkdir(parents=True)
    (run / "report.json").write_text('{"precious": 1}')
    (run / "notes").write_text("mine")
    before = tree(folder / "runs")
    (folder / "task.py").write_text(TASK.replace("def task(", "def toast("))
    assert at("run", "plan.toml", "--trust").code == 1
    assert tree(folder / "runs") == before


def mirrored(folder, at):
    """The run interrupted in its second stage, and then its folder lost."""
    edit(folder / "plan.toml", checkpoint={"mirror": "backup", "every_steps": 2})
    assert at("run", "plan.toml", "--stage", "encoder").code == 0
    assert at("run", "plan.toml", "--stage", "head", "--max-steps", "5").code == 0
    shutil.rmtree(folder / RUN)


def test_a_lost_machine_goes_on_in_the_stage_where_it_was(folder, at, whole):
    mirrored(folder, at)
    said = at("run", "plan.toml", "--resume")
    assert said.code == 0, said.err
    assert "resuming from step-00000005" in said.err
    ends_as(folder / RUN, whole)


def test_a_mirrored_stage_that_began_with_other_weights_is_begun_again_and_kept(folder, at, whole):
    mirrored(folder, at)
    plan = folder / "backup/mine/2-head/plan.toml"
    found = tomllib.loads(plan.read_text())
    asked = found["inputs"]["asked"] | {"weights_sha256": "0" * 64}
    edit(plan, inputs=found["inputs"] | {"asked": asked})
    said = at("run", "plan.toml", "--resume")
    assert said.code == 0, said.err
    assert "backup/mine/2-head is another run's, which stays" in said.err
    assert (folder / "backup/mine/2-head/checkpoints/step-00000005").is_dir()
    ends_as(folder / RUN, whole)


def test_a_later_stage_is_fetched_by_name(folder, at, whole):
    mirrored(folder, at)
    for stage in ("encoder", "head"):
        said = at("run", "plan.toml", "--stage", stage, "--resume", "--from", "backup")
        assert said.code == 0, said.err
    assert "fetched step-5 from backup" in said.err
    ends_as(folder / RUN, whole)
