"""Averaged weights, frozen parts and groups from the command line to the checkpoint; recipes."""

import json
import tomllib

import pytest
from safetensors.torch import load_file

from autotrain import planfile
from autotrain.recipe import read_recipe

from .house import PLAN, SMALL, TASK

AIDS = (
    "--set", 'train.freeze=["0.*"]', "--set", "train.ema_decay=0.9",
    "--set", "optimizer.decays=matrices", "--set", "optimizer.layer_decay=0.5",
)  # fmt: skip
KEYS = ("train.freeze", "train.ema_decay", "optimizer.decays", "optimizer.layer_decay")


def section_of(plan, key):
    section, _, name = key.partition(".")
    return plan[section][name]


def test_the_aids_go_from_the_command_line_to_the_checkpoint(folder, at):
    said = at(*PLAN, *SMALL, *AIDS, "--json", "-o", "aids.toml")
    assert said.code == 0
    printed = json.loads(said.out)
    values = [section_of(printed, key) for key in KEYS]
    assert values == [["0.*"], 0.9, "matrices", 0.5]
    assert "72 B of 168 B" in printed["because"]["train"]["freeze"]["formula"]
    assert at("run", "aids.toml", "--fresh").code == 0
    points = folder / "runs" / "aids" / "checkpoints"
    newest = points / (points / "latest").read_text().strip()
    own, averaged = (load_file(newest / f"{name}.safetensors") for name in ("model", "ema"))
    assert (own["0.weight"] == averaged["0.weight"]).all()
    assert (own["3.weight"] != averaged["3.weight"]).any()
    states = {name.partition(".")[0] for name in load_file(newest / "optimizer.safetensors")}
    assert states == {"0", "1"}


@pytest.mark.parametrize("key", KEYS)
def test_every_one_of_them_is_explained(folder, at, key):
    said = at("explain", "plan.toml", key)
    assert said.code == 0
    for word in ("what it is", "how", "from", "changes if"):
        assert word in said.out


def test_a_refresh_keeps_them(folder, at):
    assert at(*PLAN, *SMALL, *AIDS, "-o", "aids.toml").code == 0
    before = planfile.load(folder / "aids.toml")
    assert at("plan", "--refresh", "aids.toml", "--no-calibrate").code == 0
    after = planfile.load(folder / "aids.toml")
    assert (after.train, after.optimizer) == (before.train, before.optimizer)
    assert (
        at("plan", "--refresh", "aids.toml", "--no-calibrate", "--set", "train.freeze=off").code
        == 0
    )
    assert planfile.load(folder / "aids.toml").train.freeze is None


def test_a_pattern_in_the_file_may_stand_alone(folder, at):
    """`freeze = "0.*"`; one that matches nothing ends the run before it begins."""
    text = (folder / "plan.toml").read_text()
    assert text.count("[train]") == 1
    for pattern, code in (("0.*", 0), ("5.*", 1)):
        (folder / "plan.toml").write_text(
            text.replace("[train]\n", f'[train]\nfreeze = "{pattern}"\n')
        )
        said = at("run", "plan.toml", "--fresh", "--max-steps", 1)
        assert said.code == code
    assert "train.freeze: '5.*' matches no parameter (did you mean" in said.error


@pytest.mark.parametrize(
    ("setting", "fault"),
    [
        ("train.freeze=[0.*", "train.freeze: '[0.*' matches no parameter"),
        ("train.freeze=*", "nothing is left to train: all 4 parameters"),
        ("train.freeze=[]", "--set train.freeze: [] "),
        ("train.ema_decay=1.5", "--set train.ema_decay: 1.5 should be less than 1"),
        ("optimizer.decays=some", "should be 'all' or 'matrices'"),
        ("optimizer.layer_decay=2", "should be less than or equal to 1"),
    ],
)
def test_what_makes_no_sense_is_one_error_that_names_the_key(folder, at, setting, fault):
    said = at(*PLAN, "--set", setting, "-o", "wrong.toml")
    assert said.code in (1, 2)
    assert fault in said.error
    assert not (folder / "wrong.toml").exists()


WITH_OPTIONS = TASK.replace(
    "def task(data, width=8):",
    "def task(data, width=8, dropout=0.1, label_smoothing=0.05, mixup=0.0):",
).replace("valid=Points(16, 2)", "valid=Points(16, 2), label_smoothing=label_smoothing")


@pytest.mark.parametrize("name", ["conservative", "aggressive", "regularized", "finetune"])
def test_a_plan_of_each_recipe_runs_as_it_is_written(folder, at, name):
    """Planned with nothing else said, and one epoch of it, of 64 samples, carried out."""
    (folder / "task.py").write_text(WITH_OPTIONS)
    assert at(*PLAN, "--recipe", name, "-o", "recipe.toml", "--set", "run.name=recipe").code == 0
    plan = tomllib.loads((folder / "recipe.toml").read_text())
    recipe = read_recipe(name).recipes[-1]
    for key, value in recipe.settings.items():
        section, _, own = key.partition(".")
        if own in plan[section] and own not in ("epochs", "patience"):
            assert section_of(plan, key) == value
    steps = -(-64 // plan["batch"]["global_batch"])
    said = at("run", "recipe.toml", "--max-steps", steps, "--json")
    assert said.code == 0
    events = [json.loads(line) for line in said.out.splitlines()]
    evaluated = [event for event in events if event["event"] == "evaluated"]
    assert (events[-1]["reason"], events[-1]["step"]) == ("max_steps", steps)
    assert evaluated
    assert not [event for event in events if event["event"] in ("healed", "warned")]
    newest = folder / "runs" / "recipe" / "checkpoints" / f"step-{steps:08d}"
    assert (newest / "ema.safetensors").exists() is ("train.ema_decay" in recipe.settings)


LEFT_OUT = "the recipe regularized also says label_smoothing = 0.1, mixup = 0.2: "


def test_what_of_a_recipe_the_task_does_not_take_is_said_wherever_it_is_planned(folder, at):
    """On stderr by every command that plans, in the plan's notes, and by `explain`."""
    path = folder / "task.py"
    path.write_text(path.read_text().replace("width=8):", "width=8, dropout=0.0):"))
    asked = (*PLAN, *SMALL, "--recipe", "regularized", "-o", "some.toml")
    said = at(*asked)
    assert said.code == 0
    assert LEFT_OUT in " ".join(said.err.split())
    plan = planfile.load(folder / "some.toml")
    assert [note for note in plan.notes if note.startswith(LEFT_OUT)]
    assert plan.task.options == {"dropout": 0.4}
    told = " ".join(at("explain", "some.toml", "task.options").out.split())
    assert "the recipe regularized says label_smoothing = 0.1, mixup = 0.2" in told
    assert "why not: this task takes no such option" in told
    for again in (
        (*asked, "--json"),
        ("plan", "--refresh", "some.toml", "--no-calibrate"),
        (*asked[:-2], "--compare", "here,t4-16gb"),
    ):
        assert f"warning: {LEFT_OUT}" in at(*again).err


def test_of_a_recipe_that_the_task_takes_whole_nothing_is_said(folder, at):
    (folder / "task.py").write_text(WITH_OPTIONS)
    asked = (*PLAN, *SMALL, "--recipe", "regularized", "-o", "whole.toml")
    assert "also says" not in at(*asked).err
    assert not [n for n in planfile.load(folder / "whole.toml").notes if "also says" in n]


def test_the_check_for_overfitting_runs_on_a_handful(folder, at):
    """Five samples by heart, by the recipe as it is written: the training loss ends near 0."""
    (folder / "task.py").write_text(WITH_OPTIONS.replace("Points(64, 1)", "Points(5, 1)"))
    more = ("--set", "task.width=256", "--set", "run.name=overfit")
    assert at(*PLAN, "--recipe", "overfit", "-o", "overfit.toml", *more).code == 0
    said = at("run", "overfit.toml", "--json")
    assert said.code == 0
    events = [json.loads(line) for line in said.out.splitlines()]
    losses = [event["loss"] for event in events if event["event"] == "step"]
    assert events[-1]["reason"] == "finished"
    assert events[-1]["step"] == 300
    assert losses[-1] < 0.05
