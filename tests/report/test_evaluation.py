"""An evaluation as a person reads it, and as JSON."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotrain.report import confusion as pictures
from autotrain.report.evaluation import Confusion, Evaluation

MATRIX = [[8, 2, 0], [0, 5, 0], [1, 0, 0]]


def evaluation(**more):
    fields = {
        "name": "signs", "step": 1200, "best": True, "averaged": False, "weights_sha256": "ab",
        "split": "test", "samples": 16, "device": "cpu", "dtype": "fp32", "seconds": 1.0,
        "loss": 0.25, "metrics": {"wer": 0.123, "repeated": 0.0}, "monitor": "wer",
        "bands": {"wer": ("production", "good enough to use")},
    }  # fmt: skip
    return Evaluation(**{**fields, **more})


def test_an_error_rate_is_told_with_its_band():
    text = evaluation().text(["runs/signs/evaluation-test.json"], "autotrain predict runs/signs")
    lines = text.splitlines()
    assert lines[0].startswith("evaluated   signs at step-00001200, the best: 16 samples of test")
    assert "loss        0.25" in lines
    assert "wer         12.3 %: production (good enough to use)" in lines
    assert "repeated    0" in lines
    assert lines[-1] == "next        autotrain predict runs/signs"


def test_json_has_no_nan():
    found = evaluation(loss=math.nan, metrics={"wer": math.inf}).record()
    assert (found["loss"], found["metrics"]["wer"]) == (None, None)
    json.loads(json.dumps(found, allow_nan=False))


def test_each_class_has_its_shares_and_one_without_samples_none():
    a, b, c = Confusion("abc", [[8, 2, 0], [0, 5, 0], [0, 0, 0]]).classes()
    assert (a.precision, a.recall) == (1.0, 0.8)
    assert (b.precision, b.recall) == (pytest.approx(5 / 7), 1.0)
    assert a.f1 == pytest.approx(2 * 0.8 / 1.8)
    assert (c.precision, c.recall, c.f1) == (None, None, None)
    text = evaluation(confusion=Confusion("abc", [[8, 2, 0], [0, 5, 0], [0, 0, 0]])).text([], "")
    assert "no sample here" in text


def test_what_is_confused_most_comes_first():
    assert Confusion("abc", MATRIX).mixed_up() == [("a", "b", 2), ("c", "a", 1)]
    text = evaluation(confusion=Confusion("abc", MATRIX)).text([], "")
    assert "confused    a taken for b: 2 times" in text
    assert "is \\ taken for a b c" in text


def test_of_many_classes_the_matrix_is_left_to_the_picture():
    names = [f"class {n}" for n in range(40)]
    counts = [[int(i == j) + int(j == i + 1) for j in range(40)] for i in range(40)]
    text = evaluation(confusion=Confusion(names, counts)).text([], "")
    assert "taken for class 1: 1 time" in text
    assert "is \\ taken for" not in text
    assert "and 29 more pairs" in text


@given(st.lists(st.lists(st.integers(0, 50), min_size=4, max_size=4), min_size=4, max_size=4))
def test_the_classes_add_up_to_the_samples(counts):
    classes = Confusion("abcd", counts).classes()
    total = sum(map(sum, counts))
    assert sum(each.samples for each in classes) == sum(each.taken for each in classes) == total
    for each in classes:
        assert each.right <= min(each.samples, each.taken)
        assert each.f1 is None or 0 <= each.f1 <= 1


@pytest.mark.parametrize("classes", [2, 29, 100])
def test_the_picture_can_be_drawn_for_few_classes_and_for_many(classes):
    counts = [[int(i == j) for j in range(classes)] for i in range(classes)]
    raw = pictures.png(Confusion([f"k{n}" for n in range(classes)], counts), "title $x")
    assert raw.startswith(b"\x89PNG")
