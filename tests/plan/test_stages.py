"""Stages as goals, and back together as one plan: without any I/O."""

import pytest

from autotrain.errors import UsageError
from autotrain.plan import stages
from autotrain.plan.stages import Fixed
from autotrain.schema import AUTO, Goal, Recipe, StageWish, TaskSection, difference, overlaid


def goal(**user):
    task = TaskSection(file="task.py", sha256="0", options={"width": 8, "goal": "a"})
    return Goal(task=task, recipes=(Recipe(name="mine", source="me"),), user=user)


def wish(name, weights=None, **settings):
    said = {} if weights is None else {"weights": weights}
    return StageWish(
        name=name, settings={k.replace("__", "."): v for k, v in settings.items()}, **said
    )


def test_a_stages_settings_are_a_recipe_over_the_others_and_the_users_stay_above():
    found = stages.goals(
        goal(**{"optimizer.lr": 0.1}),
        [wish("one", train__epochs=3), wish("two", train__epochs=5, task__goal="b")],
        {"width": 4},
        {"two": Fixed({"batch.micro_batch": 2}, {"depth": 1})},
    )
    assert [g.recipes[-1].settings for g in found] == [{"train.epochs": 3}, {"train.epochs": 5}]
    assert {g.recipes[-1].name for g in found} == {"mine"}
    assert found[1].recipes[-1].source == "the stage two"
    assert found[0].user == {"optimizer.lr": 0.1}
    assert found[1].user == {"optimizer.lr": 0.1, "batch.micro_batch": 2}
    assert found[0].task.options == {"width": 4, "goal": "a"}
    assert found[1].task.options == {"width": 4, "goal": "b", "depth": 1}


def test_what_is_said_for_one_stage_in_epochs_replaces_what_is_said_for_all_in_steps():
    common = goal(**{"schedule.warmup_steps": 7})
    own = {"one": Fixed({"schedule.warmup_epochs": 1.0}, {})}
    assert stages.goals(common, [wish("one")], {}, own)[0].user == {"schedule.warmup_epochs": 1.0}


def test_one_stage_may_let_go_of_what_is_fixed_for_all():
    own = {"one": Fixed({"optimizer.lr": AUTO}, {})}
    common = goal(**{"optimizer.lr": 0.1})
    found = stages.goals(common, [wish("one"), wish("two")], {}, own)
    assert [each.user for each in found] == [{}, {"optimizer.lr": 0.1}]


@pytest.mark.parametrize("key", ["train.within_seconds", "train.spend_dollars"])
def test_a_limit_for_all_stages_together_is_refused(key):
    with pytest.raises(UsageError, match=f"{key}: which of the 2 stages") as error:
        stages.goals(goal(**{key: 60.0}), [wish("one"), wish("two")], {}, {})
    assert f"--set stage.one.{key}=" in error.value.hint


def test_a_later_list_names_the_stages_and_begins_with_what_is_known_of_them():
    known = (wish("one", train__epochs=3), wish("two", "latest", train__epochs=5))
    assert stages.adopted(known, ()) == known
    (found,) = stages.adopted(known, [wish("two", optimizer__lr=0.1)])
    assert found == wish("two", "latest", train__epochs=5, optimizer__lr=0.1)
    assert stages.adopted(known, [wish("three")]) == (wish("three"),)
    assert stages.adopted(known, [wish("two", "best")])[0].weights == "best"


def test_what_was_fixed_in_every_stage_alike_is_common():
    common, own = stages.common({
        "one": Fixed({"a": 1, "b": 2}, {"width": 8, "goal": "x"}),
        "two": Fixed({"a": 1, "b": 3}, {"width": 8}),
    })  # fmt: skip
    assert common == Fixed({"a": 1}, {"width": 8})
    assert own == {"one": Fixed({"b": 2}, {"goal": "x"}), "two": Fixed({"b": 3}, {})}


BASE = {
    "recipe": "r",
    "task": {"file": "t.py", "options": {"width": 8, "goal": "a"}},
    "schedule": {"name": "plateau", "patience": 2},
    "data": {},
    "because": {"schedule": {"name": {"formula": "f"}, "patience": {"formula": "g"}}},
}


def test_a_difference_laid_over_its_base_is_the_other_again():
    other = {
        "recipe": "r",
        "task": {"file": "t.py", "options": {"goal": "b"}},
        "schedule": {"name": "cosine", "period_steps": 3},
        "data": {"valid_share": 0.1},
        "because": {"schedule": {"name": {"formula": "h"}, "patience": {"formula": "g"}}},
    }
    own, off = difference(BASE, other)
    assert own == {
        "task": {"options": {"goal": "b"}},
        "schedule": {"name": "cosine", "period_steps": 3},
        "data": {"valid_share": 0.1},
        "because": {"schedule": {"name": {"formula": "h"}}},
    }
    assert set(off) == {"task.options.width", "schedule.patience"}
    assert overlaid(BASE, own, off) == other
    assert difference(BASE, BASE) == ({}, ())


@pytest.mark.parametrize("own", [{"recipe": {"x": 1}}, {"schedule": 3}, {"task": {"options": 3}}])
def test_what_is_no_section_lies_there_as_it_is(own):
    """The plan's own checks say what is wrong with it."""
    assert overlaid(BASE, own) == {**BASE, **own} | (
        {"task": {**BASE["task"], "options": 3}} if "task" in own else {}
    )
