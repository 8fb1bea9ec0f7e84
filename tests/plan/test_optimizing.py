"""How an optimizer runs: fused where torch can."""

import pytest

from autotrain.errors import UsageError

from .profiles import device, goal, machine, model, planned, reason, recipe

CPU = machine(device("cpu", free=8 << 30))
COMPLEX = model().model_copy(update={"complex": True})
SPARSE = model().model_copy(update={"sparse": True})


def test_weights_of_complex_numbers_are_trained_by_no_fused_optimizer():
    assert planned(CPU, model()).optimizer.implementation == "fused"
    made = planned(CPU, COMPLEX)
    assert made.optimizer.implementation == "for-loop"
    assert "complex numbers" in reason(made, "optimizer.implementation").formula


def test_one_that_you_fuse_all_the_same_is_refused_before_anything_runs():
    with pytest.raises(UsageError, match=r"optimizer\.implementation: .*complex numbers"):
        planned(CPU, COMPLEX, goal(optimizer__implementation="fused"))


def test_sparse_gradients_get_an_optimizer_that_takes_them():
    """So a plan that nobody tried can be run."""
    made = planned(CPU, SPARSE)
    chosen = made.optimizer
    assert (chosen.name, chosen.implementation, chosen.weight_decay) == ("adagrad", "for-loop", 0)
    assert "sparse" in reason(made, "optimizer.name").formula
    assert planned(CPU, SPARSE, goal(optimizer__name="sgd")).optimizer.momentum is None


def test_a_recipe_for_others_gives_way_to_sparse_gradients():
    of_others = recipe(optimizer__name="adamw", optimizer__weight_decay=0.1)
    assert planned(CPU, SPARSE, goal(of_others)).optimizer.name == "adagrad"


@pytest.mark.parametrize(
    ("key", "value", "instead"),
    [
        ("name", "adam", "optimizer.name=adagrad"),
        ("implementation", "fused", "optimizer.implementation=foreach"),
        ("weight_decay", 0.1, "optimizer.weight_decay=0"),
    ],
)
def test_what_torch_refuses_with_sparse_gradients_is_refused_before_anything_runs(
    key, value, instead
):
    with pytest.raises(UsageError, match=rf"optimizer\.{key}: .*sparse") as caught:
        planned(CPU, SPARSE, goal(**{f"optimizer__{key}": value}))
    assert f"--set {instead}" in caught.value.hint
