"""The optimizer that a plan names."""

import typing

import pytest
import torch

from autotrain import optimizer
from autotrain.errors import AutotrainError
from autotrain.plan.learning import EPS
from autotrain.run.keeping.tensors import flatten_optimizer, restore_optimizer
from autotrain.schema import OptimizerName, OptimizerSection

NAMES = typing.get_args(OptimizerName)


def section(name="adamw", implementation="foreach", **more):
    return OptimizerSection(
        **{"name": name, "lr": 0.1, "weight_decay": 0.01, "implementation": implementation, **more}
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
    mine = [[*m.parameters()] for m in models]
    restore_optimizer(again, mine[1], flatten_optimizer(two, mine[1]))
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


class Grouped(torch.nn.Module):
    """Of several levels, with a norm between two."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = torch.nn.Linear(3, 4), torch.nn.LayerNorm(4)
        self.last = torch.nn.Linear(4, 2)

    def forward(self, x):
        return self.last(self.norm(self.first(x)))


def named_groups(made, model):
    names = {id(p): name for name, p in model.named_parameters()}
    return [[names[id(p)] for p in group["params"]] for group in made.param_groups]


def test_one_group_of_all_is_what_torch_makes_without_being_asked():
    made = optimizer.build(section(), Grouped())
    assert len(made.param_groups) == 1
    assert optimizer.SHARE not in made.param_groups[0]


def test_of_one_dimension_nothing_decays_where_matrices_do():
    model = Grouped()
    made = optimizer.build(section(decays="matrices"), model)
    matrices, others = named_groups(made, model)
    assert matrices == ["first.weight", "last.weight"]
    assert others == ["first.bias", "norm.weight", "norm.bias", "last.bias"]
    assert [group["weight_decay"] for group in made.param_groups] == [0.01, 0.0]


def test_where_nothing_decays_there_is_nothing_to_tell_apart():
    made = optimizer.build(section(decays="matrices", weight_decay=0.0), Grouped())
    assert len(made.param_groups) == 1


def test_a_rate_falls_with_the_depth_and_the_top_takes_all_of_it():
    model = Grouped()
    made = optimizer.build(section(layer_decay=0.5), model)
    assert named_groups(made, model)[-1] == ["last.weight", "last.bias"]
    optimizer.set_rate(made, 0.1)
    assert [group["lr"] for group in made.param_groups] == [0.05, 0.1]


def test_a_state_goes_from_one_grouping_to_another():
    """What a checkpoint holds goes by the model's order: other groups find their own in it."""
    torch.manual_seed(0)
    one, two = Grouped(), Grouped()
    two.load_state_dict(one.state_dict())
    makes = [section(name="adam"), section(name="adam", decays="matrices")]
    made = [optimizer.build(each, model) for each, model in zip(makes, (one, two), strict=True)]
    plain = torch.optim.Adam(two.parameters(), lr=makes[0].lr, weight_decay=makes[0].weight_decay)
    steps(made[0], one, 2)
    steps(plain, two, 2)
    kept = flatten_optimizer(made[0], [*one.parameters()])
    restore_optimizer(made[1], [*two.parameters()], kept)
    assert named_groups(made[1], two)[0] == ["first.weight", "last.weight"]
    for group in made[1].param_groups:
        group["weight_decay"] = makes[0].weight_decay
    steps(made[0], one, 2)
    steps(made[1], two, 2)
    assert all(map(torch.allclose, one.parameters(), two.parameters()))


def test_a_state_of_other_parameters_is_refused():
    one, two = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2, bias=False)
    made = [optimizer.build(section(), model) for model in (one, two)]
    kept = flatten_optimizer(made[0], [*one.parameters()])
    with pytest.raises(AutotrainError, match="other parameters: 2, and these are 1"):
        restore_optimizer(made[1], [*two.parameters()], kept)
