"""Plans as files that people edit."""

import re

import pytest

from autotrain import planfile
from autotrain.errors import AutotrainError, UsageError


@pytest.fixture
def saved(tmp_path):
    from plan.profiles import planned

    plan, path = planned(), tmp_path / "plan.toml"
    planfile.save(plan, path)
    return plan, path


def edit(path, *changes):
    text = path.read_text()
    for pattern, replacement in changes:
        text, count = re.subn(pattern, replacement, text, count=1, flags=re.MULTILINE)
        assert count, pattern
    path.write_text(text)


def faults(path):
    with pytest.raises(UsageError) as caught:
        planfile.load(path)
    assert caught.value.exit_code == 2
    return [line.removeprefix(f"{path}: ") for line in caught.value.faults]


def test_a_plan_reads_back_as_it_was_written(saved):
    plan, path = saved
    back = planfile.load(path)
    assert back.model_dump(exclude={"because"}) == plan.model_dump(exclude={"because"})
    assert path.read_text().startswith("# A plan made by autotrain.")


@pytest.mark.parametrize("name", ["source", "formula", "would_change"])
def test_a_reason_that_an_edit_left_empty_reads_back(saved, name):
    """By itself, and in each stage, which is the plan's settings over again."""
    _, path = saved
    path.write_text(path.read_text() + '\n[[stage]]\nname = "first"\n')
    head, key, rest = path.read_text().partition("[because.train.epochs]")
    assert re.search(rf"^{name} = ", rest, re.MULTILINE)
    rest = re.sub(rf"^{name} = .*$", f'{name} = ""', rest, count=1, flags=re.MULTILINE)
    path.write_text(head + key + rest)
    plan = planfile.load(path)
    assert getattr(plan.because["train"]["epochs"], name) == ""
    [(_, stage)] = planfile.stages(plan)
    assert getattr(stage.because["train"]["epochs"], name) == ""
    assert type(plan).model_validate(plan.plain()) == plan


def test_an_edit_takes_effect(saved):
    _, path = saved
    edit(path, (r"^epochs = \d+", "epochs = 3"))
    assert planfile.load(path).train.epochs == 3


def test_what_is_off_is_left_out_and_may_be_put_in(saved):
    plan, path = saved
    assert plan.checkpoint.every_steps is None
    assert "\nevery_steps = " not in path.read_text()
    edit(path, (r"^\[checkpoint\]", "[checkpoint]\nevery_steps = 7"))
    assert planfile.load(path).checkpoint.every_steps == 7


def test_all_faults_of_a_plan_are_told_at_once_by_their_keys(saved):
    _, path = saved
    edit(
        path,
        (r"^epochs = \d+", "epochs = -3"),
        (r"^micro_batch = \d+", "micro_bach = 8"),
        (r'^dtype = "fp32"', "dtype = 32"),
        (r"^directory = .*\n", ""),
    )
    said = faults(path)
    assert len(said) == 5
    assert any(line.startswith("train.epochs: -3 should be") for line in said)
    assert "batch.micro_bach: unknown key (did you mean 'micro_batch'?)" in said
    assert "batch.micro_batch: missing" in said
    assert any(line.startswith("precision.dtype: 32 should be") for line in said)
    assert "run.directory: missing" in said


def test_settings_that_do_not_go_together_are_refused(saved):
    _, path = saved
    edit(
        path,
        (r"^global_batch = \d+", "global_batch = 33"),
        (r'^name = "cosine"', 'name = "plateau"'),
        (r'^file = "task.py"', 'file = "task.py"\ntemplate = "starter"'),
    )
    said = faults(path)
    assert any("batch.global_batch: 33 is not micro_batch" in line for line in said)
    assert "task: give exactly one of template and file" in said
    assert "schedule.factor: missing, plateau needs it" in said
    assert "schedule.patience: missing, plateau needs it" in said


@pytest.mark.parametrize("version", ["2", '"1"', "0"])
def test_a_plan_of_another_version_is_refused_with_the_way_out(saved, version):
    _, path = saved
    edit(path, (r"^schema = 1", f"schema = {version}"))
    assert "is not 1, the version this autotrain reads" in faults(path)[0]


def test_a_value_that_is_not_a_number_is_refused(saved):
    _, path = saved
    edit(path, (r"^lr = .*", "lr = nan"))
    assert faults(path)[0].startswith("optimizer.lr: nan should be")


def test_a_file_that_is_no_toml_or_not_there_is_one_line(tmp_path):
    broken = tmp_path / "broken.toml"
    broken.write_text("schema = 1\n[batch")
    assert len(faults(broken)) == 1
    with pytest.raises(AutotrainError) as caught:
        planfile.load(tmp_path / "absent.toml")
    assert caught.value.exit_code == 1


AMENDMENT = """
[[amendments]]
step = 3
why = "memory ran out"
"""


@pytest.mark.parametrize(("lines", "says"), [
    ('key = "batch.split"\nafter = "many"', "amendments.0.after: no value for batch.split"),
    ('key = "batch.split"\nbefore = -1\nafter = 2',
    "amendments.0.before: no value for batch.split"),
    ('key = "batch"\nafter = 2', "amendments.0.key: 'batch' is no setting of the plan"),
    ('key = "batch.split.more"\nafter = 2', "amendments.0.key: 'batch.split.more' is no setting"),
])  # fmt: skip
def test_an_amendment_that_no_run_makes_is_refused_by_its_place(saved, lines, says):
    _, path = saved
    text = path.read_text().replace("amendments = []\n", "")
    path.write_text(f"{text}{AMENDMENT}{lines}\n")
    assert faults(path)[0].startswith(says)


def test_of_very_many_faults_the_first_hundred_are_told(saved):
    _, path = saved
    path.write_text(path.read_text() + "[more]\n" + "".join(f"k{n} = 1\n" for n in range(9)))
    edit(path, (r"^\[heal\]", "[heal]\n" + "".join(f"k{n} = 1\n" for n in range(500))))
    said = faults(path)
    assert len(said) == 101
    assert said[-1] == "and 401 more faults"


def test_more_stages_than_anybody_plans_are_refused(saved):
    _, path = saved
    path.write_text(
        path.read_text() + "".join(f'[[stage]]\nname = "s{number}"\n' for number in range(33))
    )
    assert faults(path)[0].startswith("stage: ")


def test_a_key_in_the_wrong_section_is_told_where_it_stands(saved):
    _, path = saved
    edit(path, (r"^\[train\]", "[train]\npatience = 3\nlr = 0.1"))
    assert faults(path) == [
        "train.patience: unknown key (did you mean 'schedule.patience' or 'early_stop.patience'?)",
        "train.lr: unknown key (did you mean 'optimizer.lr'?)",
    ]
