"""`autotrain plan --refresh`: what a person set stays, the rest follows what is there now."""

import json

import pytest

from autotrain import planfile

from .house import PLAN, SMALL, edit, tree

REFRESH = ("plan", "--refresh", "plan.toml", "--no-calibrate")


def loaded(folder, name="plan.toml"):
    return planfile.load(folder / name)


def kind(plan, key):
    section, _, name = key.partition(".")
    return plan.because[section][name].kind


def test_what_was_set_stays_and_what_changed_is_said(folder, at):
    before = loaded(folder)
    text = (folder / "task.py").read_text()
    (folder / "task.py").write_text(text.replace("Points(64, 1)", "Points(640, 1)"))
    said = at(*REFRESH, "--trust", "--json")
    assert said.code == 0
    made = loaded(folder)
    assert json.loads(said.out)["batch"]["micro_batch"] == made.batch.micro_batch == 8
    assert (made.train.epochs, made.device.threads) == (2, 1)
    assert kind(made, "train.epochs") == kind(made, "batch.micro_batch") == "user"
    assert made.batch.global_batch > before.batch.global_batch
    assert made.task.sha256 != before.task.sha256
    assert "data: 64 samples to train on when planned, 640 now" in said.err
    assert "task code: sha256" in said.err
    was, now = before.batch.accum_steps, made.batch.accum_steps
    assert f"batch.accum_steps: {was} -> {now}   (" in said.err
    assert "batch.micro_batch = 8" in said.err
    assert "batch.micro_batch: " not in said.err
    assert not list(folder.glob("plan.toml.*"))  # nobody had edited it
    assert at("run", "plan.toml", "--max-steps", "1").code == 0


def test_a_setting_edited_by_hand_stays_and_all_that_depends_on_it_follows(folder, at):
    before = loaded(folder)
    assert before.batch.accum_steps == 1
    edit(folder / "plan.toml", batch={"micro_batch": 2}, optimizer={"clip_norm": None})
    said = at("run", "plan.toml")
    assert said.code == 2
    assert "batch.global_batch: 8 is not micro_batch 2 x accum_steps 1" in said.error
    assert "autotrain plan --refresh plan.toml" in said.err
    edited = (folder / "plan.toml").read_bytes()
    said = at(*REFRESH)
    assert said.code == 0
    made = loaded(folder)
    assert (made.batch.micro_batch, made.batch.accum_steps, made.batch.global_batch) == (2, 4, 8)
    assert kind(made, "batch.micro_batch") == "user"
    assert kind(made, "batch.accum_steps") == "rule"
    assert (folder / "plan.toml.before-1").read_bytes() == edited
    assert "plan.toml.before-1" in said.err
    if before.optimizer.clip_norm is not None:
        assert made.optimizer.clip_norm is None
    # What was kept once is the user's from now on, edited or not.
    assert at(*REFRESH, "--set", "batch.global_batch=16").code == 0
    again = loaded(folder)
    assert (again.batch.micro_batch, again.batch.accum_steps) == (2, 8)


def test_auto_lets_go_of_what_was_set_or_edited(folder, at):
    ruled = 32  # of 64 samples, without --set
    edit(folder / "plan.toml", batch={"micro_batch": 2}, early_stop={"patience": None})
    release = ("--set", "batch.micro_batch=auto", "--set", "early_stop.patience=auto")
    assert at(*REFRESH, *release).code == 0
    made = loaded(folder)
    assert kind(made, "batch.micro_batch") == kind(made, "early_stop.patience") == "rule"
    assert made.batch.micro_batch == made.batch.global_batch <= ruled
    assert made.early_stop.patience is not None
    assert kind(made, "train.epochs") == "user"
    assert at(*PLAN, *SMALL, "--set", "schedule.warmup_epochs=1").code == 0
    assert at(*REFRESH, "--set", "schedule.warmup_steps=auto").code == 0
    assert kind(loaded(folder), "schedule.warmup_steps") == "rule"


def test_a_limit_that_the_fixed_epochs_pass_offers_to_let_go_of_them(folder, at):
    assert at(*REFRESH, "--set", "train.epochs=2000000").code == 0
    said = at(*REFRESH, "--within", "60s")
    assert said.code == 2
    assert "hint: --set train.epochs=auto: " in said.err
    assert at(*REFRESH, "--within", "60s", "--set", "train.epochs=auto").code == 0
    assert kind(loaded(folder), "train.epochs") == "rule"


def test_a_line_deleted_from_the_file_is_named_with_the_way_to_have_it_decided(folder, at):
    edit(folder / "plan.toml", batch={"micro_batch": None}, train={"epochs": None})
    for command in (("run", "plan.toml"), REFRESH):
        said = at(*command)
        assert said.code == 2
        assert said.error == "error: plan.toml: batch.micro_batch: missing"
        assert "plan.toml: train.epochs: missing" in said.err
        hint = " ".join(said.err.partition("hint: ")[2].split())
        assert "put it back (batch.micro_batch = 8, train.epochs = 2)" in hint
        assert "autotrain plan --refresh plan.toml --set batch.micro_batch=auto" in hint


def test_another_schedule_by_hand_gets_what_it_needs(folder, at):
    edit(folder / "plan.toml", schedule={"name": "plateau"})
    assert at("run", "plan.toml").code == 2
    assert at(*REFRESH).code == 0
    made = loaded(folder).schedule
    assert made.name == "plateau"
    assert made.factor is not None
    assert made.patience is not None


def test_what_no_longer_fits_is_named_and_the_plan_stays(folder, at):
    edit(folder / "plan.toml", batch={"accum_steps": 3})
    before = tree(folder)
    said = at(*REFRESH, "--set", "batch.global_batch=8")
    assert said.code == 2
    assert "batch.global_batch: 8 is not batch.micro_batch 8 x batch.accum_steps 3" in said.error
    said = at(*REFRESH, "--set", "device.kind=mps")
    assert said.code == 1
    assert "has no device mps" in said.error
    assert tree(folder) == before


def test_settings_given_in_epochs_follow_the_length_of_an_epoch(folder, at):
    more = ("--set", "schedule.warmup_epochs=1", "--set", "early_stop.patience=off")
    assert at(*PLAN, *SMALL, *more).code == 0
    assert loaded(folder).schedule.warmup_steps == 8
    assert at(*REFRESH, "--set", "batch.global_batch=16").code == 0
    made = loaded(folder)
    assert made.schedule.warmup_steps == 4
    assert made.early_stop.patience is None
    assert at(*REFRESH, "--set", "schedule.warmup_steps=3").code == 0
    assert loaded(folder).schedule.warmup_steps == 3
    assert at(*REFRESH).code == 0
    assert loaded(folder).schedule.warmup_steps == 3


def test_a_recipe_is_kept_by_name_and_by_file(folder, at):
    (folder / "own.toml").write_text(
        'name = "mine"\nsource = "me"\n[settings]\n"optimizer.weight_decay" = 0.25\n'
    )
    assert at(*PLAN, *SMALL, "--recipe", "own.toml").code == 0
    assert at(*REFRESH).code == 0
    made = loaded(folder)
    assert (made.recipe, made.optimizer.weight_decay) == ("mine", 0.25)
    edit(folder / "plan.toml", inputs={"asked": {}})  # as a plan of an older version has it
    before = tree(folder)
    said = at(*REFRESH)
    assert said.code == 1
    assert "recipe: 'mine' was a file" in said.error
    assert tree(folder) == before
    assert at(*PLAN, *SMALL, "--recipe", "conservative").code == 0
    edit(folder / "plan.toml", inputs={"asked": {}})
    assert at(*REFRESH).code == 0
    assert loaded(folder).recipe == "conservative"


def test_for_another_machine_and_another_place(folder, at):
    before = tree(folder)
    said = at(*REFRESH, "--machine", "rtx-4060-laptop-8gb", "-o", "gpu.toml")
    assert said.code == 0
    assert "device.kind: cpu -> cuda" in said.err
    assert "when planned, " in said.err
    assert "autotrain run gpu.toml" in said.err
    assert loaded(folder, "gpu.toml").batch.micro_batch == 8
    assert {k: v for k, v in tree(folder).items() if k != "gpu.toml"} == before


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["data"], "--refresh and DATA"),
        (["--template", "starter"], "--refresh and --template"),
        (["--task", "task.py"], "--refresh and --task"),
        (["--recipe", "aggressive", "--task", "x.py"], "--refresh and --task, --recipe"),
        (["--compare", "t4-16gb"], "--refresh and --compare"),
        (["--set", "batch.micro_bach=3"], "did you mean 'batch.micro_batch'"),
    ],
)
def test_what_the_plan_says_itself_is_not_named(folder, at, more, says):
    before = tree(folder)
    said = at(*REFRESH, *more)
    assert said.code == 2
    assert says in said.err
    assert tree(folder) == before


def test_trust_alone_says_what_it_goes_with(folder, at):
    said = at("plan", "--trust")
    assert said.code == 2
    assert "--trust goes with --refresh" in said.error


def test_code_that_nobody_trusts_here_is_not_even_loaded(folder, at, tmp_path, monkeypatch):
    monkeypatch.setenv("AUTOTRAIN_HOME", str(tmp_path / "elsewhere"))
    before = tree(folder)
    said = at(*REFRESH)
    assert said.code == 1
    assert "was not trusted on this machine" in said.error
    assert "--refresh plan.toml --trust" in said.err
    assert "the task got" not in said.err
    assert tree(folder) == before


def test_a_run_s_own_plan_stays_and_serves_for_another(trained, at):
    before = tree(trained / "runs")
    said = at("plan", "--refresh", "runs/mine/plan.toml", "--no-calibrate")
    assert said.code == 2
    assert "says what ran" in said.error
    args = ("plan", "--refresh", "runs/mine/plan.toml", "--no-calibrate", "-o", "next.toml")
    assert at(*args).code == 0
    assert tree(trained / "runs") == before
    made = loaded(trained, "next.toml")
    assert made.run.directory == "runs/next"
    assert made.task.file.endswith("task.py")
    assert at("run", "next.toml", "--max-steps", "1").code == 0


def test_nothing_changed_says_so_and_a_broken_file_is_refused(folder, at):
    said = at(*REFRESH)
    assert said.code == 0
    assert "neither machine, nor data, nor code" in said.err
    (folder / "plan.toml").write_text("batch = [1,\n")
    assert at(*REFRESH).code == 2
    assert at("plan", "--refresh", "none.toml").code == 1


def test_a_plan_without_the_newer_inputs_is_read_run_and_refreshed(folder, at):
    plan = loaded(folder)
    old = {name: getattr(plan.inputs, name) for name in ("hardware", "dataset", "model")}
    edit(folder / "plan.toml", inputs=dict.fromkeys(plan.inputs.model_dump(exclude_none=True)))
    edit(folder / "plan.toml", inputs=old)
    said = at("run", "plan.toml", "--max-steps", "1")
    assert said.code == 0
    assert "when planned" not in said.err
    assert at(*REFRESH).code == 0
    assert loaded(folder).inputs.train_samples == 64
