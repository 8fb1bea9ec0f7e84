"""What a run mends by itself: memory that runs out."""

import dataclasses
import errno
import random
import weakref

import pytest
import torch
from torch import nn

from autotrain import device
from autotrain.errors import AutotrainError, DoesNotFitError
from autotrain.run.healing import cures, heal
from autotrain.schema import BatchSection
from autotrain.task import Loss

from .faulty import (
    digest,
    failing,
    furthest,
    named,
    regression,
    run,
    snapshot,
    until_error,
    weights,
)
from .plans import make_plan

BATCH = {"micro_batch": 8, "accum_steps": 2, "global_batch": 16}


def planned(**changes):
    """4 steps an epoch, 12 in all; nothing but rounding tells one cut from another."""
    return make_plan(**({"batch": BATCH, "checkpoint": {"keep": 9}} | changes))


def test_memory_that_runs_out_changes_the_cut_and_nothing_else(tmp_path):
    """Steps, rates, samples, log points and data order are those of the run that never failed."""
    whole = run(planned(), regression(), tmp_path / "whole")
    seen = run(planned(), failing(regression(), lambda call, *_: call == 6), tmp_path / "healed")
    (told,) = named(seen, "healed")
    assert (told.step, told.fault) == (2, "out of memory: CUDA out of memory, injected")
    assert "micro-batches of 8 became 4; the global batch stays 16" in told.cure
    assert told.amends == {"batch.micro_batch": [8, 4], "batch.accum_steps": [2, 4]}
    for key in ("step", "epoch", "lr", "samples", "weight"):
        assert [getattr(e, key) for e in named(seen, "step")] == [
            getattr(e, key) for e in named(whole, "step")
        ]
    assert furthest(weights(tmp_path / "whole"), weights(tmp_path / "healed")) < 1e-6


@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_it_may_strike_in_any_micro_batch(tmp_path, call):
    """The first, or a later one of a window, whose gradients so far are then worth nothing."""
    run(planned(), regression(), tmp_path / "whole")
    seen = run(planned(), failing(regression(), lambda c, *_: c == call), tmp_path / "healed")
    assert seen[-1].reason == "finished"
    assert furthest(weights(tmp_path / "whole"), weights(tmp_path / "healed")) < 1e-6


class FailsBackwards(torch.autograd.Function):
    """Passes through; runs out of memory in backward while `left` says so."""

    left = 0

    @staticmethod
    def forward(_, x):
        return x.clone()

    @staticmethod
    def backward(_, grad):
        FailsBackwards.left -= 1
        if FailsBackwards.left == 0:
            raise torch.OutOfMemoryError("CUDA out of memory, backwards")
        return grad


def test_it_may_strike_in_backward(tmp_path):
    """Gradients of half the layers are there by then."""
    task = regression()

    def loss(model, batch):
        hidden = FailsBackwards.apply(model[:2](batch[0]))
        error = (model[2](hidden) - batch[1]).square().sum()
        return Loss(total=error, weight=len(batch[0]))

    run(planned(), task, tmp_path / "whole")
    FailsBackwards.left = 7
    seen = run(planned(), dataclasses.replace(task, loss=loss), tmp_path / "healed")
    assert len(named(seen, "healed")) == 1
    assert furthest(weights(tmp_path / "whole"), weights(tmp_path / "healed")) < 1e-6


def failing_steps(monkeypatch, kind, at):
    """The optimizer's step runs out of memory half done at its `at`-th calls."""
    step, calls = kind.step, []

    def half(self, *arguments):
        calls.append(1)
        if len(calls) in at:
            with torch.no_grad():
                for parameter in self.param_groups[0]["params"][:1]:
                    parameter.add_(1.0)
            raise torch.OutOfMemoryError("CUDA out of memory, in the update")
        return step(self, *arguments)

    monkeypatch.setattr(kind, "step", half)


@pytest.mark.parametrize(("call", "said"), [(1, "back to the beginning"), (7, "back to step 4")])
def test_it_may_strike_in_the_update(tmp_path, monkeypatch, call, said):
    """Half the weights have moved: back to the checkpoint, the same way again, one by one."""
    run(planned(), regression(), tmp_path / "whole")
    failing_steps(monkeypatch, torch.optim.AdamW, [call])
    seen = run(planned(), regression(), tmp_path / "healed")
    (told,) = named(seen, "healed")
    assert said in told.cure
    assert told.amends == {"optimizer.implementation": ["foreach", "for-loop"]}
    assert seen[-1].reason == "finished"
    assert furthest(weights(tmp_path / "whole"), weights(tmp_path / "healed")) < 1e-6


def test_an_update_that_never_fits_ends_the_run(tmp_path, monkeypatch):
    """Every cut has been tried by then."""
    failing_steps(monkeypatch, torch.optim.AdamW, range(3, 999))
    seen, error = until_error(planned(), regression(), tmp_path, DoesNotFitError)
    assert (seen[-1].reason, error.exit_code) == ("out_of_memory", 4)


def test_the_first_update_goes_back_to_plateaus_first_rate_too(tmp_path, monkeypatch):
    """What a schedule learned from evaluations is unlearned where no checkpoint was made."""
    plan = planned(
        schedule={"name": "plateau", "factor": 0.5, "patience": 0, "warmup_steps": 0},
        evaluate={"every_epochs": None, "every_steps": 1},
        checkpoint={"every_epochs": 99, "keep": 9}, optimizer={"lr": 3.0},
    )  # fmt: skip
    run(plan, regression(), tmp_path / "whole")
    failing_steps(monkeypatch, torch.optim.AdamW, [6])
    from autotrain.run.keeping import keeper

    with monkeypatch.context() as patch:  # best checkpoints cannot be written
        patch.setattr(keeper.Keeper, "_write", lambda *_: (_ for _ in ()).throw(OSError(28, "")))
        seen, _ = until_error(plan, regression(), tmp_path / "healed", AutotrainError)
    rates = {}
    for event in named(seen, "step"):
        assert rates.setdefault(event.step, event.lr) == event.lr
    assert any("back to the beginning" in event.cure for event in named(seen, "healed"))


def test_it_may_strike_in_an_evaluation(tmp_path):
    """The figures are the same, and what BatchNorm learned in the step before stays."""

    def net():
        return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 1))

    task, calls = regression(net), []

    def loss(model, batch):
        calls.append(model.training)
        if not model.training and calls.count(False) == 1:
            raise MemoryError
        return task.loss(model, batch)

    plan = planned(batch={"micro_batch": 16, "accum_steps": 1, "global_batch": 16})
    broken = dataclasses.replace(task, loss=loss)
    one = run(plan, task, tmp_path / "whole", max_steps=4)
    two = run(plan, broken, tmp_path / "healed", max_steps=4)
    assert len(named(two, "healed")) == 1
    assert named(two, "evaluated")[0].loss == pytest.approx(named(one, "evaluated")[0].loss, 1e-6)
    assert digest(tmp_path / "whole") == digest(tmp_path / "healed")


@pytest.mark.parametrize("steps", [None, 7])
def test_it_may_strike_in_the_last_evaluation(tmp_path, steps):
    """Of a whole run, and of one that --max-steps ends off its cadence."""
    task, calls = regression(), []

    def loss(model, batch):
        calls.append(model.training)
        if not model.training and calls.count(True) == 2 * (steps or 12):
            calls.append(True)
            raise MemoryError
        return task.loss(model, batch)

    seen = run(planned(), dataclasses.replace(task, loss=loss), tmp_path, max_steps=steps)
    assert len(named(seen, "healed")) == 1
    assert named(seen, "evaluated")[-1].step == (steps or 12)
    assert seen[-1].reason == ("finished" if steps is None else "max_steps")


def test_where_a_checkpoint_is_made_it_is_no_fault_of_the_batch(tmp_path, monkeypatch):
    """The save fails and is tried again; what is learned is the same to the bit."""
    from autotrain.run import state

    take, calls = state.flatten_model, []

    def flatten(model):
        calls.append(1)
        if len(calls) in (1, 3):
            raise MemoryError("no room for a copy")
        return take(model)

    run(planned(), regression(), tmp_path / "whole")
    monkeypatch.setattr(state, "flatten_model", flatten)
    seen = run(planned(), regression(), tmp_path / "healed")
    assert not named(seen, "healed")
    assert [event.step for event in named(seen, "warned")] == [4, 8]
    assert {5, 9} <= {event.step for event in named(seen, "saved")}
    assert digest(tmp_path / "whole") == digest(tmp_path / "healed")


@pytest.mark.parametrize("workers", [0, 1])
def test_it_may_strike_in_collate(tmp_path, workers):
    """In a loader worker too: the message travels."""
    import functools

    task = dataclasses.replace(regression(), collate=functools.partial(small_collate, most=3))
    plan = planned(loader={"workers": workers})
    seen = run(plan, task, tmp_path)
    assert [event.amends["batch.micro_batch"] for event in named(seen, "healed")] == [
        [8, 4], [4, 2],
    ]  # fmt: skip
    assert seen[-1].reason == "finished"


def small_collate(samples, most):
    if len(samples) > most:
        raise MemoryError(f"{len(samples)} samples")
    return torch.utils.data.default_collate(samples)


def test_with_dropout_and_batch_norm_the_rest_is_as_planned_with_the_finer_cut(tmp_path):
    """To the bit: draws depend on the place alone, and statistics are as before the step."""

    def net():
        layers = nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Dropout(0.3), nn.Linear(16, 1)
        return nn.Sequential(*layers)

    fine = {"micro_batch": 4, "accum_steps": 4, "global_batch": 16}
    run(planned(batch=fine), regression(net), tmp_path / "fine")
    seen = run(planned(), failing(regression(net), lambda c, *_: c == 2), tmp_path / "healed")
    assert len(named(seen, "healed")) == 1
    assert digest(tmp_path / "fine") == digest(tmp_path / "healed")


def test_a_random_draw_before_the_failure_changes_nothing(tmp_path):
    """A step broken off says nothing of who draws from what."""
    import random as rng

    class Drawing(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.Linear(8, 1)

        def forward(self, x):
            return self.last(x * (1 + 0.1 * rng.random() + 0.1 * torch.rand(1)))

    task = regression(Drawing)
    failed = []

    def loss(model, batch):
        if model.training and not failed and len(batch[0]) == 8:
            failed.append(1)
            raise torch.OutOfMemoryError("before any draw")
        return task.loss(model, batch)

    fine = {"micro_batch": 4, "accum_steps": 4, "global_batch": 16}
    run(planned(batch=fine), task, tmp_path / "fine")
    run(planned(), dataclasses.replace(task, loss=loss), tmp_path / "healed")
    assert digest(tmp_path / "fine") == digest(tmp_path / "healed")


@pytest.mark.parametrize("micro", [13, 127, 12, 1])
def test_any_size_is_cut(tmp_path, micro):
    """Primes are split; the smallest are taken again as they are."""
    task = regression(count=3 * micro + 1)
    plan = planned(
        batch={"micro_batch": micro, "accum_steps": 2, "global_batch": 2 * micro},
        run={"log_every_steps": 1},
    )  # fmt: skip
    run(plan, task, tmp_path / "whole")
    seen = run(plan, failing(task, lambda c, *_: c == 3), tmp_path / "healed")
    (told,) = named(seen, "healed")
    if micro == 1:
        assert not told.amends
    elif micro == 12:
        assert told.amends["batch.micro_batch"] == [12, 6]
    else:
        assert told.amends == {"batch.split": [None, 2]}
    assert furthest(weights(tmp_path / "whole"), weights(tmp_path / "healed")) < 1e-6


@pytest.mark.parametrize("micro", [1, 2, 3, 4, 13, 30, 49, 127, 128])
@pytest.mark.parametrize("least", [1, 2])
def test_cutting_ends_at_the_least_and_keeps_the_plan_whole(micro, least):
    """Each cut is smaller; no part is below the least."""
    batch = BatchSection(micro_batch=micro, accum_steps=3, world_size=1, global_batch=3 * micro)
    sizes = [micro]
    while changed := cures.finer(batch, least=least):
        batch = batch.model_copy(update=changed)
        sizes.append(-(-batch.micro_batch // (batch.split or 1)))
        assert batch.micro_batch * batch.accum_steps == batch.global_batch
    assert sizes == sorted({*sizes}, reverse=True)
    assert sizes[-1] == min(least, micro)


def test_buckets_are_split_and_lengths_stay_together(tmp_path):
    """A plan with buckets: micro-batches are the same ones, taken in parts."""
    task = regression(length=lambda i: float(i % 7 + 1))
    batch = {
        "micro_batch": 8, "accum_steps": 2, "global_batch": 16, "target_items": 64.0,
        "buckets": [(3.0, 12), (7.0, 8)],
    }  # fmt: skip
    run(planned(batch=batch), task, tmp_path / "whole")
    seen = run(planned(batch=batch), failing(task, lambda c, *_: c in (4, 5)), tmp_path / "healed")
    assert [e.amends for e in named(seen, "healed")] == [
        {"batch.split": [None, 2]}, {"batch.split": [2, 4]},
    ]  # fmt: skip
    assert furthest(weights(tmp_path / "whole"), weights(tmp_path / "healed")) < 1e-6


@pytest.mark.parametrize("buckets", [False, True])
def test_batch_norm_is_not_cut_to_single_samples(tmp_path, buckets):
    """It cannot train on one: two are the least, three where a rest of one would be left."""

    def net():
        return nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))

    task = regression(net, count=63, length=(lambda i: float(i % 7 + 1)) if buckets else None)
    more = {"target_items": 64.0, "buckets": [(3.0, 12), (7.0, 8)]} if buckets else {}
    failed = failing(task, lambda c, *_: c in (3, 4, 5))
    seen = run(planned(batch={**BATCH, **more}), failed, tmp_path)
    assert seen[-1].reason == "finished"


@pytest.mark.parametrize(
    "many", [15, pytest.param(100, marks=pytest.mark.slow)], ids=lambda n: f"{n}"
)
def test_single_failures_in_one_run_all_heal(tmp_path, many):
    """At micro-batches of 1 the step is taken again; the weights are as if nothing had been."""
    rarely = {"every_epochs": 20}
    plan = planned(train={"epochs": 40}, evaluate=rarely, checkpoint=rarely)
    task, chance, failed = regression(), random.Random(0), {}

    def fails(call, model, batch):
        place = float(model[0].weight.detach().sum())  # another one after each step
        if place in failed or len(failed) == many or chance.random() > 0.1:
            return False
        failed[place] = True
        return True

    run(plan, task, tmp_path / "whole")
    seen = run(plan, failing(task, fails), tmp_path / "healed")
    assert len(failed) == len(named(seen, "healed")) == many
    assert seen[-1].reason == "finished"
    assert furthest(weights(tmp_path / "whole"), weights(tmp_path / "healed")) < 1e-5


def test_memory_that_never_suffices_is_told_with_what_would_fit(tmp_path):
    """Every size was tried, down to single samples; the exit status is 4."""
    sizes = []

    def fails(call, model, batch):
        sizes.append(len(batch[0]))
        return call > 8

    seen, error = until_error(planned(), failing(regression(), fails), tmp_path, DoesNotFitError)
    assert (seen[-1].reason, error.exit_code) == ("out_of_memory", 4)
    assert "micro_batch" in error.hint
    assert sizes[8:] == [8, 4, 2, 1] + [1] * (heal.TRIES - 1) + [1]
    assert snapshot(tmp_path).step == 4


def test_a_loss_that_ties_samples_together_is_not_cut(tmp_path):
    """The run stops with the cause named."""
    task = regression()

    def loss(model, batch):
        return dataclasses.replace(task.loss(model, batch), mixes=True)

    mixing = failing(dataclasses.replace(task, loss=loss), lambda c, *_: c == 5)
    seen, error = until_error(planned(), mixing, tmp_path, DoesNotFitError)
    assert "ties the samples of a micro-batch together" in error.message
    assert seen[-1].reason == "out_of_memory"
    assert not named(seen, "healed")


def test_nor_is_it_where_that_turns_out_after_the_cut(tmp_path):
    """Memory ran out before the first loss could say so."""
    task = regression()

    def loss(model, batch):
        return dataclasses.replace(task.loss(model, batch), mixes=True)

    mixing = failing(dataclasses.replace(task, loss=loss), lambda c, *_: c == 1)
    seen, error = until_error(planned(), mixing, tmp_path, DoesNotFitError)
    assert "ties the samples of a micro-batch together" in error.message
    assert seen[-1].step == 0


def test_what_the_failed_step_held_is_free_when_the_cache_is_given_back(tmp_path, monkeypatch):
    """Also what the errors that led to the last one hold."""
    task, held, alive = regression(), [], []
    monkeypatch.setattr(cures, "_free", lambda _: alive.append([e() is not None for e in held]))

    def loss(model, batch):
        if model.training and not held:
            large = torch.zeros(1000)
            held.append(weakref.ref(large))
            try:
                hidden = model[0](batch[0])
                held.append(weakref.ref(hidden))
                raise ValueError("first")
            except ValueError as first:
                other = torch.ones(1000)
                held.append(weakref.ref(other))
                raise torch.OutOfMemoryError("CUDA out of memory") from first
        return task.loss(model, batch)

    seen = run(planned(), dataclasses.replace(task, loss=loss), tmp_path)
    assert alive == [[False] * 3]
    assert len(named(seen, "healed")) == 1


def test_where_an_error_came_from_can_still_be_told():
    """Frames are emptied, not forgotten."""

    def deep():
        large = torch.zeros(10)
        gone.append(weakref.ref(large))
        raise MemoryError("here")

    gone = []
    with pytest.raises(MemoryError) as caught:
        deep()
    heal.let_go(caught.value)
    assert gone[0]() is None
    assert caught.value.__traceback__ is not None
    caught.value.__cause__ = caught.value  # a circle ends too
    heal.let_go(caught.value)


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (MemoryError(), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), True),
        (RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("CUDA error: out of memory"), False),
        (device.ThrashingError("the allocator"), True),
    ],
)  # fmt: skip
def test_what_counts_as_out_of_memory(error, is_memory):
    """By every name that torch, its libraries and the system have for it."""
    assert device.out_of_memory(error) == is_memory


@pytest.mark.parametrize(
    ("budget", "beside", "total", "share"),
    [(8, 2, 10, 0.6), (12, 1, 10, 1.0), (1, 2, 10, 1.0), (10, 0, 10, 1.0)],
)
def test_the_allocators_share_is_the_budget_without_the_context(budget, beside, total, share):
    """No share at all would be no run: then nothing is capped."""
    assert device.share_of(budget, beside, total) == pytest.approx(share)


def test_thrashing_is_more_than_now_and_then():
    """One retry is nothing; one in every step is the rule."""
    assert not device.thrashes(1, 1)
    assert not device.thrashes(12, 50)
    assert device.thrashes(13, 50)
    assert not device.thrashes(0, 0)


def test_an_allocator_that_thrashes_has_the_batch_cut(tmp_path, monkeypatch):
    """It is said so; where nothing is left to cut, the run goes on."""
    left = [5, 5, 5, 5, 5]
    monkeypatch.setattr(device.Memory, "retries", lambda self: left.pop() if left else 0)
    seen = run(planned(), regression(), tmp_path)
    told = named(seen, "healed")
    assert [event.amends["batch.micro_batch"] for event in told] == [[8, 4], [4, 2], [2, 1]]
    assert "the allocator gave its cache back 5 times in 2 steps" in told[0].fault
    assert seen[-1].reason == "finished"


@pytest.mark.gpu
def test_the_allocator_of_a_gpu_keeps_to_the_budget():
    """And has all of the device again afterwards."""
    total = torch.cuda.get_device_properties(0).total_memory
    plan = make_plan(device={"kind": "cuda"}, memory={"budget_bytes": 1 << 30})
    with device.capped(plan):
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(2 << 30, dtype=torch.uint8, device="cuda")
        assert device.Memory(torch.device("cuda", 0)).retries() == 0
    if total > 4 << 30:
        torch.empty(2 << 30, dtype=torch.uint8, device="cuda")


def test_anything_else_is_raised_as_it_is(tmp_path):
    """A bug in the task's code heals nothing and is retried never."""
    calls = []

    def loss(model, batch):
        calls.append(1)
        raise KeyError("gloss")

    task = dataclasses.replace(regression(), loss=loss)
    seen, error = until_error(planned(), task, tmp_path, AutotrainError)
    assert len(calls) == 1
    assert "KeyError: 'gloss'" in error.message
    assert seen[-1].reason == "error"
