"""Classes of different size, and classes without samples."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotrain.blocks.classes import balanced_weights, insist_on_samples
from autotrain.errors import AutotrainError


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60))
def test_all_classes_that_are_there_count_the_same_together_and_the_mean_is_one(labels):
    weights = balanced_weights(labels, 5)
    together = [weights[c] * labels.count(c) for c in set(labels)]
    assert together == pytest.approx([len(labels) / 5] * len(together))
    assert all(weights[c] == 0 for c in set(range(5)) - set(labels))


def test_a_class_without_a_sample_is_named():
    insist_on_samples(["a", "b"], [1, 0])
    with pytest.raises(AutotrainError, match=r"no image that can be read in b, d\n"):
        insist_on_samples(["a", "b", "c", "d"], [0, 2])
