"""The optimizer that a plan names."""

import typing

import pytest
import torch

from autotrain import optimizer
from autotrain.errors import AutotrainError
from autotrain.plan.learning import EPS
from autotrain.run.tensors import flatten_optimizer, restore_optimizer
from autotrain.schema import OptimizerName, OptimizerSection

NAMES = typing.get_args(OptimizerName)


def section(name="adamw", implementation="foreach", **more):
    return OptimizerSection(
        name=name, lr=0.1, weight_decay=0.01, implementation=implementation, **more
    )


def steps(made, model, count):
    for _ in range(count):
        model(torch.ones(2, 3)).square().sum().backward()
        made.step()
        made.zero_grad(set_to_none=True)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("implementation", ["foreach", "for-loop"])
def test_every_optimizer_of_the_schema_trains_and_resumes_to_the_bit(name, implementation):
    """Three steps at once equal two, a checkpoint's state, and one."""
    extras = {"momentum": 0.9, "betas": (0.8, 0.9)}
    models = [torch.nn.Linear(3, 2) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    one, two = (optimizer.build(section(name, implementation, **extras), m) for m in models)
    steps(one, models[0], 3)
    steps(two, models[1], 2)
    again = optimizer.build(section(name, implementation, **extras), models[1])
    restore_optimizer(again, flatten_optimizer(two))
    steps(again, models[1], 1)
    assert torch.equal(models[0].weight, models[1].weight)


def test_an_implementation_that_torch_lacks_is_one_clear_error():
    """Rprop has no fused form."""
    with pytest.raises(AutotrainError, match=r"Rprop refuses .*fused=True"):
        optimizer.build(section("rprop", "fused"), torch.nn.Linear(1, 1))


def test_a_model_without_trainable_parameters_is_an_error():
    """Frozen by mistake."""
    with pytest.raises(AutotrainError, match="no parameter to train"):
        optimizer.build(section(), torch.nn.Linear(1, 1).requires_grad_(False))


def test_eps_goes_to_those_that_divide_by_a_size():
    """And not to SGD; left out, it is torch's."""
    layer = torch.nn.Linear(1, 1)
    assert optimizer.build(section("adam", eps=1e-5), layer).defaults["eps"] == 1e-5
    assert optimizer.build(section("adagrad"), layer).defaults["eps"] == 1e-10
    assert "eps" not in optimizer.build(section("sgd", eps=1e-5), layer).defaults


@pytest.mark.parametrize("name", sorted(EPS))
def test_the_plans_usual_eps_is_torchs(name):
    """A plan that spells it out changes nothing."""
    assert optimizer.build(section(name), torch.nn.Linear(1, 1)).defaults["eps"] == EPS[name]


def test_momentum_and_betas_go_where_they_are_known():
    """SGD takes the momentum and not the betas."""
    made = optimizer.build(section("sgd", momentum=0.8, betas=(0.5, 0.6)), torch.nn.Linear(1, 1))
    assert made.defaults["momentum"] == 0.8
    assert "betas" not in made.defaults
