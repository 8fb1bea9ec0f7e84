"""`autotrain plan` and `explain` as a person uses them."""

import json
import tomllib

import pytest

from autotrain import planfile
from autotrain.schema import SETTING_SECTIONS

from .house import PLAN, SMALL, TASK, edit

PINNED = (
    "batch.micro_batch",
    "batch.accum_steps",
    "batch.global_batch",
    "precision.dtype",
    "optimizer.name",
    "predicted.tensor_peak_bytes",
    "predicted.reserved_peak_bytes",
    "predicted.device_peak_bytes",
    "predicted.step_seconds",
    "predicted.run_seconds",
    "memory.budget_bytes",
)


@pytest.fixture
def printed(planned_once):
    return json.loads(planned_once[1].stdout)


def test_json_is_one_object_with_every_pinned_key_and_nothing_else(planned_once, printed):
    """What the task prints meets stderr."""
    for key in PINNED:
        section, name = key.split(".")
        assert printed[section][name] is not None, key
        if section == "predicted":
            low, expected, high = (printed[section][name][k] for k in ("low", "expected", "high"))
            assert 0 <= low <= expected <= high
    assert "the task got None" in planned_once[1].stderr


def test_every_setting_has_its_reason_in_the_json(printed):
    for section in SETTING_SECTIONS:
        for key, value in printed[section].items():
            reason = printed["because"][section][key]
            assert reason["formula"], f"{section}.{key}"
            assert reason["source"], f"{section}.{key}"
            assert reason["kind"] in ("fixed", "rule", "measured", "user")
            assert reason["value"] == value or key == "directory"


def test_the_file_says_what_the_json_says(planned_once, printed):
    plan = planfile.load(planned_once[0] / "plan.toml")
    assert json.loads(json.dumps(plan.model_dump(mode="json", by_alias=True))) == printed


def test_explain_of_an_edited_setting_says_what_must_follow(folder, at):
    edit(folder / "plan.toml", batch={"micro_batch": 2})
    said = at("explain", "plan.toml", "batch.micro_batch")
    assert said.code == 0
    text = " ".join(said.out.split())
    assert text.startswith("batch.micro_batch = 2 (edited by you)")
    assert "it was 8, for the reasons below" in text
    assert "batch.global_batch: 8 is not micro_batch 2 x accum_steps 1 x world_size 1 = 2" in text
    assert "`autotrain plan --refresh plan.toml` keeps what you edited" in text
    assert "global_batch: 8 is not" not in at("explain", "plan.toml", "optimizer").out
    assert "global_batch: 8 is not" in at("explain", "plan.toml").out


def test_explain_covers_every_setting(folder, at):
    said = at("explain", "plan.toml")
    assert said.code == 0
    held = tomllib.loads((folder / "plan.toml").read_text())
    for section in SETTING_SECTIONS:
        for key in held[section]:
            assert f"{section}.{key} = " in said.out, key
    one = at("explain", "plan.toml", "batch.micro_batch").out
    assert one.startswith("batch.micro_batch = 8 ")
    assert "(set by you)" in one
    assert at("explain", "plan.toml", "batch").out.count("\nbatch.") == 6


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [("task.width", "64", 64), ("train.epochs", "3", 3), ("optimizer.clip_norm", "off", None)],
)
def test_what_is_set_is_in_force(folder, at, key, value, found):
    said = at(*PLAN, "--set", f"{key}={value}", "--json", "-o", "set.toml")
    assert said.code == 0
    printed = json.loads(said.out)
    section, name = key.split(".")
    assert printed[section].get(name, printed["task"]["options"].get(name)) == found
    if key == "task.width":
        assert "the task got None and width 64" in said.err


@pytest.mark.parametrize("by", ["aggressive", "mine.toml"])
def test_a_recipe_by_name_or_from_a_file(folder, at, by):
    (folder / "mine.toml").write_text(
        'name = "mine"\nsource = "me"\n[settings]\n"optimizer.name" = "adam"\n'
        "[options]\nwidth = 12\nother = 1\n"
    )
    said = at(*PLAN, "--recipe", by, "--json", "-o", "recipe.toml")
    assert said.code == 0
    printed = json.loads(said.out)
    assert printed["optimizer"]["name"] == "adam"
    assert printed["recipe"] == by.removesuffix(".toml")
    # An option that task() does not take is left out, one that it takes is passed on.
    assert printed["task"]["options"] == ({"width": 12} if by == "mine.toml" else {})


def test_a_plan_for_another_machine_is_for_its_gpu(folder, at):
    said = at(*PLAN, "--machine", "rtx-4060-laptop-8gb", "--json", "-o", "gpu.toml")
    assert said.code == 0
    printed = json.loads(said.out)
    assert printed["device"]["kind"] == "cuda"
    assert printed["precision"]["dtype"] in ("bf16", "fp16")
    assert printed["memory"]["budget_bytes"] < 8 * 2**30


@pytest.mark.parametrize("absolute", [False, True])
def test_a_plan_elsewhere_finds_its_code_and_data_from_anywhere(
    folder, at, absolute, monkeypatch, tmp_path
):
    """`-o sub/plan.toml`, run from a third place; DATA is handed to task() as it is."""
    (folder / "data").mkdir()
    data = str(folder / "data") if absolute else "data"
    said = at("plan", data, *PLAN[1:], *SMALL, "-o", "sub/plan.toml")
    assert said.code == 0
    assert (
        f"the task got {'Posix' if '/' in str(tmp_path) else 'Windows'}Path({data!r})" in said.err
    )
    away = tmp_path / "away"
    away.mkdir()
    monkeypatch.chdir(away)
    said = at("run", str(folder / "sub/plan.toml"), "--max-steps", "1")
    assert said.code == 0
    assert f"{folder / 'data'}" in said.err
    assert (folder / "sub/runs/mine/checkpoints/step-00000001").is_dir()
    assert not list(away.iterdir())


def test_data_that_is_no_path_is_handed_on_untouched(folder, at):
    said = at("plan", "a-name-of-mine", *PLAN[1:], *SMALL, "-o", "named.toml")
    assert said.code == 0
    assert "Path('a-name-of-mine')" in said.err
    said = at("run", "named.toml", "--max-steps", "1")
    assert said.code == 0
    assert "Path('a-name-of-mine')" in said.err


def test_a_folder_moved_as_a_whole_still_runs(folder, at, monkeypatch, tmp_path):
    moved = folder.rename(tmp_path / "moved")
    monkeypatch.chdir(moved)
    assert at("run", "plan.toml", "--max-steps", "1").code == 0
    assert (moved / "runs/mine/plan.toml").is_file()


def test_a_task_file_may_import_what_lies_beside_it(folder, at):
    (folder / "parts.py").write_text("WIDTH = 5\n")
    source = TASK.replace("def net", "from parts import WIDTH\n\n\ndef net")
    (folder / "task.py").write_text(source.replace("width=8", "width=WIDTH"))
    said = at(*PLAN, *SMALL, "-o", "parts.toml")
    assert said.code == 0
    assert "width 5" in said.err


@pytest.mark.parametrize("dtype", ["tf32", "bf16", "fp16"])
def test_every_precision_can_be_planned(folder, at, dtype):
    """tf32 allocates as fp32 does, and is traced as that."""
    assert at(*PLAN, "--set", f"precision.dtype={dtype}").code == 0
    assert planfile.load(folder / "plan.toml").precision.dtype == dtype


@pytest.mark.parametrize(
    ("output", "name"), [("plan.toml", None), ("second.toml", "second"), ("বাংলা.toml", "run")]
)
def test_a_run_is_named_after_its_plan_so_that_two_plans_do_not_meet(folder, at, output, name):
    """`plan.toml` says nothing: then after the task. A name is a folder on every system."""
    assert at(*PLAN, "-o", output).code == 0
    assert planfile.load(folder / output).run.name == (name or folder.name)
