"""Stages as goals, and back together as one plan: without any I/O."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotrain.errors import DoesNotFitError, UsageError
from autotrain.plan import sharing, stages
from autotrain.plan.sharing import Part, Whole
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
def test_a_limit_is_of_all_stages_together_or_of_each(key):
    both, own = [wish("one"), wish("two")], {"two": Fixed({key: 5.0}, {})}
    found = stages.goals(goal(**{key: 60.0, "optimizer.lr": 0.1}), both, {}, {})
    assert [each.user for each in found] == [{"optimizer.lr": 0.1}] * 2
    assert stages.goals(goal(), both, {}, own)[1].user == {key: 5.0}
    with pytest.raises(UsageError, match=f"stage.two.{key}: and {key} for all stages"):
        stages.goals(goal(**{key: 60.0}), both, {}, own)
    each = {name: Fixed({key: 5.0, "optimizer.lr": 0.1}, {}) for name in ("one", "two")}
    common, apart = stages.common(each)
    assert common.settings == {"optimizer.lr": 0.1}
    assert [part.settings for part in apart.values()] == [{key: 5.0}] * 2


def within(seconds):
    return Whole(seconds, {"train.within_seconds": seconds})


def test_stages_share_a_limit_by_what_they_would_take_and_each_has_an_epoch():
    parts = [Part("one", 1.0, 100.0), Part("two", 30.0, 300.0), Part("three", 20.0, 40.0)]
    assert sharing.shares(parts, within(880.0)) == pytest.approx([200.0, 600.0, 80.0])
    assert sharing.shares(parts, within(220.0)) == pytest.approx([50.0, 150.0, 20.0])
    assert sharing.shares(parts, within(100.0)) == pytest.approx([20.0, 60.0, 20.0])
    assert sharing.shares(parts, within(51.0)) == pytest.approx([1.0, 30.0, 20.0])
    with pytest.raises(
        DoesNotFitError, match=r"take 51 s at least \(one 1 s, two 30 s, three 20 s"
    ):
        sharing.shares(parts, within(50.0))


@given(
    st.lists(st.tuples(st.floats(0.1, 1e4), st.floats(1, 100)), min_size=1, max_size=6),
    st.floats(1, 200),
)
def test_shares_add_up_and_none_is_under_an_epoch(drawn, times):
    parts = [Part(str(n), least, least * more) for n, (least, more) in enumerate(drawn)]
    seconds = times * sum(part.least for part in parts)
    found = sharing.shares(parts, within(seconds))
    assert sum(found) == pytest.approx(seconds)
    assert all(own >= part.least for own, part in zip(found, parts, strict=True))


def test_of_time_and_money_the_tighter_counts():
    said = {"train.within_seconds": 7200.0, "train.spend_dollars": 3.0}
    tight = sharing.whole(said, 2.0, "bench")
    assert tight.seconds == 5400.0
    assert tight.of(540.0) == pytest.approx({key: value / 10 for key, value in said.items()})
    assert tight.flags(6000.0) == "--for 3.34usd"
    assert tight.flags(9000.0) == "--within 150min --for 5usd"
    assert within(60.0).flags(90.0) == "--within 90s"
    assert sharing.whole(said, 0.0, "bench").seconds == 7200.0
    assert sharing.whole({"train.spend_dollars": 3.0}, 0.0, "bench") is None
    with pytest.raises(UsageError, match="the price of an hour of bench is not known"):
        sharing.whole(said, None, "bench")


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
