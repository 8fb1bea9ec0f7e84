"""Sparse gradients: as dense ones would learn, by optimizers that take them; others say so."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from autotrain import optimizer, sparse
from autotrain.errors import AutotrainError
from autotrain.probe.trace.sizes import sizes
from autotrain.run import assemble
from autotrain.run.healing.guard import Guard
from autotrain.schema import TAKE_SPARSE, OptimizerSection
from autotrain.task import Loss, Task

from .faulty import furthest, named, run, weights
from .plans import make_plan


class Words(nn.Module):
    """A table of which each batch meets a few rows, some of them often."""

    def __init__(self, *, sparse):
        super().__init__()
        self.table = nn.Embedding(40, 6, sparse=sparse)
        self.out = nn.Linear(6, 1)

    def forward(self, x):
        return self.out(self.table(x).mean(1))


def words(*, sparse):
    generator = torch.Generator().manual_seed(3)
    x = torch.randint(40, (80, 5), generator=generator)
    y = (x % 7).float().mean(1, keepdim=True)
    rows = torch.utils.data.TensorDataset(x, y, torch.arange(80))

    def loss(model, batch):
        return Loss(total=(model(batch[0]) - batch[1]).square().sum(), weight=len(batch[0]))

    return Task(
        model=lambda: Words(sparse=sparse), train=torch.utils.data.Subset(rows, range(64)),
        valid=torch.utils.data.Subset(rows, range(64, 80)), loss=loss,
    )  # fmt: skip


def planned(name="sgd", **more):
    chosen = {"name": name, "lr": 0.1, "weight_decay": 0.0, **more}
    return make_plan(optimizer=chosen, heal={"spike_score": 10.0}, checkpoint={"keep": 99})


@pytest.mark.parametrize("clip", [0.5, None])
@pytest.mark.parametrize("name", TAKE_SPARSE)
def test_a_sparse_table_learns_as_a_dense_one(tmp_path, name, clip):
    """Gradients of several micro-batches, clipped by the norm that the dense one has."""
    plan = planned(name, clip_norm=clip)
    dense = run(plan, words(sparse=False), tmp_path / "dense")
    seen = run(plan, words(sparse=True), tmp_path / "sparse")
    assert furthest(weights(tmp_path / "dense"), weights(tmp_path / "sparse")) < 1e-5
    for one, other in zip(named(dense, "step"), named(seen, "step"), strict=True):
        assert one.grad_norm == pytest.approx(other.grad_norm, rel=1e-4)


@pytest.mark.parametrize("clip", [0.5, None])
@pytest.mark.parametrize("form", ["loss", "gradient"])
def test_a_sparse_step_that_is_not_finite_is_not_committed(tmp_path, clip, form):
    """Whether the norm is asked for or the values are only looked through."""
    task, calls = words(sparse=True), []

    def loss(model, batch):
        calls.append(model.training)
        spoils = model.training and calls.count(True) == 7
        rows = model.table(batch[0])
        if spoils and form == "gradient":
            rows.register_hook(lambda gradient: gradient * math.nan)
        total = (model.out(rows.mean(1)) - batch[1]).square().sum()
        return Loss(
            total=total * (math.nan if spoils and form == "loss" else 1.0), weight=len(rows)
        )

    seen = run(planned(clip_norm=clip), dataclasses.replace(task, loss=loss), tmp_path)
    assert " at step 4 " in named(seen, "healed")[0].fault
    assert seen[-1].reason == "finished"
    assert all(bool(t.isfinite().all()) for t in weights(tmp_path).values())


def gradient_of(net, rows):
    net(torch.tensor([rows])).sum().backward()
    return [*net.parameters()]


def test_values_are_of_each_row_once_and_change_the_gradient_in_place():
    """A row that took part twice has the sum of both."""
    net = nn.EmbeddingBag(9, 2, sparse=True, mode="sum")
    (parameter,) = gradient_of(net, [3, 3, 5])
    assert parameter.grad.is_sparse
    (values,) = sparse.values([parameter])
    assert values.tolist() == [[2.0, 2.0], [1.0, 1.0]]
    values.mul_(2.0)
    assert parameter.grad.to_dense()[3].tolist() == [4.0, 4.0]
    assert math.isfinite(Guard("host", None).size([values]))
    values[0, 0] = math.nan
    assert not math.isfinite(Guard("host", None).size([values]))


def test_clipping_is_to_the_norm_of_all_gradients_sparse_and_dense():
    """As torch clips the dense ones."""
    torch.manual_seed(0)
    one, other = (Words(sparse=kind) for kind in (True, False))
    other.load_state_dict(one.state_dict())
    mine, dense = gradient_of(one, [1, 1, 2]), gradient_of(other, [1, 1, 2])
    norm = sparse.clip(mine, sparse.values(mine), 0.1)
    assert norm == pytest.approx(float(nn.utils.clip_grad_norm_(dense, 0.1)))
    for p, q in zip(mine, dense, strict=True):
        torch.testing.assert_close(p.grad.to_dense(), q.grad)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"name": "adamw", "implementation": "fused", "weight_decay": 0.01},
         "--set optimizer.name=adagrad --set optimizer.implementation=foreach "
         "--set optimizer.weight_decay=0"),
        ({"name": "sgd", "momentum": 0.9}, "or --set optimizer.momentum=off"),
        ({"name": "adagrad", "implementation": "fused"},
         "or --set optimizer.implementation=foreach"),
        ({"name": "adagrad", "momentum": 0.9}, None),
        ({"name": "sgd", "implementation": "for-loop"}, None),
    ],
)  # fmt: skip
def test_what_does_not_take_sparse_gradients_is_one_error_before_the_run(settings, said):
    """All that must be another at once; a table that is not trained is no matter."""
    base = {"lr": 0.1, "weight_decay": 0.0, "implementation": "foreach"}
    section, model = OptimizerSection(**base | settings), Words(sparse=True)
    if said is None:
        made = optimizer.build(section, model)
        gradient_of(model, [1, 2])
        made.step()
        return
    with pytest.raises(AutotrainError, match=r"the gradients of table\.weight are sparse") as told:
        optimizer.build(section, model)
    assert told.value.hint.endswith(said)
    model.table.weight.requires_grad_(False)
    optimizer.build(section, model)


def test_several_processes_refuse_sparse_gradients_before_the_run():
    """What adds gradients up among them knows dense ones alone."""
    with pytest.raises(AutotrainError, match="several processes"):
        assemble._refuse_shared(planned(), Words(sparse=True))


def test_a_plan_knows_of_sparse_tables():
    assert sizes(Words(sparse=True))["sparse"]
    assert not sizes(Words(sparse=False))["sparse"]
