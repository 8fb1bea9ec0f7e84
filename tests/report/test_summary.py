import json
import math
import random
import time
from dataclasses import replace
from pathlib import Path

import pytest
from plans import (
    GIB,
    MIB,
    START,
    a_plan,
    a_run,
    a_step,
    between,
    evaluated,
    saved,
    started,
    stopped,
)

from autotrain.commands import report as commands
from autotrain.errors import AutotrainError
from autotrain.events import Healed, Step, Warned, to_json
from autotrain.report.diagnosis import Place
from autotrain.report.document import as_json, comparisons, report
from autotrain.report.result import RunResult, collect
from autotrain.report.summary import summary_text


def written(path, events):
    path.write_text("".join(to_json(event) + "\n" for event in events))
    return path


def text_of(events, plan=None):
    plan = plan or a_plan()
    result = collect(events, plan)
    said = report(result, plan, Place("runs/clips/plan.toml", "plan.toml"))
    return summary_text(said, result, plan, Path("runs/clips"), "my.toml")


def report_json(result, plan):
    return as_json(report(result, plan, Place()))


def test_the_loss_is_compared_between_the_means_of_first_and_last_epoch_by_weight():
    """Epoch 1 holds losses 1 (weight 1) and 4 (weight 3); the last 0.5 and 0.8."""
    losses = [(1, 1.0, 1.0), (2, 4.0, 3.0), (3, 0.5, 1.0), (4, 0.8, 2.0)]
    events = [started(epochs=2, per_epoch=2)]
    events += [a_step(step, per_epoch=2, loss=loss, weight=w) for step, loss, w in losses]
    result = collect(events, a_plan())
    assert result.first_loss == pytest.approx(3.25)
    assert result.last_loss == pytest.approx(0.7)
    assert result.loss_change == pytest.approx(0.7 / 3.25 - 1)
    assert "3.25 -> 0.7 (78.5 % down" in text_of(events)


def test_a_run_is_the_same_read_from_its_file_as_seen_live(tmp_path):
    events = a_run(10)
    path = written(tmp_path / "events.jsonl", events)
    assert collect(path, a_plan()) == collect(events, a_plan())


def test_steps_taken_again_after_a_kill_count_once():
    """Killed at step 37 with a checkpoint of step 20: steps 21 to 37 are those done again."""
    lost = [a_step(step, loss=9.0) for step in range(1, 38)]
    again = [a_step(step, loss=1.0, time=START + 1000 + step) for step in range(21, 51)]
    events = [
        started(epochs=5),
        *lost,
        evaluated(30, 9.0, best=True),
        started(step=20, epochs=5, time=START + 1000, resumed_from="step-00000020"),
        *again,
        evaluated(50, 1.0, best=True, time=START + 1050),
    ]
    result = collect(events, a_plan())
    assert result.points.column("step").tolist() == list(range(1, 51))
    assert result.points.column("loss").tolist() == [9.0] * 20 + [1.0] * 30
    assert result.points.column("window").tolist() == [1] * 50
    assert result.resumed == [20]
    assert [e.step for e in result.evaluations] == [50]
    assert result.sessions == 2
    assert result.seconds == pytest.approx(37 * 0.2 + 50)


def test_a_log_point_after_a_resume_counts_all_the_steps_it_is_the_mean_of():
    """Stopped off its cadence at step 17: the log point at 20 covers steps 11 to 20 again."""
    events = [
        started(),
        a_step(10, samples=80),
        a_step(17, samples=56),
        stopped(17, "max_steps"),
        started(step=17, resumed_from="step-00000017"),
        a_step(20, samples=80),
    ]
    result = collect(events, a_plan(run={"log_every_steps": 10}))
    assert result.points.column("step").tolist() == [10, 20]
    assert result.points.column("window").tolist() == [10, 10]


def test_a_rollback_within_a_session_lets_later_lines_win():
    events = [started(), *map(a_step, (1, 2, 3)), a_step(2, loss=7.0), a_step(3, loss=8.0)]
    points = collect(events, a_plan()).points
    assert points.column("step").tolist() == [1, 2, 3]
    assert points.column("loss").tolist()[1:] == [7.0, 8.0]


def test_torn_lines_are_left_out(tmp_path):
    path = written(tmp_path / "events.jsonl", a_run(2))
    content = path.read_bytes()
    half = content.splitlines()[3][:40]
    path.write_bytes(content + half + b"\n\x00\x00\xff\n[]\n" + half)
    assert collect(path, a_plan()) == collect(a_run(2), a_plan())


def test_a_missing_file_is_one_clear_error(tmp_path):
    with pytest.raises(AutotrainError, match="No such file"):
        collect(tmp_path / "events.jsonl", a_plan())


def test_speed_and_data_wait_are_over_all_steps():
    """Two log points of 10 steps: 1 s and 3 s a step, 0.5 s and 0 s of them waiting."""
    events = [
        started(),
        a_step(10, samples=80, step_seconds=1.0, wait_seconds=0.5),
        a_step(20, samples=80, step_seconds=3.0, wait_seconds=0.0),
    ]
    result = collect(events, a_plan(run={"log_every_steps": 10}))
    assert result.samples_per_second == pytest.approx(160 / 40)
    assert result.wait_share == pytest.approx(5 / 40)
    assert result.step_seconds == pytest.approx(2.0)


def test_the_best_is_the_last_evaluation_that_improved():
    events = [
        started(monitor="wer"),
        a_step(10),
        evaluated(10, 0.9, best=True, metrics={"wer": 0.5}),
        evaluated(20, 0.8, best=True, metrics={"wer": 0.3}),
        evaluated(30, 0.7, best=False, metrics={"wer": 0.4}),
    ]
    best = collect(events, a_plan()).best
    assert (best.metric, best.value, best.step) == ("wer", 0.3, 20)
    assert "wer 0.3 at step 20, epoch 2" in text_of(events)


def test_predictions_stand_beside_what_was_measured():
    found = comparisons(collect(a_run(), a_plan()), a_plan())
    peak = found["device_peak_bytes"]
    assert peak.measured == int(1.25 * GIB)
    assert peak.ratio == pytest.approx(1.25 / 1.2)
    assert peak.inside is True
    assert found["checkpoint_bytes"].measured == 67 * MIB
    assert found["run_seconds"].ratio == pytest.approx(1.0)


def test_peaks_of_the_allocator_are_unknown_on_a_cpu_and_say_so():
    report = report_json(collect(a_run(), a_plan()), a_plan())
    for key in ("tensor_peak_bytes", "reserved_peak_bytes"):
        assert report["predictions"][key]["measured"] is None
        assert report["predictions"][key]["note"] == "measured on a GPU only"
    assert text_of(a_run()).count("measured on a GPU only") == 2


def test_peaks_of_the_allocator_are_compared_where_a_gpu_gave_them():
    result = replace(
        collect(a_run(), a_plan()), tensor_peak_bytes=270 * MIB, reserved_peak_bytes=500 * MIB
    )
    found = comparisons(result, a_plan(device={"kind": "cuda"}))
    assert found["tensor_peak_bytes"].inside is True
    assert found["reserved_peak_bytes"].inside is False


def test_what_the_driver_lent_is_compared_where_it_told():
    plan = a_plan(device={"kind": "cuda"})
    *events, last = a_run()
    for told in (None, 1300 * MIB):
        result = collect([*events, replace(last, device_peak_bytes=told)], plan)
        found = comparisons(result, plan)["device_peak_bytes"]
        assert found.measured == told
        assert found.note == ("" if told else "not recorded")
        assert result.reserved_peak_bytes is not None


def test_a_run_that_stopped_early_is_held_against_its_share_of_the_time():
    """100 of 500 steps in 20 s, where 100 s were predicted for all."""
    events = [started(), *map(a_step, range(1, 101)), stopped(100, "early_stop")]
    found = comparisons(collect(events, a_plan()), a_plan())["run_seconds"]
    assert found.expected == pytest.approx(20)
    assert found.ratio == pytest.approx(1)
    assert found.note == "for 100 of 500 steps"
    assert "100 of 500 steps, in epoch 10 of 50; 20 s" in text_of(events)
    assert "whole run: for 100 of 500 steps" in text_of(events)


def test_outside_the_interval_is_called_above_or_below():
    plan = a_plan(predicted={**a_plan().predicted.model_dump(), "step_seconds": between(0.1)})
    line = next(line for line in text_of(a_run(), plan).splitlines() if "one step" in line)
    assert line.endswith("2.00  above")


def test_the_report_is_json_with_a_schema_and_no_nan():
    events = [started(), a_step(1, loss=math.nan), evaluated(1, math.inf, best=False)]
    report = report_json(collect(events, a_plan()), a_plan())
    json.dumps(report, allow_nan=False)
    assert report["schema"] == 1
    assert report["stopped"] is None
    assert report["loss"] == {
        "first_epoch": None,
        "last_epoch": None,
        "change_percent": None,
        "not_finite_points": 1,
    }
    assert set(report["predictions"]) == set(a_plan().predicted.model_dump())


def test_points_that_are_not_finite_are_counted_and_left_out_of_the_means():
    events = [started(), a_step(1, loss=2.0), a_step(2, loss=math.nan), a_step(3, loss=4.0)]
    assert collect(events, a_plan()).first_loss == pytest.approx(3.0)
    said = "loss 3, mean of the last epoch; not finite at 1 of 3 log points"
    assert said in " ".join(text_of(events).split())


@pytest.mark.parametrize("events", [[], [started()], [started(), stopped(0, "interrupted")]])
def test_a_run_without_a_step_has_a_summary_too(events):
    assert "next" in text_of(events)
    json.dumps(report_json(collect(events, a_plan()), a_plan()), allow_nan=False)
    assert collect(events, a_plan()).loss_change is None


@pytest.mark.parametrize(
    ("reason", "command"),
    [
        ("finished", "autotrain evaluate runs/clips"),
        ("early_stop", "autotrain evaluate runs/clips"),
        ("interrupted", "autotrain run my.toml --resume"),
        ("max_steps", "autotrain run my.toml --resume"),
        (
            "out_of_memory",
            "lower batch.micro_batch in my.toml, then autotrain run my.toml --resume",
        ),
        ("not_finite", "lower optimizer.lr in my.toml, then autotrain run my.toml --resume"),
    ],
)
def test_the_summary_ends_with_the_next_command(reason, command):
    events = [started(), a_step(1), stopped(1, reason)]
    assert text_of(events).splitlines()[-1].split(maxsplit=1) == ["next", command]


def test_a_killed_run_says_that_its_end_is_not_recorded_and_how_to_go_on():
    text = text_of([started(), a_step(1)])
    assert "no end recorded" in text
    assert text.endswith("autotrain run my.toml --resume")


@pytest.mark.parametrize("width", [80, 120])
def test_the_summary_fits_the_terminal(width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    lines = text_of([*a_run(), stopped(500, "early_stop", detail="x")]).splitlines()
    copied = ("try ", "next ")
    assert max(len(text) for text in lines if not text.startswith(copied)) <= min(width, 96)


def test_a_command_can_be_copied_where_a_path_has_spaces(monkeypatch):
    """It is quoted, and never broken over two lines."""
    monkeypatch.setenv("COLUMNS", "80")
    result = collect([started(), a_step(1)], a_plan())
    said = report(result, a_plan(), Place())
    text = summary_text(said, result, a_plan(), Path("x"), f"my {'long ' * 20}plan.toml")
    assert text.splitlines()[-1].endswith(f"autotrain run 'my {'long ' * 20}plan.toml' --resume")


def test_the_summary_names_where_things_are():
    text = text_of(a_run())
    for place in ("checkpoints", "report.png", "report.json"):
        assert str(Path("runs/clips") / place) in text


def test_the_newest_checkpoint_gives_the_size():
    events = [started(), a_step(1), saved(1, "step"), replace(saved(2, "last"), bytes=70 * MIB)]
    assert collect(events, a_plan()).checkpoint_bytes == 70 * MIB


def test_100_000_steps_are_reported_in_seconds_of_processor_time(tmp_path):
    """All of the report: a log point a step, no two alike, and an evaluation each epoch."""
    line = to_json(a_step(111, loss=1.111, step_seconds=1.112, wait_seconds=1.113))
    for said, field in ((" 111,", " %d,"), ("1.111", "%r"), ("1.112", "%r"), ("1.113", "%r")):
        assert line.count(said) == 1
        line = line.replace(said, field)
    chance = random.Random(0)
    lines = [to_json(started(epochs=100, per_epoch=1000))]
    for n in range(1, 100_001):
        loss = 2 * math.exp(-n / 2e4) + 0.3 + chance.gauss(0, 0.05)
        lines.append(line % (n, loss, chance.uniform(0.1, 0.11), chance.uniform(0, 0.01)))
        if n % 1000 == 0:
            lines.append(to_json(evaluated(n, loss, best=True, per_epoch=1000)))
    (tmp_path / "events.jsonl").write_text("\n".join([*lines, to_json(stopped(100_000)), ""]))
    plan = a_plan(run={"log_every_steps": 1}, train={"epochs": 100})
    begun = time.process_time()
    said, _ = commands.write(plan, tmp_path, tmp_path / "plan.toml")
    assert time.process_time() - begun < 4
    assert said["steps"] == 100_000
    assert said["loss"]["last_epoch"] == pytest.approx(0.3 + 2 * math.exp(-5), abs=0.01)
    assert len(said["evaluations"]) == 100
    for name in ("report.html", "report.png"):
        assert 20_000 < (tmp_path / name).stat().st_size < 1_000_000


def test_an_empty_result_has_no_figures():
    empty = RunResult()
    assert (empty.best, empty.step_seconds, empty.wait_share, empty.steps) == (None, None, None, 0)
    assert math.isnan(empty.first_loss)
    assert isinstance(a_step(1), Step)


def test_what_was_warned_of_and_mended_is_listed_one_below_the_other():
    """Of many, the first few and how many more."""
    at = {"step": 5, "epoch": 1}
    one = [started(), a_step(5), Warned(**at, message="a plateau"), stopped(5)]
    assert "\nwarned      a plateau\n" in text_of(one)
    many = [Healed(**at, fault=f"fault {n}", cure="none", cost_seconds=0) for n in range(20)]
    text = text_of([started(), a_step(5), *many, stopped(5)])
    assert "\nmended      - fault 0: none\n            - fault 1: none\n" in text
    assert "            - and 15 more, in report.json\n" in text
    assert "fault 5" not in text


def test_what_a_run_suffers_from_is_told_with_the_line_that_makes_the_next_plan(monkeypatch):
    """Which is never broken over two lines, and is what to type next."""
    monkeypatch.setenv("COLUMNS", "80")
    flat = [started(), *(a_step(n, loss=2.0) for n in range(1, 501)), stopped(500)]
    lines = text_of(flat).splitlines()
    line = "autotrain plan --refresh runs/clips/plan.toml --set optimizer.lr=0.0045 -o plan.toml"
    starts = [text[:28] for text in lines]
    assert starts.index("diagnosis   underfitting: th") < starts.index(
        "advice      it has not learn"
    )
    assert f"try         {line}" in lines
    assert lines[-1] == f"next        {line}"
