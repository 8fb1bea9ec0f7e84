"""Steps that must not count: NaN, infinity, spikes; on the host, and on a device unread."""

import dataclasses
import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from autotrain import optimizer as building
from autotrain.errors import AutotrainError
from autotrain.run import loop as looping
from autotrain.run import step
from autotrain.run.healing import guard, heal
from autotrain.run.healing.guard import LEAST, Guard
from autotrain.run.loading.feed import Feed
from autotrain.schema import OptimizerSection
from autotrain.task import Loss

from .faulty import (
    HostReads,
    judging,
    named,
    on_a_device,
    regression,
    run,
    snapshot,
    spoilt,
    until_error,
    weights,
)
from .plans import make_plan

# 8 steps an epoch, of 8 samples.
BATCH = {"micro_batch": 4, "accum_steps": 2, "global_batch": 8}


def planned(**changes):
    same = {"batch": BATCH, "checkpoint": {"keep": 99}, "heal": {"spike_score": 10.0}}
    return make_plan(**(same | changes))


def usual(values=None, score=10.0):
    made = Guard("host", score)
    made.learn(values or [1.0 + 0.1 * math.sin(i) for i in range(LEAST)])
    return made


def test_there_is_no_spike_before_enough_is_known():
    """Nor ever, where the plan has no score; NaN is bad at any time."""
    few, off = usual([1.0] * (LEAST - 1)), usual(score=None)
    for one in (few, off):
        assert not one.bad(1e30, 1.0)
        assert one.bad(math.nan, 1.0)


@pytest.mark.parametrize(
    ("loss", "size", "bad"),
    [
        (1.0, 1.0, 0), (1.9, 0.0, 0), (-5.0, 1.0, 0), (1e4, 1.0, 1), (math.nan, 1.0, 1),
        (math.inf, 1.0, 1), (-math.inf, 1.0, 1), (1.0, math.nan, 1), (1.0, math.inf, 1),
        (1e4, math.nan, 1),
    ],
)  # fmt: skip
@pytest.mark.parametrize("dtype", [None, torch.float32, torch.float64, torch.bfloat16])
def test_the_verdict_is_the_same_wherever_the_figures_are(loss, size, bad, dtype):
    """As numbers, or as scalars on a device in any precision."""
    if dtype is not None:
        loss, size = torch.tensor(loss, dtype=dtype), torch.tensor(size, dtype=dtype)
    assert float(usual().bad(loss, size)) == bad
    if dtype is not None:
        assert float(Guard("device", None).bad(loss, 0.0)) == (not math.isfinite(float(loss)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("value", [1.0, math.nan, -math.inf])
@pytest.mark.parametrize("mode", ["host", "device"])
def test_the_size_is_finite_where_all_gradients_are(dtype, value, mode):
    """One pass over all of them, which changes none."""
    gradients = [torch.ones(3, dtype=dtype), torch.full((2, 2), value, dtype=dtype)]
    before, judge = [g.clone() for g in gradients], Guard(mode, None)
    for _ in range(2):
        assert math.isfinite(float(judge.size(gradients))) == math.isfinite(value)
    for one, other in zip(gradients, before, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


@given(st.floats(-1e3, 1e3), st.floats(0.01, 100), st.integers(0, 2**32))
def test_the_limit_moves_with_the_losses_and_lies_above_them(shift, scale, seed):
    """Where they are spread, what is spread no wider is no spike, whatever its level."""
    generator = torch.Generator().manual_seed(seed)
    losses = (shift + scale * torch.rand(100, generator=generator)).tolist()
    judge = usual(losses)
    assert judge.limit > max(losses)
    assert judge.limit - max(losses) >= 1.5 * (max(losses) - sorted(losses)[50])


def test_a_loss_that_hardly_scatters_may_double():
    """A flat curve makes any wobble a thousand deviations."""
    judge = usual([1.0 + 1e-9 * i for i in range(40)])
    assert not judge.bad(1.9, 0.0)
    assert judge.bad(2.1, 0.0)


def test_one_hard_batch_makes_the_next_usual_but_no_real_spike_does():
    """Samples that are hard for good are learned; what is far above the first losses is not."""
    judge = usual([2.0] * 30)
    judge.learn([1e-4] * 128)
    assert judge.bad(0.5, 0.0)
    judge.learn([0.5])
    assert not judge.bad(1.0, 0.0)
    judge.learn([1e5] * 50)
    assert judge.bad(1e5, 0.0)


def test_what_is_accepted_is_the_new_level():
    """Until it is known, nothing is a spike; then it is."""
    judge = usual()
    judge.accept()
    assert not judge.bad(1e9, 0.0)
    judge.learn([1e9] * LEAST)
    assert not judge.bad(1.5e9, 0.0)
    assert judge.bad(1e12, 0.0)


@given(st.lists(st.floats(0.1, 1e6), max_size=150), st.lists(st.floats(0.1, 1e6), max_size=30))
def test_a_guard_goes_on_from_its_state(before, after):
    """The same limit, at once and later."""
    one = Guard("host", 10.0)
    one.learn(before)
    two = Guard("host", 10.0)
    two.load(one.state())
    assert two.limit == one.limit
    for each in (one, two):
        each.learn(after)
    assert two.limit == one.limit


# ---- in a run


def of_step(task, plan, number, directory):
    """The samples of the number-th step, by the task's own numbering."""
    seen = []

    def loss(model, batch):
        if model.training:
            seen.append(batch[2].tolist())
        return task.loss(model, batch)

    run(plan, dataclasses.replace(task, loss=loss), directory, max_steps=number)
    count = plan.batch.accum_steps
    return {i for micro in seen[(number - 1) * count : number * count] for i in micro}


def norm_net():
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 1))


@pytest.mark.parametrize("by", [math.nan, math.inf, -math.inf, 1e4])
@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_bad_step_leaves_no_trace(tmp_path, by, name):
    """Weights, the optimizer's state and step count, and BatchNorm are as before, to the bit."""
    plan = planned(
        train={"epochs": 5}, optimizer={"name": name, "momentum": 0.9 if name == "sgd" else None},
        checkpoint={"every_epochs": None, "every_steps": 1, "keep": 99},
        run={"log_every_steps": 5},
    )  # fmt: skip
    task = regression(norm_net)
    bad = of_step(task, plan, 27, tmp_path / "look")
    spoil = spoilt(task, lambda samples: by if samples <= bad else 1.0)
    # Samples meet again in other windows: only the 27th is of these eight alone.
    seen = run(plan, spoil, tmp_path / "run", max_steps=31)
    before, after = snapshot(tmp_path / "run", 26), snapshot(tmp_path / "run", 27)
    for one, other in ((before.model, after.model), (before.optimizer, after.optimizer)):
        assert one.tensors.keys() == other.tensors.keys()
        assert all(torch.equal(one.tensors[key], other.tensors[key]) for key in one.tensors)
    (told,) = [e for e in named(seen, "healed") if "step 27 " in e.fault]
    assert told.step == 30
    assert set(told.fault.partition("(samples ")[2].rstrip(")").split(", ")) == {*map(str, bad)}
    assert "rose to" in told.fault if by == 1e4 else "became" in told.fault
    assert told.cost_seconds > 0


def test_the_step_after_is_as_if_the_bad_one_had_not_been(tmp_path):
    """A run whose order lacks those samples takes the same steps, but for the rate."""
    plan = planned(schedule={"name": "constant", "warmup_steps": 0}, train={"epochs": 1})
    task = regression()
    bad = of_step(task, plan, 3, tmp_path / "look")
    run(plan, spoilt(task, lambda s: math.nan if s <= bad else 1.0), tmp_path / "run")
    torch.manual_seed(0)
    rows, windows = [], []

    def loss(model, batch):
        if model.training:
            rows.append([part.clone() for part in batch])
        return task.loss(model, batch)

    run(plan, dataclasses.replace(task, loss=loss), tmp_path / "whole")
    windows = [rows[i : i + 2] for i in range(0, 16, 2)]
    from autotrain.run.assemble import build_model

    model = build_model(plan, task, torch.device("cpu"))
    optimizer = building.build(plan.optimizer, model)
    for number, window in enumerate(windows, 1):
        if number != 3:
            for part in window:
                (task.loss(model, part).total / 8).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    for key, value in weights(tmp_path / "run").items():
        torch.testing.assert_close(value, model.state_dict()[key], rtol=1e-5, atol=1e-6)


class BadGradient(torch.autograd.Function):
    """A finite loss whose gradient is not, where the flag says so."""

    @staticmethod
    def forward(context, x, by):
        context.by = by
        return x.clone()

    @staticmethod
    def backward(context, grad):
        return grad * context.by, None


@pytest.mark.parametrize("by", [math.nan, math.inf])
@pytest.mark.parametrize("clip", [1.0, None])
def test_a_gradient_that_is_not_finite_is_enough(tmp_path, by, clip):
    """With the norm at hand, and without."""
    plan, task = planned(optimizer={"clip_norm": clip}), regression()
    bad = of_step(task, plan, 5, tmp_path / "look")

    def loss(model, batch):
        spoils = model.training and set(batch[2].tolist()) <= bad
        out = BadGradient.apply(model(batch[0]), by if spoils else 1.0)
        return Loss(total=(out - batch[1]).square().sum(), weight=len(batch[0]))

    seen = run(plan, dataclasses.replace(task, loss=loss), tmp_path / "run", max_steps=8)
    (told,) = named(seen, "healed")
    assert "was not finite at step 5 " in told.fault
    assert all(bool(t.isfinite().all()) for t in weights(tmp_path / "run").values())


def test_a_loss_that_is_nan_with_finite_gradients_is_enough(tmp_path):
    """What is told must be true, even where the weights would not be hurt."""
    plan, task = planned(), regression()
    bad = of_step(task, plan, 5, tmp_path / "look")

    def loss(model, batch):
        made = task.loss(model, batch)
        if model.training and set(batch[2].tolist()) <= bad:
            made = dataclasses.replace(made, total=made.total + torch.tensor(math.nan))
        return made

    seen = run(plan, dataclasses.replace(task, loss=loss), tmp_path / "run", max_steps=8)
    assert "became nan at step 5 " in named(seen, "healed")[0].fault


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_models_of_other_precisions_are_guarded_too(tmp_path, dtype):
    """float64 and bf16 parameters and losses."""
    task = regression(lambda: nn.Linear(8, 1).to(dtype))
    plan = planned(optimizer={"clip_norm": None}, train={"epochs": 1})
    bad = of_step(regression(), plan, 5, tmp_path / "look")

    def loss(model, batch):
        out = model(batch[0].to(dtype))
        by = math.nan if model.training and set(batch[2].tolist()) <= bad else 1.0
        return Loss(total=by * (out - batch[1].to(dtype)).square().sum(), weight=len(batch[0]))

    seen = run(plan, dataclasses.replace(task, loss=loss), tmp_path / "run")
    assert len(named(seen, "healed")) == 1
    assert seen[-1].reason == "finished"


@pytest.mark.parametrize("clip", [1.0, None])
def test_weights_of_zero_and_gradients_of_none_are_no_fault(tmp_path, clip):
    """A window where all is masked; a loss that no parameter takes part in."""
    task = regression()

    def loss(model, batch):
        nothing = torch.zeros((), requires_grad=True).square()
        return Loss(total=nothing, weight=torch.tensor(0.0))

    plan = planned(optimizer={"clip_norm": clip}, train={"epochs": 1})
    seen = run(plan, dataclasses.replace(task, loss=loss), tmp_path)
    assert seen[-1].reason == "finished"
    assert not named(seen, "healed")


def weighed(task, weight, bad):
    """The task; a training micro-batch of `bad` samples weighs so much, the others what they do."""

    def loss(model, batch):
        made = task.loss(model, batch)
        spoils = model.training and set(batch[2].tolist()) <= bad
        return dataclasses.replace(made, weight=weight if spoils else made.weight)

    return dataclasses.replace(task, loss=loss)


@pytest.mark.parametrize("mode", ["host", "device"])
@pytest.mark.parametrize(
    "weight",
    [math.nan, math.inf, *(torch.tensor(each) for each in (math.nan, math.inf, -4.0))],
    ids=str,
)
@pytest.mark.parametrize("micro", [4, 8])
def test_a_loss_over_no_weight_is_no_figure(tmp_path, monkeypatch, mode, weight, micro):
    """Its step is a bad one, told and passed over, wherever the weight lies."""
    plan = planned(
        batch={"micro_batch": micro, "accum_steps": 8 // micro, "global_batch": 8},
        optimizer={"implementation": "fused"},
        checkpoint={"every_epochs": None, "every_steps": 1, "keep": 99},
    )  # fmt: skip
    task = regression(norm_net)
    bad = of_step(task, plan, 5, tmp_path / "look")
    if mode == "device":
        on_a_device(monkeypatch)
    seen = run(plan, weighed(task, weight, bad), tmp_path / "run", max_steps=8)
    (told,) = named(seen, "healed")
    assert "became nan at step 5 " in told.fault
    one, other = weights(tmp_path / "run", 4), weights(tmp_path / "run", 5)
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert all(math.isfinite(event.loss) for event in named(seen, "step"))


def test_a_number_below_0_is_no_weight(tmp_path):
    """The task is wrong, and is told so: in training and in an evaluation."""
    for where in (True, False):
        task = regression()

        def loss(model, batch, task=task, where=where):
            made = task.loss(model, batch)
            return dataclasses.replace(made, weight=-4 if model.training is where else made.weight)

        _, error = until_error(
            planned(), dataclasses.replace(task, loss=loss), tmp_path / str(where), AutotrainError
        )
        assert "a weight of -4" in error.message


def test_a_validation_loss_over_no_weight_is_told(tmp_path):
    """Not divided by what is left of it."""
    task = regression()

    def loss(model, batch):
        made = task.loss(model, batch)
        return made if model.training else dataclasses.replace(made, weight=torch.tensor(-4.0))

    seen = run(planned(train={"epochs": 1}), dataclasses.replace(task, loss=loss), tmp_path)
    assert "the validation loss is nan" in named(seen, "warned")[0].message


def test_one_event_an_interval_names_all_its_steps(tmp_path):
    """Not one for each."""
    plan, task, calls = planned(run={"log_every_steps": 10}, train={"epochs": 3}), regression(), []

    def loss(model, batch):
        made = task.loss(model, batch)
        calls.append(model.training)
        now = (calls.count(True) + 1) // 2
        return dataclasses.replace(
            made, total=made.total * (math.nan if model.training and now in (2, 5, 6, 14) else 1.0)
        )

    seen = run(plan, dataclasses.replace(task, loss=loss), tmp_path)
    said = [event.fault.partition(" (")[0] for event in named(seen, "healed")]
    assert said == [
        "the loss became nan at steps 2 and 5 to 6", "the loss became nan at step 14",
    ]  # fmt: skip
    assert "..." in named(seen, "healed")[0].fault


def test_steps_read_as_a_person_would_write_them():
    """Runs of numbers are joined."""
    said = [heal._steps(numbers) for numbers in ([7], [7, 8], [1, 3], [1, 2, 3, 5, 8, 9])]
    assert said == ["step 7", "steps 7 to 8", "steps 1 and 3", "steps 1 to 3, 5 and 8 to 9"]


def test_a_loss_that_rises_for_good_is_accepted(tmp_path):
    """A curriculum: within ten steps or twenty, training goes on at the new level, unharmed."""
    plan = planned(train={"epochs": 25}, run={"log_every_steps": 1})
    task, calls = regression(), []

    def loss(model, batch):
        calls.append(model.training)
        hard = calls.count(True) > 298
        made = task.loss(model, batch)
        more = hard * 1.5 * (model[2].bias + 3.0).square().sum()
        return dataclasses.replace(made, total=made.total + more * len(batch[0]))

    seen = run(plan, dataclasses.replace(task, loss=loss), tmp_path)
    assert seen[-1].reason == "finished"
    skipped = named(seen, "healed")
    assert skipped
    assert all(event.step <= 160 and "not committed" in event.cure for event in skipped)
    assert named(seen, "step")[-1].loss < named(seen, "step")[161].loss


def test_a_loss_that_rises_beyond_all_measure_costs_one_return_and_no_more(tmp_path):
    """A thousand times the first losses, for good: back once, then it is the new level."""
    plan = planned(train={"epochs": 12}, run={"log_every_steps": 4})
    task, calls = regression(), []

    def loss(model, batch):
        made = task.loss(model, batch)
        calls.append(model.training)
        by = 1e4 if model.training and calls.count(True) > 90 else 1.0
        return dataclasses.replace(made, total=made.total * by)

    seen = run(plan, dataclasses.replace(task, loss=loss), tmp_path)
    cures = [event.cure for event in named(seen, "healed")]
    assert sum("back to what was learned" in cure for cure in cures) == 1
    assert sum("the new level" in cure for cure in cures) == 1
    assert seen[-1].reason == "finished"
    assert snapshot(tmp_path).state["rollbacks"] == 1


# ---- fp16


class Large(torch.autograd.Function):
    """Passes through; the gradient is so many times as large."""

    @staticmethod
    def forward(context, x, by):
        context.by = by
        return x.clone()

    @staticmethod
    def backward(context, grad):
        return grad * context.by, None


def overflowing(by):
    """Gradients that pass through fp16 and are so large there."""
    task = regression()

    def loss(model, batch):
        hidden = model[0](batch[0])
        out = model[2](torch.tanh(Large.apply(hidden, by).float()))
        return Loss(total=(out - batch[1]).square().sum(), weight=len(batch[0]))

    return dataclasses.replace(task, loss=loss)


def test_overflows_while_the_scale_finds_its_size_are_no_fault(tmp_path):
    """They are neither told nor counted."""
    plan = planned(precision={"dtype": "fp16"}, train={"epochs": 2})
    seen = run(plan, overflowing(1e4), tmp_path)
    state = snapshot(tmp_path).state
    assert state["scaler"]["scale"] < 65536.0
    assert not named(seen, "healed")
    assert state["bad_streak"] == 0
    assert seen[-1].reason == "finished"


@pytest.mark.parametrize("mode", ["host", "log"])
@pytest.mark.parametrize("clip", [1.0, None])
def test_a_step_that_overflows_fp16_leaves_the_average_alone(tmp_path, monkeypatch, mode, clip):
    """The scaler passes it over: nothing moves, and the average has nothing to follow."""
    judging(monkeypatch, mode)
    plan = planned(
        precision={"dtype": "fp16"}, optimizer={"clip_norm": clip}, run={"log_every_steps": 99},
        train={"epochs": 2, "ema_decay": 0.9},
        checkpoint={"every_epochs": None, "every_steps": 1, "keep": 99},
    )  # fmt: skip
    calls = []

    def loss(model, batch):
        calls.append(1)
        return overflowing(1e12 if len(calls) == 11 else 1e-3).loss(model, batch)

    run(plan, dataclasses.replace(regression(), loss=loss), tmp_path)
    moves = [
        [any(not torch.equal(a.tensors[key], b.tensors[key]) for key in a.tensors)
         for a, b in ((one.model, other.model), (one.average, other.average))]
        for one, other in pairwise(snapshot(tmp_path, number) for number in range(1, 9))
    ]  # fmt: skip
    assert moves == [[True, True]] * 4 + [[False, False]] + [[True, True]] * 2


@pytest.mark.parametrize("form", ["gradient", "loss"])
def test_a_model_that_fp16_does_not_hold_goes_on_in_bf16(tmp_path, form):
    """The plan is amended, and a resume begins in bf16."""
    task = overflowing(1e12 if form == "gradient" else 1.0)
    if form == "loss":

        def loss(model, batch):
            out = model[2](torch.tanh(model[0](batch[0])) * 1e4) * 1e3  # beyond 65504
            return Loss(total=(out.float() * 1e-7 - batch[1]).square().sum(), weight=len(batch[0]))

        task = dataclasses.replace(task, loss=loss)
    plan = planned(precision={"dtype": "fp16"}, train={"epochs": 6})
    seen = run(plan, task, tmp_path)
    (told,) = [event for event in named(seen, "healed") if event.amends]
    assert told.amends == {"precision.dtype": ["fp16", "bf16"]}
    assert "the precision is bf16 from here on" in told.cure
    assert "fp16 does not hold" in told.fault or "became" in told.fault
    assert seen[-1].reason == "finished"
    assert snapshot(tmp_path).state["scaler"] == {}


def test_memory_may_run_out_in_fp16s_update(tmp_path, monkeypatch):
    """Gradients were unscaled by then; they are so again when the step is taken again."""
    calls, bad = [], Guard.bad

    def failing(self, loss, size):
        calls.append(1)
        if len(calls) == 3:
            raise MemoryError
        return bad(self, loss, size)

    monkeypatch.setattr(Guard, "bad", failing)
    seen = run(planned(precision={"dtype": "fp16"}), regression(), tmp_path)
    assert len(named(seen, "healed")) == 1
    assert seen[-1].reason == "finished"


# ---- the verdict stays on the device


FUSED = ["adamw", "adam", "sgd", "adagrad"]


def fused(name):
    momentum = {"momentum": 0.9} if name == "sgd" else {}
    return {"name": name, "implementation": "fused", **momentum}


@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize("first", [1, 5])
def test_a_fused_optimizer_leaves_a_bad_step_out_on_the_device(tmp_path, monkeypatch, name, first):
    """As the host does, to the bit; the very first step too."""
    plan = planned(optimizer=fused(name), run={"log_every_steps": 4})
    task = regression(norm_net)
    bad = of_step(task, plan, first, tmp_path / "look")
    spoil = spoilt(task, lambda samples: math.nan if samples <= bad else 1.0)
    run(plan, spoil, tmp_path / "host", max_steps=16)
    on_a_device(monkeypatch)
    seen = run(plan, spoil, tmp_path / "device", max_steps=16)
    assert any(f"became nan at step {first} " in e.fault for e in named(seen, "healed"))
    one, other = snapshot(tmp_path / "host"), snapshot(tmp_path / "device")
    for a, b in ((one.model, other.model), (one.optimizer, other.optimizer)):
        for key in a.tensors:
            torch.testing.assert_close(a.tensors[key], b.tensors[key], rtol=1e-6, atol=1e-7)


def reads(monkeypatch, directory, **changes):
    """How often each of 7 steps made the host wait; micro-batches are made on the host."""
    plan, counts = planned(run={"log_every_steps": 99}, **changes), []
    step_taken, batch_taken, found = step.take_step, Feed.take, HostReads()

    def counting(run, stop):
        found.count = 0
        with found:
            step_taken(run, stop)
        counts.append(found.count)

    def uncounted(feed, epoch):
        before, batch = found.count, batch_taken(feed, epoch)
        found.count = before
        return batch

    monkeypatch.setattr(looping, "take_step", counting)
    monkeypatch.setattr(Feed, "take", uncounted)
    made = regression(norm_net)

    def loss(model, batch):
        one = made.loss(model, batch)
        weight = torch.tensor(float(one.weight))
        return dataclasses.replace(one, weight=weight, parts={"part": one.total.detach()})

    run(plan, dataclasses.replace(made, loss=loss), directory, max_steps=7)
    return counts


@pytest.mark.parametrize("changes", [
    {}, {"train": {"epochs": 1, "ema_decay": 0.9}}, {"precision": {"dtype": "fp16"}},
    {"precision": {"dtype": "bf16"}},
], ids=lambda changes: "".join(changes) or "plain")  # fmt: skip
@pytest.mark.parametrize("name", [*FUSED, "rmsprop"])
@pytest.mark.parametrize("clip", [1.0, None])
def test_nothing_is_read_between_log_points(tmp_path, monkeypatch, name, clip, changes):
    """Whether a step is bad is the device's own business; the loss's weight too."""
    mode = "device" if name in FUSED else "log"
    on_a_device(monkeypatch, mode)
    optimizer = {**fused(name), "clip_norm": clip}
    if mode == "log":
        optimizer["implementation"] = "foreach"
    # torch's loss scaler asks before each step of an optimizer that cannot leave one out.
    asked = int(mode == "log" and changes.get("precision") == {"dtype": "fp16"})
    assert reads(monkeypatch, tmp_path, optimizer=optimizer, **changes) == [asked] * 7


def test_a_read_would_be_seen(tmp_path, monkeypatch):
    """In host mode each step reads, and not by a way that the count knows nothing of."""
    assert min(reads(monkeypatch, tmp_path)) > 0


def test_sgd_that_begins_with_a_bad_step_has_no_momentum_of_what_was_in_memory():
    """torch leaves its buffer as it found it; ours begins with zeros."""
    section = OptimizerSection(
        name="sgd", lr=0.1, weight_decay=0.0, momentum=0.9, implementation="fused"
    )
    model = nn.Linear(3, 1)
    made, other = building.build(section, model), nn.Linear(3, 1)
    other.load_state_dict(model.state_dict())
    plain = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9)
    for bad in (1.0, 0.0, 0.0):
        for each in (model, other):
            each.zero_grad()
            each(torch.ones(2, 3)).sum().backward()
        guard.commit(made, torch.tensor([bad]))
        if not bad:
            plain.step()
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two)


def test_an_optimizer_that_cannot_leave_a_step_out_has_its_fault_found_later(tmp_path, monkeypatch):
    """A spike is told; NaN leads back to the checkpoint, and on behind it."""
    assembled = looping.assemble

    def assemble(*arguments, **more):
        made = assembled(*arguments, **more)
        made.guard.mode = "log"
        made.guard.bad = lambda loss, size: torch.tensor(
            float(not math.isfinite(loss) or loss > made.guard.limit)
        )
        return made

    monkeypatch.setattr(looping, "assemble", assemble)
    plan, task = planned(train={"epochs": 6}), regression()
    spike, nan = (of_step(task, plan, n, tmp_path / f"look{n}") for n in (27, 41))
    spoil = spoilt(task, lambda s: 1e4 if s <= spike else math.nan if s <= nan else 1.0)
    seen = run(plan, spoil, tmp_path / "run")
    assert any("rose to" in event.message for event in named(seen, "warned"))
    assert any("back to what was learned by step 40" in e.cure for e in named(seen, "healed"))
    assert seen[-1].reason == "finished"
    assert all(bool(t.isfinite().all()) for t in weights(tmp_path / "run").values())


# ---- honest training


def test_honest_training_raises_no_alarm(tmp_path):
    """Noise, single samples, warm-up: many steps, no step left out."""
    plan = planned(
        batch={"micro_batch": 1, "accum_steps": 1, "global_batch": 1}, train={"epochs": 8},
        run={"log_every_steps": 10}, schedule={"name": "cosine", "warmup_steps": 100},
    )  # fmt: skip
    seen = run(plan, regression(count=128), tmp_path)
    assert not named(seen, "healed")
    assert seen[-1].step == 1024
