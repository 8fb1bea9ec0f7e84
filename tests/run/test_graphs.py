"""CUDA graphs: recorded where that is right, refused by name where it is not."""

import pytest
import torch
from torch import nn

from autotrain.errors import AutotrainError
from autotrain.prepare import Prepared, prepare
from autotrain.run import assemble
from autotrain.schema import ModelSection

from .faulty import furthest, regression, run, weights
from .plans import make_plan

RECORDED = ModelSection(compile=True, cuda_graphs=True)


@pytest.mark.parametrize(
    ("section", "varying", "why"),
    [
        (RECORDED, False, []),
        (RECORDED, True, ["batches come in many shapes"]),
        (ModelSection(cuda_graphs=True), False, ["model.compile is false"]),
        (RECORDED.model_copy(update={"activation_checkpointing": True}), True,
         ["with model.activation_checkpointing nothing", "batches come in many shapes"]),
    ],
)  # fmt: skip
def test_where_nothing_can_be_recorded_all_the_reasons_are_told(section, varying, why):
    """On a CPU first of all that."""
    with pytest.raises(AutotrainError) as told:
        prepare(nn.Linear(2, 2), section, varying=varying)
    said = told.value.message.removeprefix("model.cuda_graphs: ").split("; ")
    assert len(said) == 1 + len(why)
    for part, wanted in zip(said, ["the device is cpu", *why], strict=True):
        assert part.startswith(wanted)


def test_a_run_on_a_cpu_is_refused_before_it_begins(tmp_path):
    plan = make_plan(model={"compile": True, "cuda_graphs": True})
    with pytest.raises(AutotrainError, match="the device is cpu"):
        run(plan, regression(), tmp_path)


def test_several_processes_record_nothing():
    plan = make_plan(model={"compile": True, "cuda_graphs": True})
    with pytest.raises(AutotrainError, match="several processes"):
        assemble._refuse_shared(plan, nn.Linear(2, 2))


def test_gradients_are_held_outside_of_what_a_replay_overwrites():
    """A copy, to the bit; without graphs nothing is copied."""
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    model[0].bias.requires_grad_(False)
    model(torch.ones(1, 3)).sum().backward()
    before = {p: p.grad for p in model.parameters() if p.grad is not None}
    Prepared(ModelSection(compile=True)).hold(model.parameters())
    assert all(p.grad is gradient for p, gradient in before.items())
    Prepared(RECORDED).hold(model.parameters())
    for parameter, gradient in before.items():
        assert torch.equal(parameter.grad, gradient)
        assert parameter.grad.data_ptr() != gradient.data_ptr()


def dropping():
    return nn.Sequential(nn.Linear(8, 64), nn.Dropout(0.1), nn.Tanh(), nn.Linear(64, 1))


@pytest.mark.gpu
@pytest.mark.parametrize("accum", [1, 4])
@pytest.mark.parametrize("clip", [1.0, None])
def test_recorded_it_learns_as_compiled(tmp_path, accum, clip):
    """Dropout draws the same, windows add up, the last ragged one has a graph of its own."""
    found = []
    for graphs in (False, True):
        plan = make_plan(
            device={"kind": "cuda"}, model={"compile": True, "cuda_graphs": graphs},
            batch={"micro_batch": 4, "accum_steps": accum, "global_batch": 4 * accum},
            optimizer={"implementation": "fused", "clip_norm": clip},
        )  # fmt: skip
        run(plan, regression(dropping, count=62), tmp_path / f"{graphs}")
        found.append(weights(tmp_path / f"{graphs}"))
    assert furthest(*found) < 1e-3
