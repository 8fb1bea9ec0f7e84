"""`plan`, `explain` and `plan --refresh` of a plan with stages."""

import json
import re
import shutil
import tomllib

import pytest
import tomli_w

from autotrain import planfile
from autotrain.report.explain import settings
from autotrain.units import seconds_text

from .house import PLAN as PLAIN
from .house import TASK as PLAIN_TASK
from .staged import ENCODER, HEAD, PLAN, SMALL, STAGES, TASK, here

PINNED = (
    "batch.micro_batch", "batch.accum_steps", "batch.global_batch", "precision.dtype",
    "optimizer.name", "memory.budget_bytes", "predicted.device_peak_bytes", "because.batch",
)  # fmt: skip

WARM_UP = ("--set", "stage.a.schedule.warmup_steps=1")


@pytest.fixture(scope="module")
def planned(home, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stages")
    (folder / "task.py").write_text(TASK)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTOTRAIN_HOME", str(home))
        assert here(folder, *PLAN, *STAGES, *SMALL) == 0
    return folder


@pytest.fixture
def folder(planned, tmp_path, monkeypatch):
    copy = tmp_path / "mine"
    shutil.copytree(planned, copy)
    monkeypatch.chdir(copy)
    return copy


def stage(name):
    plan = planfile.load(planfile.Path("plan.toml"))
    return next(own for held, own in planfile.stages(plan) if held.name == name)


def edit(stage_name, **sections):
    """Change a stage's settings in the file, as a person would."""
    with open("plan.toml", "rb") as file:
        data = tomllib.load(file)
    held = next(s for s in data["stage"] if s["name"] == stage_name)
    for section, keys in sections.items():
        if isinstance(keys, dict):
            held.setdefault(section, {}).update(keys)
        else:
            held[section] = keys
    with open("plan.toml", "wb") as file:
        tomli_w.dump(data, file)


def test_the_file_holds_the_first_stage_and_what_differs_in_the_next(folder):
    data = tomllib.loads((folder / "plan.toml").read_text())
    first, second = data["stage"]
    assert first == {"name": "encoder"}
    assert data["train"]["epochs"] == 2
    assert data["batch"]["global_batch"] == 8
    assert second["name"] == "head"
    assert second["weights"] == "best"
    assert second["task"] == {"options": {"goal": "classify"}}
    assert second["batch"] == {"accum_steps": 2, "global_batch": 16}
    assert second["optimizer"] == {"lr": 0.01}
    assert second["because"]["optimizer"]["lr"]["source"] == "the stage head"
    assert second["inputs"]["parameters"] == 58
    assert set(second["predicted"]) <= set(data["predicted"])


def test_a_stage_is_what_a_plan_of_its_own_would_be(folder, at):
    """The same way decides both: every setting is as in a plan without stages."""
    own = ("--set", "task.goal=classify", "--set", "train.epochs=2", "--set", "optimizer.lr=0.01")
    assert at(*PLAN, *SMALL[:-1], "batch.accum_steps=2", *own, "-o", "alone.toml").code == 0
    alone = settings(planfile.load(folder / "alone.toml"))
    found = settings(stage("head"))
    moving = {"memory.budget_bytes", "run.name", "run.directory"}
    differ = {k for k in alone if alone[k] != found[k] and not k.startswith("predicted.")}
    assert differ <= moving
    assert found["predicted.checkpoint_bytes"] == alone["predicted.checkpoint_bytes"]
    assert found["predicted.tensor_peak_bytes"] == alone["predicted.tensor_peak_bytes"]


def test_json_holds_every_stage_whole_and_the_sum(folder, at):
    said = at("plan", "--refresh", "plan.toml", "--no-calibrate", "--json")
    data = json.loads(said.out)
    assert [s["name"] for s in data["stages"]] == ["encoder", "head"]
    for held in data["stages"]:
        for key in PINNED:
            section, name = key.split(".")
            assert name in held[section]
    seconds = [held["predicted"]["run_seconds"]["expected"] for held in data["stages"]]
    assert data["total"]["run_seconds"]["expected"] == pytest.approx(sum(seconds))
    assert "stage" not in data


def test_a_plan_without_stages_says_nothing_of_them(tmp_path, at, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "task.py").write_text(PLAIN_TASK)
    data = json.loads(at(*PLAIN, "--json").out)
    assert not {"stage", "stages", "total"} & set(data)
    assert "stage" not in tomllib.loads((tmp_path / "plan.toml").read_text())


def test_the_summary_tells_every_stage_and_the_sum(folder, at):
    said = at(*PLAN, *STAGES, *SMALL)
    assert "stage 1     encoder: begins anew; 76 parameters" in said.err
    assert "stage 2     head: begins with the best weights of encoder; 58 parameters" in said.err
    seconds = sum(stage(x).predicted.run_seconds.expected for x in ("encoder", "head"))
    assert f"in all      2 stages: about {seconds_text(seconds)} (" in said.err


def test_a_setting_for_all_stages_and_one_for_a_single_stage(folder, at):
    said = at(
        *PLAN, *STAGES, *SMALL, "--set", "train.epochs=4", "--set", "stage.head.train.epochs=5",
        "--set", "stage.head.task.width=4", "--set", "stage.head.task.goal=classify",
    )  # fmt: skip
    assert said.code == 0
    assert (stage("encoder").train.epochs, stage("head").train.epochs) == (4, 5)
    assert stage("head").task.options == {"goal": "classify", "width": 4}
    assert stage("encoder").task.options == {}


def test_stages_of_a_template_a_recipe_and_the_command_line(folder, at):
    (folder / "template.toml").write_text("""
name = "mine"
description = "in stages"
kind = "task"
source = "me"
[[stage]]
name = "encoder"
settings = {"train.epochs" = 2}
[[stage]]
name = "head"
weights = "latest"
settings = {"task.goal" = "classify", train.epochs = 3}
""")
    assert at(*PLAN).code == 0
    assert (stage("encoder").train.epochs, stage("head").train.epochs) == (2, 3)
    assert planfile.load(folder / "plan.toml").stage[1].weights == "latest"
    (folder / "own.toml").write_text('[[stage]]\nname = "head"\n[stage.settings]\ntrain.epochs = 4')
    assert at(*PLAN, "--recipe", "own.toml").code == 0
    plan = planfile.load(folder / "plan.toml")
    assert [held.name for held in plan.stage] == ["head"]
    assert plan.train.epochs == 4
    assert plan.task.options == {"goal": "classify"}
    said = at(*PLAN, "--stage", "head:optimizer.betas=[0.8, 0.9],weights=best", "--stage", "more")
    assert said.code == 0
    plan = planfile.load(folder / "plan.toml")
    assert [held.name for held in plan.stage] == ["head", "more"]
    assert plan.optimizer.betas == (0.8, 0.9)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--stage", "En coder"), "--stage En coder: name: 'En coder'"),
        (("--stage", "a:train.epoch=3"), "--stage: stage.a: train.epoch: unknown key (did you"),
        (("--stage", "a:epochs"), "--stage a:epochs: epochs: expected key=value"),
        (("--stage", "a:weights=bets"), "--stage a:weights=bets: weights: 'bets' should be"),
        (("--stage", "a", "--stage", "a"), "--stage: stage.a: named twice"),
        (("--stage", "a", "--set", "stage.b.train.epochs=2"), "--set stage.b...: no such stage"),
        (("--set", "stage.b.train.epochs=2"), "--set stage.b...: no such stage"),
        (("--stage", "a", "--set", "stage.a=2"), "--set stage.a=2: expected stage.NAME.key"),
        (("--stage", "a", "--set", "stage.a.x.y=2"), "--set stage.a.x.y: unknown key"),
        (
            ("--stage", "a", "--within", "1h", "--set", "stage.a.train.within_seconds=5"),
            "stage.a.train.within_seconds: and train.within_seconds for all stages",
        ),
        (
            ("--stage", "a", *WARM_UP, "--set", "stage.a.schedule.warmup_epochs=1"),
            "stage a: schedule.warmup_steps, schedule.warmup_epochs: two ways",
        ),
    ],
)
def test_what_is_wrong_with_stages_is_said_with_its_flag(folder, at, arguments, told):
    before = (folder / "plan.toml").read_bytes()
    said = at(*PLAN, *arguments, "--set", "batch.micro_batch=8")
    assert said.code == 2
    assert said.error.startswith(f"error: {told}")
    assert (folder / "plan.toml").read_bytes() == before


def test_a_limit_is_shared_by_the_stages_and_each_keeps_its_part(folder, at):
    longer = "head:train.epochs=4000,task.goal=classify"
    free = ("--stage", "encoder:train.epochs=2000", "--stage", longer)
    made = json.loads(at(*PLAN, *free, "--json").out)
    usual = made["total"]["run_seconds"]["expected"]
    limit = round(usual / 2, 2)
    said = at(*PLAN, *free, "--within", f"{limit}s", "--json")
    assert said.code == 0, said.error
    short = json.loads(said.out)
    assert short["total"]["run_seconds"]["expected"] <= limit * 1.001
    counts = [(one["train"]["epochs"], one["train"]["within_seconds"]) for one in short["stages"]]
    assert 1 < counts[0][0] < 2000
    assert 1 < counts[1][0] < 4000
    again = at("plan", "--refresh", "plan.toml", "--no-trial", "--no-calibrate")
    assert again.code == 0, again.error
    kept = [stage(name).train.within_seconds for name in ("encoder", "head")]
    assert kept == pytest.approx([within for _, within in counts])
    other = at("plan", "--refresh", "plan.toml", "--no-trial", "--no-calibrate", "--within", "9h")
    assert other.code == 0, other.error
    kept = [stage(name).train.within_seconds for name in ("encoder", "head")]
    assert sum(kept) >= 9 * 3600
    none = at(*PLAN, *free, "--within", "0.01s")
    assert none.code == 4
    assert "all stages are expected to take" in none.error
    assert "(encoder " in none.error


def test_a_task_that_cannot_be_planned_is_named_with_its_stage(folder, at):
    said = at(*PLAN, "--stage", ENCODER, "--stage", "other:task.gaol=classify")
    assert said.code == 1
    assert said.error.startswith("error: stage other: ")
    assert "takes no option 'gaol'" in said.error


def test_faults_in_a_stage_are_named_all_at_once(folder, at):
    edit("head", batch={"micro_batch": "8"}, bach={"x": 1}, run={"name": "x"}, weights="bset",
         off=["schedule.patienc"])  # fmt: skip
    said = at("run", "plan.toml")
    assert said.code == 2
    for line in ("plan.toml: stage.head.weights: 'bset' should be 'best', 'latest' or 'none'",):
        assert line in said.err
    edit("head", weights="best")
    said = at("run", "plan.toml")
    for line in (
        "plan.toml: stage.head.batch.micro_batch: '8' should be a valid integer",
        "plan.toml: stage.head.bach: unknown key (did you mean 'batch'?)",
        "plan.toml: stage.head.run.name: is the same in every stage",
        "plan.toml: stage.head.off: 'schedule.patienc' is no setting of the plan (did you mean "
        "'schedule.patience'?)",
    ):
        assert line in said.err


def test_what_does_not_go_together_in_a_stage_is_named(folder, at):
    edit("head", batch={"accum_steps": 3})
    said = at("run", "plan.toml")
    assert said.code == 2
    assert "plan.toml: stage.head.batch.global_batch: 16 is not micro_batch 8 x" in said.error
    edit("head", batch={"accum_steps": 2}, schedule={"name": "plateau"})
    said = at("run", "plan.toml")
    assert "plan.toml: stage.head.schedule.factor: missing, plateau needs it" in said.err
    assert "plan.toml: schedule.factor" not in said.err


def test_two_stages_of_one_name_are_refused(folder, at):
    edit("head", name="encoder")
    assert "plan.toml: stage.encoder: named twice" in at("run", "plan.toml").error


def test_explain_tells_the_stages_and_the_reasons_of_one(folder, at):
    said = at("explain", "plan.toml", "stage.head.batch.micro_batch")
    assert said.out.startswith("stage.head.batch.micro_batch = 8   (set by you)")
    said = at("explain", "plan.toml")
    assert "stage.head   (stage 2 of 2: begins with the best weights of encoder)" in said.out
    assert "\n\nstage.head.optimizer.lr = 0.01   (given, not computed)" in said.out
    assert "\n\nbatch.micro_batch = 8" in said.out
    assert "\n\nstage.head.batch.micro_batch" not in said.out  # as in the plan
    said = at("explain", "plan.toml", "stage.head.optimizer")
    typed = re.findall(r"--set\s+(\S+)", said.out)
    assert typed
    assert all(each.startswith("stage.head.optimizer.") for each in typed)
    said = at("explain", "plan.toml", "stage.hed.batch")
    assert said.code == 2
    assert "no stage 'hed' (did you mean 'head'?)" in said.error
    assert at("explain", "plan.toml", "stage.head.batch.micro_bach").code == 2
    edit("head", optimizer={"lr": 0.02})
    said = at("explain", "plan.toml", "stage.head.optimizer.lr")
    assert said.out.startswith("stage.head.optimizer.lr = 0.02   (edited by you)")


def test_a_later_stage_is_measured_with_fresh_weights_and_it_is_said(folder, at):
    """The stage before has not run: its weights are not there."""
    said = at(*PLAN, *STAGES, *SMALL, "--find-lr", "--no-trial")
    assert said.code == 0
    told = [line for line in said.err.splitlines() if "is measured with fresh weights" in line]
    assert told == [
        "stage head is measured with fresh weights: those of encoder, with which it will begin, "
        "are not there before that has run"
    ]


def test_refresh_keeps_stages_and_what_a_person_set_or_edited_in_them(folder, at):
    assert at(*PLAN, *STAGES, *SMALL, "--set", "stage.head.schedule.warmup_epochs=1").code == 0
    edit("head", weights="latest", train={"epochs": 7})
    said = at("plan", "--refresh", "plan.toml", "--no-calibrate", "--set", "optimizer.clip_norm=2")
    assert said.code == 0
    plan = planfile.load(folder / "plan.toml")
    assert [(held.name, held.weights) for held in plan.stage] == [
        ("encoder", "best"),
        ("head", "latest"),
    ]
    encoder, head = stage("encoder"), stage("head")
    assert (encoder.train.epochs, head.train.epochs) == (2, 7)
    assert (encoder.batch.accum_steps, head.batch.accum_steps) == (1, 2)
    assert (encoder.optimizer.clip_norm, head.optimizer.clip_norm) == (2, 2)
    assert head.optimizer.lr == 0.01
    assert head.because["optimizer"]["lr"].kind == "fixed"
    assert encoder.because["train"]["epochs"].kind == "fixed"
    assert head.schedule.warmup_steps == 4
    assert encoder.schedule.warmup_steps == 1
    assert "stage 2     head" in said.err
    assert (folder / "plan.toml.before-1").exists()
    said = at("plan", "--refresh", "plan.toml", "--stage", HEAD)
    assert said.code == 2
    assert "--refresh and --stage" in said.error


def test_refresh_lets_go_of_a_setting_in_one_stage_or_in_all(folder, at):
    again = ("plan", "--refresh", "plan.toml", "--no-calibrate")
    edit("head", optimizer={"clip_norm": 2.0})
    assert at(*again).code == 0
    assert stage("head").optimizer.clip_norm == 2.0
    assert at(*again, "--set", "optimizer.clip_norm=auto").code == 0
    assert stage("head").optimizer.clip_norm == stage("encoder").optimizer.clip_norm == 1.0
    assert at(*again, "--set", "stage.head.train.epochs=7").code == 0
    assert at(*again, "--set", "stage.head.train.epochs=auto").code == 0
    assert stage("head").train.epochs == 2  # what the stage itself says


def test_compare_tells_of_all_stages_together(folder, at):
    machines = ("--compare", "rtx-4090,t4-16gb", "--json")
    alone = at(*PLAN, "--stage", ENCODER, *SMALL[:-2], *machines)
    both = at(*PLAN, *STAGES, *SMALL, *machines)
    assert (alone.code, both.code) == (0, 0)
    assert "--stage encoder:train.epochs=2 --stage head:" in both.err
    for one, all_of_them in zip(rows(alone), rows(both), strict=True):
        seconds = (one["run_seconds"]["expected"], all_of_them["run_seconds"]["expected"])
        assert seconds[0] < seconds[1]


def rows(said):
    return json.loads(said.out)["machines"]
