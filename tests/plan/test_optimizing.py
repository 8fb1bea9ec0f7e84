"""How an optimizer runs: fused where torch can."""

import pytest

from autotrain.errors import UsageError

from .profiles import device, goal, machine, model, planned, reason

CPU = machine(device("cpu", free=8 << 30))
COMPLEX = model().model_copy(update={"complex": True})


def test_weights_of_complex_numbers_are_trained_by_no_fused_optimizer():
    assert planned(CPU, model()).optimizer.implementation == "fused"
    made = planned(CPU, COMPLEX)
    assert made.optimizer.implementation == "for-loop"
    assert "complex numbers" in reason(made, "optimizer.implementation").formula


def test_one_that_you_fuse_all_the_same_is_refused_before_anything_runs():
    with pytest.raises(UsageError, match=r"optimizer\.implementation: .*complex numbers"):
        planned(CPU, COMPLEX, goal(optimizer__implementation="fused"))
