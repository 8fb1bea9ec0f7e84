"""One optimizer step: exact however it is cut, and without a host read."""

import random
from itertools import chain

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autotrain.run import step as stepping
from autotrain.run.assemble import assemble
from autotrain.run.loop import train
from autotrain.run.signals import Stop
from autotrain.run.step import take_step
from autotrain.task import Loss, Task

from .plans import make_plan
from .tasks import Sequences, noisy_task, pad, sequence_net, sequence_task

SGD = {"name": "sgd", "lr": 0.1, "weight_decay": 0.0, "momentum": 0.0, "clip_norm": None}
CONSTANT = {"name": "constant", "warmup_steps": 0}
END = {"every_epochs": None}
EXACT = {"rtol": 1e-12, "atol": 1e-12}


def assembled(tmp_path, task, **changes):
    """A run that has taken no step and wants no disk."""
    plan = make_plan(**{"optimizer": SGD, "schedule": CONSTANT, "evaluate": END, **changes})
    return assemble(
        plan, task, tmp_path, task_file=tmp_path / "task.py", resume=False, max_steps=None
    )


def batch_sizes(micro, whole):
    return {"micro_batch": micro, "accum_steps": -(-whole // micro), "global_batch": whole}


def by_hand(run, loss, dataset, steps):
    """Each window as one batch, by plain torch: what any cut must equal."""
    model = sequence_net()
    model.load_state_dict(run.model.state_dict())
    for step in range(steps):
        window = list(chain.from_iterable(run.feed.itinerary.order.window(step)))
        made = loss(model, pad([dataset[i] for i in window]))
        gradients = torch.autograd.grad(made.total / made.weight, list(model.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter.sub_(0.1 * gradient)
    return model


@settings(max_examples=25, deadline=None)
@given(micro=st.integers(1, 12), whole=st.integers(1, 24), bucketing=st.booleans())
def test_any_cut_gives_the_gradient_of_the_whole_window(tmp_path_factory, micro, whole, bucketing):
    """Padded sequences, masked frames, a ragged last window: equal at 1e-12 in float64."""
    data = Sequences(40)
    length = (lambda index: len(data.frames[index])) if bucketing else None
    task = sequence_task(length=length)
    run = assembled(tmp_path_factory.mktemp("run"), task, batch=batch_sizes(micro, whole))
    steps = run.cadence.steps_per_epoch + 1
    expected = by_hand(run, task.loss, data, steps)
    for _ in range(steps):
        take_step(run, Stop())
    for mine, theirs in zip(run.model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, **EXACT)


def test_fp32_cuts_agree_to_rounding(tmp_path):
    """1 x 32 and 4 x 8 in fp32."""
    ends = []
    for micro in (32, 8):
        task = Task.regression(model=lambda: torch.nn.Linear(4, 3), train=_pairs(), valid=_pairs())
        run = assembled(tmp_path, task, batch=batch_sizes(micro, 32))
        for _ in range(3):
            take_step(run, Stop())
        ends.append(run.model.weight.detach().clone())
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-6, atol=1e-6)


def _pairs():
    x = torch.randn(70, 4, generator=torch.Generator().manual_seed(5))
    return torch.utils.data.TensorDataset(x, x[:, :3] * 2)


@pytest.mark.parametrize("tensor", [False, True])
@pytest.mark.parametrize("empty", ["first", "all"])
def test_masked_micro_batches_leave_gradients_finite(tmp_path, tensor, empty):
    """A micro-batch, or a whole window, in which nothing counts."""
    calls = []

    def loss(model, batch):
        calls.append(1)
        nothing = empty == "all" or len(calls) == 1
        count = 0 if nothing else len(batch[0])
        total = model(batch[0]).square().sum() * (0 if nothing else 1)
        return Loss(total=total, weight=torch.tensor(count) if tensor else count)

    task = Task(model=lambda: torch.nn.Linear(4, 3), train=_pairs(), valid=_pairs(), loss=loss)
    run = assembled(tmp_path, task, batch=batch_sizes(4, 8))
    before = run.model.weight.detach().clone()
    take_step(run, Stop())
    assert bool(torch.isfinite(run.model.weight).all())
    assert torch.equal(before, run.model.weight) == (empty == "all")


def test_gradients_are_clipped_by_the_norm_of_the_whole_window(tmp_path):
    """After accumulation and rescaling: the update has the planned length."""
    optimizer = {**SGD, "clip_norm": 0.01}
    run = assembled(tmp_path, sequence_task(), optimizer=optimizer)
    before = torch.nn.utils.parameters_to_vector(run.model.parameters()).detach()
    take_step(run, Stop())
    after = torch.nn.utils.parameters_to_vector(run.model.parameters()).detach()
    assert float((before - after).norm()) == pytest.approx(0.1 * 0.01, rel=1e-3)


def test_a_wish_to_stop_in_mid_window_changes_nothing(tmp_path):
    """Weights, BatchNorm statistics and gradients are those of the last whole step."""
    stop = Stop()
    task = noisy_task()
    inner = task.loss
    calls = []

    def loss(model, batch):
        calls.append(1)
        stop.reason = "interrupted" if len(calls) == 3 else None
        return inner(model, batch)

    task = noisy_task()
    task = Task(model=task.model, train=task.train, valid=task.train, loss=loss)
    run = assembled(tmp_path, task, batch=batch_sizes(2, 8))
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    take_step(run, stop)
    assert len(calls) == 3
    assert run.state.step == 0
    assert all(torch.equal(before[n], v) for n, v in run.model.state_dict().items())
    assert all(p.grad is None for p in run.parameters)


@pytest.mark.parametrize("dtype", ["tf32", "bf16", "fp16"])
def test_each_precision_trains_and_puts_torch_back(tmp_path, dtype):
    """fp16 with a scaler; the process-wide settings are the caller's again afterwards."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    plan = make_plan(precision={"dtype": dtype}, train={"epochs": 8})
    events = list(train(plan, noisy_task(), tmp_path, task_file=tmp_path / "task.py"))
    losses = [event.loss for event in events if event.name == "step"]
    assert losses[-1] < losses[0]
    assert before == (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32)


def test_a_consumer_that_draws_random_numbers_changes_nothing(tmp_path):
    """Randomness is a function of position, not of who drew before."""
    ends = []
    for noisy in (False, True):
        plan = make_plan(train={"epochs": 1})
        for event in train(plan, noisy_task(), tmp_path / str(noisy), task_file=tmp_path):
            if noisy:
                torch.randn(3), random.random()
            if event.name == "step":
                ends.append(event.loss)
    assert ends[: len(ends) // 2] == ends[len(ends) // 2 :]


@pytest.mark.parametrize("most", [1e-3, 1e3])
@pytest.mark.parametrize("scale", [1.0, float("nan"), float("inf")])
def test_gradients_are_clipped_to_the_bit_as_torch_clips_them(tmp_path, most, scale):
    """Whether the norm is above the limit, below it, or no number at all."""
    run = assembled(tmp_path, noisy_task())
    generator = torch.Generator().manual_seed(4)
    for parameter in run.parameters:
        parameter.grad = scale * torch.randn(parameter.shape, generator=generator)
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in run.parameters]
    for mine, other in zip(run.parameters, theirs, strict=True):
        other.grad = mine.grad.clone()
    expected = torch.nn.utils.clip_grad_norm_(theirs, most)
    found = stepping._clipped(run, [p.grad for p in run.parameters], most)
    assert torch.equal(torch.tensor(found).nan_to_num(-1), expected.nan_to_num(-1))
    if scale == 1.0:
        assert all(torch.equal(a.grad, b.grad) for a, b in zip(run.parameters, theirs, strict=True))
