"""Predicted beside measured: rows, errors and the table."""

import io

import pytest

from autotrain.bench.memory import (
    Row,
    advice,
    figures,
    lines,
    summary,
    write_pictures,
    write_speech,
)
from autotrain.report.table import show_table
from autotrain.schema import Prediction

MIB = 2**20


def between(expected, spread=0.1):
    return Prediction(low=expected * (1 - spread), expected=expected, high=expected * (1 + spread))


def made(expected=100, measured=100, **more) -> Row:
    fields = {
        "model": "net",
        "device": "CPU",
        "dtype": "fp32",
        "optimizer": "adamw",
        "micro_batch": 8,
        "accum_steps": 1,
        "outcome": "ok",
        "tensor_predicted": between(10 * MIB),
        "reserved_predicted": between(20 * MIB),
        "device_predicted": between(expected * MIB),
        "device_measured": measured and measured * MIB,
    }
    return Row.model_validate(fields | more)


def test_errors_are_of_what_was_predicted_over_what_was_measured():
    rows = [made(100, took) for took in (100, 80, 110, 125, 100, 100, 100, 100, 100, 100)]
    (found,) = figures(rows)
    assert (found.what, found.cases, found.median) == ("device peak", 10, 0.0)
    assert found.worst == pytest.approx(0.25)
    assert found.p90 == pytest.approx(0.2)
    assert found.inside == pytest.approx(0.8)
    assert summary(found).endswith(
        "10 cases: median 0.0%, p90 20.0%, worst 25.0%; 80% in the interval"
    )


def test_what_was_not_measured_counts_nowhere():
    assert figures([made(measured=None, outcome="timed_out")]) == []
    told = [made(), made(tensor_measured=10 * MIB, reserved_measured=25 * MIB)]
    assert [(f.what, f.cases) for f in figures(told)] == [
        ("tensor peak", 1), ("reserved peak", 1), ("device peak", 2),
    ]  # fmt: skip


def text(rows):
    out = io.StringIO()
    show_table(lines(rows), out)
    return out.getvalue()


def test_the_table_has_a_column_for_what_was_measured_and_no_other():
    plain = text([made(100, 80), made(measured=None, outcome="out_of_memory")])
    assert "tensor peak" not in plain
    assert "+25.0% outside" in plain
    assert "out of memory" in plain
    assert "tensor peak" in text([made(tensor_measured=10 * MIB)])
    assert "CPU fp32 adamw 8 x 4" in text([made(accum_steps=4)])


def test_the_sentence_says_whether_to_believe_it():
    assert advice([made(100, 100), made(105, 100)]) == (
        "believe what is predicted of memory here: all 2 lie in their intervals, the worst 5.0% off"
    )
    assert advice([made(100, 100), made(100, 50)]).startswith("let a plan be tried")
    assert "1 of 2 lie outside" in advice([made(100, 100), made(100, 50)])
    assert advice([made(measured=None)]) == "nothing could be measured"


def test_pictures_are_those_of_an_image_folder(tmp_path):
    from autotrain.probe.dataset import probe_dataset

    write_pictures(tmp_path)
    found = probe_dataset(tmp_path)
    assert (found.kind, found.count, len(found.classes)) == ("images", 48, 4)
    assert not found.faults


def test_speech_is_the_clips_that_come_along(tmp_path):
    from autotrain.probe.dataset import probe_dataset

    write_speech(tmp_path / "speech")
    found = probe_dataset(tmp_path / "speech")
    assert (found.kind, found.count) == ("speech", 20)
    assert not found.faults
