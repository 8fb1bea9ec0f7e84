"""An exported model agrees if it answers the same but for rounding, and each difference is told."""

import math

import pytest
import torch

from autotrain.exporting.agreement import TOLERANCE, DisagreementError, compared
from autotrain.exporting.calls import Call


def call(*answer, samples=2):
    return Call(samples, (torch.zeros(samples, 1),), {}, [torch.as_tensor(a) for a in answer])


def answering(*answers):
    return lambda _: [torch.as_tensor(answer) for answer in answers]


def test_rounding_is_no_difference_and_is_told():
    wanted = call([100.0, 0.0], [1, 2])
    found = compared([wanted, call([100.0, 0.0], [1, 2], samples=3)],
                     answering([100.0 + 50 * TOLERANCE, 0.001], [1, 2]))  # fmt: skip
    assert found.samples == (2, 3)
    assert found.several
    assert found.most == pytest.approx(50 * TOLERANCE, rel=1e-3)
    assert found.share == pytest.approx(TOLERANCE / 2, rel=1e-3)


@pytest.mark.parametrize(
    ("wanted", "answers", "says"),
    [
        ([1.0, 2.0], [[1.0, 2.1]], "differs by 0.1, 0.05 of the largest value"),
        ([1e-6], [[2e-6]], "differs by 1e-06"),
        ([1, 2], [[1, 3]], "other whole numbers"),
        ([1.0], [[[1.0]]], r"answers \[1, 1\] for \[1\]"),
        ([1.0], [[1.0], [2.0]], "2 tensors for 1"),
        ([math.nan, 1.0], [[0.0, 1.0]], "not finite"),
        ([math.inf], [[-math.inf]], "not finite"),
        ([1.0], [[math.nan]], "not finite"),
    ],
)
def test_another_answer_is_refused(wanted, answers, says):
    with pytest.raises(DisagreementError, match=says):
        compared([call(wanted)], answering(*answers))


def test_what_is_not_finite_in_both_agrees():
    assert (
        compared([call([math.nan, -math.inf, 1.0])], answering([math.nan, -math.inf, 1.0])).most
        == 0
    )


def test_a_failure_is_a_disagreement():
    def fails(_):
        raise RuntimeError("no such shape\nand more")

    with pytest.raises(DisagreementError, match=r"it fails: no such shape$"):
        compared([call([1.0])], fails)
