"""`plan --trial`: ways to run the model race on real steps, and the fastest is planned."""

import json

import pytest

from autotrain.commands import racing, replaying
from autotrain.probe import child
from autotrain.schema import Plan, Race, Raced, RacedCut, Trial, Variant

from .house import PLAN, TASK, trial
from .test_replaying import refusing

PLAIN, HALF = Variant("fp32", "contiguous", 1), Variant("bf16", "contiguous", 1)


@pytest.fixture
def task(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUTOTRAIN_HOME", str(tmp_path / "home"))
    (tmp_path / "task.py").write_text(TASK)
    return tmp_path


@pytest.fixture
def answer(monkeypatch):
    """What the child of a race is to answer, a trial's succeeds; `answer.asked`: the races."""

    class Answer:
        def __init__(self):
            self.asked, self.race = [], None

        def __call__(self, module, request, expected, **limits):
            if expected is Trial:
                return trial(request.plan)
            assert expected is Race
            self.asked.append(request)
            return self.race

    made = Answer()
    monkeypatch.setattr(child, "ask", made)
    return made


def raced(*runs, cuts=(), outcome="ok"):
    return Race(
        outcome=outcome, message="it broke" if outcome != "ok" else "", micro_batch=8,
        accum_steps=1, rounds=4, runs=runs, cuts=cuts, seconds=1.0,
    )  # fmt: skip


def planned(at, *more):
    said = at(*PLAN, "--set", "device.threads=1", "--set", "batch.global_batch=8", "--json", *more)
    assert said.code == 0, said.err
    return json.loads(said.out), said.err


def test_what_is_fastest_is_planned_and_the_next_plan_knows(task, at, answer, monkeypatch):
    answer.race = raced(
        Raced(PLAIN, 0.010, 0.001),
        Raced(HALF, 0.005, 0.001),
        cuts=(RacedCut(HALF, 8, 0.005), RacedCut(HALF, 4, 0.004)),
    )
    plan, err = planned(at, "--trial")
    assert plan["precision"]["dtype"] == "bf16"
    assert (plan["batch"]["micro_batch"], plan["batch"]["accum_steps"]) == (4, 2)
    reason = plan["because"]["precision"]["dtype"]
    assert reason["kind"] == "measured"
    assert reason["formula"].startswith("bf16 took 6 ms a step at micro_batch 8 (")
    why = plan["because"]["batch"]["micro_batch"]
    assert why["formula"].startswith("8 samples took 5 ms at once and 4 ms in parts of 4 (a race)")
    assert "bf16 on 1 thread in parts of 4 is 2.29 x as fast as fp32 on 1 thread" in err
    monkeypatch.delenv("AUTOTRAIN_TRIAL")
    again, err = planned(at)
    assert again["precision"]["dtype"] == plan["precision"]["dtype"]
    assert "compared" not in err
    assert len(answer.asked) == 1


def test_a_race_of_few_does_not_answer_for_more(task, at, answer, monkeypatch):
    """What the user fixed in one plan is open again in the next."""
    few = ("--set", "precision.dtype=fp32")
    answer.race = raced(Raced(PLAIN, 0.010, 0.001), cuts=(RacedCut(PLAIN, 8, 0.010),))
    planned(at, "--trial", *few)
    assert len(answer.asked) == 1  # in parts
    monkeypatch.delenv("AUTOTRAIN_TRIAL")
    planned(at)
    assert len(answer.asked) == 2
    planned(at, *few)
    planned(at)
    assert len(answer.asked) == 2


def test_where_steps_are_long_and_nobody_asked_another_precision_is_tried_first(task, at, answer):
    """A step of 1.5 s at most, and 15 s for three rounds of each way."""
    plan, _ = planned(at, "--no-trial")
    made = Plan.model_validate(plan)
    step = made.predicted.step_seconds.model_copy(update={"high": 1.5})
    long = made.model_copy(
        update={"predicted": made.predicted.model_copy(update={"step_seconds": step})}
    )
    alone = PLAIN._replace(memory_format="channels_last")
    ways = [PLAIN, alone, HALF, HALF._replace(memory_format="channels_last")]
    assert racing.affordable(made, ways, (4,)) == (ways, (4,))
    assert racing.affordable(long, ways, (4,)) == ([PLAIN, HALF, ways[3]], ())
    assert racing.short(made)
    assert racing.short(long)


def test_a_step_that_is_too_long_to_play_is_played_with_fewer_samples(task, at, answer):
    plan, _ = planned(at, "--no-trial")
    made = Plan.model_validate(plan)
    ways = [PLAIN, HALF, *(way._replace(memory_format="channels_last") for way in (PLAIN, HALF))]

    def playable(seconds):
        step = made.predicted.step_seconds.model_copy(update={"expected": seconds})
        said = made.predicted.model_copy(update={"step_seconds": step})
        return replaying.playable(made.model_copy(update={"predicted": said}), ways)

    assert playable(0.1) == ([PLAIN, HALF, ways[3], ways[2]], 8)
    assert playable(4.0) == ([PLAIN, HALF, ways[3], ways[2]], 1)
    assert playable(10.0) == ([PLAIN, HALF], 1)
    assert playable(1000.0)[1] == 0


def test_what_the_user_fixes_does_not_compete(task, at, answer):
    answer.race = raced(Raced(PLAIN, 0.010, 0.001))
    plan, _ = planned(at, "--trial", "--set", "precision.dtype=fp32")
    assert plan["precision"]["dtype"] == "fp32"
    assert all(variant.dtype == "fp32" for each in answer.asked for variant in each.variants)


def test_a_race_that_fails_leaves_the_plain_way(task, at, answer):
    answer.race = raced(outcome="failed")
    plan, err = planned(at, "--trial")
    assert plan["precision"]["dtype"] == "fp32"
    assert "ways to run the model were not compared (it broke); it runs the plain way" in err


def test_a_winner_that_cannot_be_traced_leaves_the_plain_way(task, at, answer, monkeypatch):
    refusing(monkeypatch)
    answer.race = raced(Raced(PLAIN, 0.010, 0.001), Raced(HALF, 0.005, 0.001))
    plan, err = planned(at, "--trial")
    assert plan["precision"]["dtype"] == "fp32"
    assert (
        "warning: what won cannot be planned for: task.py:9: all tensors must have the same "
        "dtype; it runs the plain way" in err
    )


def test_a_race_by_the_real_thing(task, at):
    _, err = planned(at, "--trial")
    (line,) = [each for each in err.splitlines() if each.startswith("compared ")]
    assert " ways to take a step in " in line


def test_without_a_trial_there_is_no_race(task, at, answer):
    planned(at, "--no-trial")
    assert answer.asked == []


def test_one_line_says_what_came_of_it():
    plain, half = Raced(PLAIN, 0.010, 0.0), Raced(HALF, 0.0099, 0.0)
    assert racing.told(raced(plain, half)).endswith("none beats fp32 on 1 thread")
