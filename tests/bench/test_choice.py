"""The plan's way to take a step beside the others: whether to change it."""

import pytest

from autotrain.bench.choice import advice, ordered, row, share
from autotrain.bench.spread import spread
from autotrain.schema import Variant

FP32, BF16 = Variant("fp32", "contiguous", 2), Variant("bf16", "channels_last", 2)


def way(variant, seconds, micro=8, accum=1, scatter=0.0, **marks):
    rounds = [seconds * (1 - scatter), seconds, seconds * (1 + scatter)] * 3
    marks = {"final": True, **marks}
    return row(variant, micro, accum, spread([rounds]), **marks)


def test_a_plan_that_nothing_beats_is_kept():
    rows = [way(FP32, 0.1, chosen=True), way(BF16, 0.2), way(FP32, 0.3, micro=4, accum=2)]
    assert advice(rows) == "keep the plan: none of the 3 ways is faster"
    assert share(rows) == 1.0


def test_what_the_spread_does_not_tell_apart_changes_nothing():
    rows = [way(FP32, 0.100, scatter=0.1, chosen=True), way(BF16, 0.095, scatter=0.1)]
    assert advice(rows).startswith("keep the plan: of 2 ways 8 x 1, bf16, channels_last, 2 threads")
    assert share(rows) == pytest.approx(0.95)


def test_a_faster_way_is_named_with_the_flags_that_choose_it():
    rows = [way(FP32, 0.1, micro=8, chosen=True, plain=True), way(BF16, 0.05, micro=4, accum=2)]
    said = advice(rows)
    assert said.startswith("change the plan: 4 x 2, bf16, channels_last, 2 threads takes 50 ms")
    for flag in ("batch.micro_batch=4", "batch.accum_steps=2", "precision.dtype=bf16"):
        assert f"--set {flag}" in said
    assert "device.threads" not in said


def test_the_plain_way_is_told_beside_a_plan_that_is_kept():
    rows = [way(BF16, 0.05, chosen=True), way(FP32, 0.1, plain=True)]
    assert advice(rows).endswith("; it is 2.00 x as fast as the plain way (8 x 1, fp32, 2 threads)")


def test_first_looks_come_last_and_decide_nothing():
    rows = [way(FP32, 0.1, chosen=True), way(BF16, 0.01, final=False)]
    assert ordered(rows)[0].chosen
    assert advice(rows).startswith("keep the plan")
    assert share([way(FP32, 0.1, chosen=True, final=False)]) is None
