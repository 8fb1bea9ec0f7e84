"""Settings, options, templates and recipes as people write them."""

import pytest

from autotrain import files
from autotrain.errors import UsageError
from autotrain.goal import (
    checked,
    parse_settings,
    parse_value,
    read_template,
    taken_and_left,
    template_for,
)
from autotrain.schema import AUTO, setting_types


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ("8", 8), ("3e-4", 3e-4), ("true", True), ("adamw", "adamw"), ("[0.9, 0.99]", [0.9, 0.99]),
        ("'8'", "8"), (" cosine ", "cosine"), ("", ""), ("C:\\data", "C:\\data"),
    ],
)  # fmt: skip
def test_a_value_is_toml_or_else_the_text_as_it_is(raw, value):
    assert parse_value(raw) == value


def test_settings_and_options_are_told_apart():
    settings, options = parse_settings(
        ["batch.micro_batch=8", "task.width=256", "task.options.name=big", "optimizer.lr=1"]
    )
    assert settings == {"batch.micro_batch": 8, "optimizer.lr": 1.0}
    assert options == {"width": 256, "name": "big"}


@pytest.mark.parametrize("word", ["off", "none"])
def test_off_turns_what_is_optional_off_and_nothing_else(word):
    assert parse_settings([f"early_stop.patience={word}"])[0] == {"early_stop.patience": None}
    with pytest.raises(UsageError, match=r"batch\.micro_batch"):
        parse_settings([f"batch.micro_batch={word}"])


def test_auto_lets_go_of_a_key_there_is_and_an_option_may_be_called_so():
    said = ["train.epochs=3", "train.epochs=auto", "task.mode=auto"]
    assert parse_settings(said) == ({"train.epochs": AUTO}, {"mode": "auto"})
    with pytest.raises(UsageError, match=r"did you mean 'train\.epochs'"):
        parse_settings(["train.epoch=auto"])
    with pytest.raises(UsageError, match="is named on the command line"):
        parse_settings(["task.data=auto"])


def test_a_size_is_set_with_its_unit_and_an_error_says_how():
    found = parse_settings(["memory.budget_bytes=700MiB"])[0]
    assert found == {"memory.budget_bytes": 734_003_200}
    said = r"budget_bytes: '700M' should be a whole number of bytes, or text such as '700MiB'"
    with pytest.raises(UsageError, match=said):
        parse_settings(["memory.budget_bytes=700M"])


def test_all_faults_are_told_at_once():
    with pytest.raises(UsageError) as caught:
        parse_settings(["batch.micro_bach=8", "train.epochs=-1", "nonsense", "=3"])
    said = caught.value.faults
    assert len(said) == 4
    assert "did you mean 'batch.micro_batch'?" in said[0]
    assert said[1].startswith("--set train.epochs: -1 ")
    assert said[2] == "--set nonsense: expected key=value"
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "pair",
    [
        "batch.micro_batch=0", "batch.micro_batch=1.5", "optimizer.lr=0", "optimizer.lr=nan",
        "optimizer.lr=inf", "precision.dtype=fp8", "memory.share=1.1", "optimizer.betas=[0.9]",
        "loader.workers=-1", "schedule.name=linear", "run.name=../up", "data.valid_share=1",
        "schedule.warmup_epochs=-1", "schedule.period_epochs=0", "train.epochs=true",
        "schedule.warmup_epochs=nan", "loader.pin_memory=3",
    ],
)  # fmt: skip
def test_a_value_outside_its_range_is_refused_by_its_key(pair):
    with pytest.raises(UsageError) as caught:
        parse_settings([pair])
    assert caught.value.message.startswith(f"--set {pair.split('=')[0]}: ")


@pytest.mark.parametrize("key", ["task.template", "task.file", "task.sha256", "task.data"])
def test_code_and_data_are_named_on_the_command_line(key):
    with pytest.raises(UsageError, match="is named on the command line"):
        parse_settings([f"{key}=x"])


@pytest.mark.parametrize("key", ["predicted.step_seconds", "because.batch", "schema", "notes"])
def test_what_nobody_can_set_is_refused(key):
    with pytest.raises(UsageError, match="unknown key"):
        parse_settings([f"{key}=1"])


def test_every_setting_of_the_plan_can_be_checked():
    for key in setting_types():
        if not key.startswith("task."):
            with pytest.raises(UsageError):
                checked(key, {"no": "table"})


@pytest.mark.parametrize("name", files.shipped_names("templates"))
def test_every_shipped_template_reads(name):
    template = read_template(files.shipped("templates") / name)
    assert template.name == name
    assert template.source


def test_data_of_a_kind_has_one_template_by_default():
    assert template_for("images") == "image-classifier"
    assert template_for("speech") == "speech-autoencoder"
    assert template_for("features") == "sign-ctc"
    assert template_for("table") is None


def test_settings_may_be_nested_as_toml_nests_them(tmp_path):
    (tmp_path / "template.toml").write_text(
        'name="t"\ndescription="d"\nkind="task"\nsource="s"\n'
        "[settings]\ntrain.epochs=3\n[settings.optimizer]\nlr=1\n"
    )
    assert read_template(tmp_path).settings == {"train.epochs": 3, "optimizer.lr": 1.0}


def test_a_template_with_a_bad_setting_is_refused_by_its_key(tmp_path):
    (tmp_path / "template.toml").write_text(
        'name="t"\ndescription="d"\nkind="task"\nsource="s"\n'
        '[[sizes]]\n[sizes.settings]\n"train.epochs"=0\n'
    )
    with pytest.raises(UsageError, match=r"train\.epochs: 0"):
        read_template(tmp_path)


def test_options_of_a_recipe_are_those_that_the_task_takes_and_the_others(tmp_path):
    task = tmp_path / "some_task.py"
    task.write_text("def task(data, dropout=0.1):\n    ...\n")
    both = {"dropout": 0.3, "mixup": 0.2}
    assert taken_and_left(task, both) == ({"dropout": 0.3}, {"mixup": 0.2})
    task.write_text("def task(data, **options):\n    ...\n")
    assert taken_and_left(task, both) == (both, {})
