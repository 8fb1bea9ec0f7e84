import pytest
from plans import BECAUSE, a_plan, reason

from autotrain.errors import UsageError
from autotrain.report.explain import edited, explain, settings
from autotrain.report.meanings import MEANINGS


def test_one_setting_shows_value_kind_formula_source_limit_and_change():
    text = explain(a_plan(), "batch.micro_batch")
    for said in (
        "batch.micro_batch = 4   (computed by a rule)",
        "what it is",
        "(5 GiB - 600 MiB) / 142 MiB = 31",
        "the origin's table of sizes",
        "the number of clips (20)",
        "more than 50 clips: 8",
        "free memory over input size says 2816",
        "why not: it counts the input and forgets the activations",
    ):
        assert " ".join(said.split()) in " ".join(text.split())


def test_every_setting_of_the_plan_is_in_the_explanation_of_all():
    text = explain(a_plan())
    for key, value in settings(a_plan()).items():
        if value is not None:
            assert f"{key} = " in text


def test_every_setting_and_prediction_has_a_meaning_in_plain_words():
    """A new key in the schema asks for its sentence."""
    assert set(settings(a_plan())) == set(MEANINGS)


def test_a_section_explains_its_settings_and_no_other():
    text = explain(a_plan(), "batch")
    assert text.count(" = ") >= 4
    assert "batch.global_batch = 8" in text
    assert "optimizer" not in text


def test_a_value_changed_in_the_file_is_called_edited():
    plan = a_plan(batch={"micro_batch": 8})
    text = explain(plan, "batch.micro_batch")
    assert "batch.micro_batch = 8   (edited by you)" in text
    assert "you edited this in the file; it was 4" in text
    assert edited(plan) == {"batch.micro_batch"}


def test_a_plan_as_it_was_made_has_nothing_edited():
    """Arrays are tuples here and lists in TOML; 1 and 1.0 are one number."""
    because = {**BECAUSE, "optimizer": {**BECAUSE["optimizer"], "clip_norm": reason(1)}}
    assert edited(a_plan(because=because)) == set()


def test_a_setting_that_was_off_and_is_now_on_is_edited():
    because = {**BECAUSE, "schedule": {**BECAUSE["schedule"], "min_lr": reason(None)}}
    assert edited(a_plan(because=because)) == set()
    plan = a_plan(schedule={"min_lr": 1e-6}, because=because)
    assert "you edited this in the file; it was not set, for" in explain(plan, "schedule.min_lr")


def test_options_of_the_task_share_one_reason():
    because = {**BECAUSE, "task": {**BECAUSE["task"], "options": reason({"width": 128})}}
    plan = a_plan(task={"options": {"width": 256}}, because=because)
    text = explain(plan, "task.options")
    assert "task.options.width = 256   (edited by you)" in text
    assert "it was 128, for" in text


def test_bytes_and_seconds_are_shown_in_human_form():
    assert "memory.budget_bytes = 5 GiB" in explain(a_plan(), "memory")
    assert "predicted.step_seconds = 200 ms   (predicted: 160 ms to 240 ms)" in explain(
        a_plan(), "predicted"
    )


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("batch.mico_batch", "batch.micro_batch"),
        ("micro_batch", "batch.micro_batch"),
        ("optimiser", "optimizer"),
    ],
)
def test_an_unknown_key_is_refused_with_the_one_that_was_meant(key, meant):
    with pytest.raises(UsageError) as caught:
        explain(a_plan(), key)
    assert caught.value.exit_code == 2
    assert caught.value.hint == f"did you mean '{meant}'?"


def test_a_key_like_no_other_gets_the_sections():
    with pytest.raises(UsageError, match="no setting 'zzz'") as caught:
        explain(a_plan(), "zzz")
    assert "batch, checkpoint" in caught.value.hint


def test_a_setting_without_a_reason_says_so():
    text = explain(a_plan(because={}), "batch.micro_batch")
    assert "no reason is recorded in this plan" in text


@pytest.mark.parametrize("width", [80, 120])
def test_the_explanation_fits_the_terminal(width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    assert max(len(line) for line in explain(a_plan()).splitlines()) <= min(width, 96)
