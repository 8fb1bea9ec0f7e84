"""Seconds where a machine's file does not give every rate."""

import pytest

from .profiles import device, goal, machine, model, planned, rates


def taking(dtype, **matmul):
    own = rates(source="datasheet").model_copy(update={"matmul": matmul, "op_seconds": 1e-12})
    gpu = device("cuda", native_dtypes=("fp32", "bf16"), rates=own)
    return planned(machine(gpu), model(), goal(precision__dtype=dtype))


def seconds(plan):
    return plan.predicted.step_seconds.expected


def noted(plan):
    return [note for note in plan.notes if "no rate" in note]


def test_without_fp32s_rate_it_is_taken_for_a_part_of_what_the_file_gives_and_said():
    plan = taking("fp32", bf16=4e9)
    assert seconds(plan) == pytest.approx(seconds(taking("fp32", fp32=1e9)))
    (said,) = noted(plan)
    assert said.startswith("bench gives no rate for products in fp32 on a cuda")
    assert "1 GFLOP/s are derived from bf16" in said
    step = plan.predicted.step_seconds
    assert step.high == pytest.approx(5 * step.expected)


def test_what_the_file_gives_counts_as_it_stands():
    for dtype, given in (("bf16", {"bf16": 4e9}), ("bf16", {"fp32": 1e9}), ("tf32", {"fp32": 1e9})):
        assert noted(taking(dtype, **given)) == []
