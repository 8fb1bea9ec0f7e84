"""A model divided among processes trains as a whole one: weights, figures, healing, checkpoints."""

import dataclasses
import os
import signal

import pytest
import torch
from torch import nn

from autotrain.events import Evaluated, Healed, Stopped
from autotrain.run.keeping import checkpoint
from autotrain.task import Loss, Task
from tests.run.plans import make_plan
from tests.run.tasks import noisy_task, pad
from tests.run.test_ranks import FIVE, Broken, carried_out, furthest, insist_on_figures, of, weights
from tests.run.worlds import in_world

SHARD = {"strategy": "shard"}
EACH = {**SHARD, "reduce": "each"}
WORDS, WIDTH = 11, 6
OPTIMIZERS = (
    "adamw", "adam", "sgd", "rmsprop", "adagrad", "adadelta", "adamax", "nadam", "radam", "rprop",
)  # fmt: skip


class Block(nn.Module):
    """One of three; `fails` where memory is to run out in it, if anywhere."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(WIDTH, 9), nn.Linear(9, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.fails = None

    def forward(self, x):
        fails, self.fails = self.fails, None
        if fails == "forward":
            raise torch.OutOfMemoryError("none left")
        if fails == "backward":
            x = Broken.apply(x)
        return x + self.down(torch.tanh(self.up(self.norm(x))))


class Reader(nn.Module):
    """Tied weights, blocks, a parameter of one number: of it one rank has nothing."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.scale = nn.Parameter(torch.ones(1))
        self.out = nn.Linear(WIDTH, WORDS, bias=False)
        self.out.weight = self.words.weight
        self.double()

    def forward(self, words):
        x = self.words(words)
        for block in self.blocks:
            x = block(x)
        return self.out(x * self.scale)


class Texts(torch.utils.data.Dataset):
    """1 to 9 words; the next one is to be said."""

    def __init__(self, count, seed=3):
        draws = torch.Generator().manual_seed(seed)
        lengths = torch.randint(2, 11, (count,), generator=draws).tolist()
        self.texts = [torch.randint(1, WORDS, (n,), generator=draws) for n in lengths]

    def __len__(self):
        return len(self.texts)

    def __getitem__(self, index):
        return self.texts[index][:-1], self.texts[index][1:]


def next_word(model, batch):
    words, following = batch
    said = nn.functional.cross_entropy(
        model(words).flatten(0, 1), following.flatten(), reduction="none"
    )
    keep = (following > 0).flatten()
    return Loss(total=(said * keep).sum(), weight=keep.sum(), parts={"double": 2 * said.sum()})


def guessed(model, batch):
    """Word by word, as often as the longest text of the batch has words: each rank otherwise."""
    words, following = batch
    right = torch.zeros((), dtype=torch.long)
    for end in range(1, words.shape[1] + 1):
        best = model(words[:, :end])[:, -1].argmax(-1)
        right += ((best == following[:, end - 1]) & (following[:, end - 1] > 0)).sum()
    return {"right": (right, (following > 0).sum())}


def reader_task(count=40, **more):
    parts = {
        "model": Reader, "train": Texts(count), "valid": Texts(13, 4), "collate": pad,
        "loss": next_word, "measure": guessed,
    }  # fmt: skip
    return Task(**{**parts, **more})


def same(tmp_path, plan, make=reader_task, world=2, *, within=1e-12):
    """One process and several come to the same; returns their events."""
    alone = carried_out(None, plan, make, tmp_path / "one")
    found = in_world(world, carried_out, plan, make, tmp_path / "many")
    assert furthest(weights(tmp_path / "one"), weights(tmp_path / "many")) < within
    return alone, found


# --- the same mathematics -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("world", "parallel", "batch"),
    [
        (2, SHARD, {}),
        (2, SHARD, {"micro_batch": 1, "accum_steps": 8}),
        (2, EACH, {"micro_batch": 1, "accum_steps": 8}),
        (3, SHARD, FIVE),  # 40 samples leave a window of 4: two micro-batches for three
        (3, EACH, {"micro_batch": 1, "accum_steps": 2, "global_batch": 2}),  # never one for rank 2
    ],
)
def test_weights_and_figures_are_those_of_one_process(tmp_path, world, parallel, batch):
    plan = make_plan(batch=batch, parallel=parallel, train={"epochs": 2})
    alone, (first, *others) = same(tmp_path, plan, world=world)
    insist_on_figures(alone, first, others)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("clip_norm", [None, 0.05])
def test_every_optimizer_does_to_its_parts_what_it_does_to_the_whole(tmp_path, name, clip_norm):
    plan = make_plan(
        parallel=SHARD, train={"epochs": 1},
        optimizer={"name": name, "lr": 1e-3, "momentum": 0.9, "clip_norm": clip_norm},
    )  # fmt: skip
    same(tmp_path, plan, within=1e-10)


@pytest.mark.parametrize("implementation", ["fused", "for-loop"])
def test_however_the_optimizer_is_implemented(tmp_path, implementation):
    optimizer = {"implementation": implementation, "decays": "matrices", "layer_decay": 0.7}
    same(tmp_path, make_plan(parallel=SHARD, train={"epochs": 1}, optimizer=optimizer))


def test_averaged_weights_and_frozen_ones(tmp_path):
    plan = make_plan(parallel=SHARD, train={"ema_decay": 0.9, "freeze": ["blocks.1.*"]})
    alone, found = same(tmp_path, plan)
    kept = [checkpoint.load(checkpoint.newest_good(tmp_path / n)[0]) for n in ("one", "many")]
    assert furthest(*(each.average.tensors for each in kept)) < 1e-12
    assert furthest(kept[0].average.tensors, kept[0].model.tensors) > 1e-4
    figures = [[e.loss for e in of(Evaluated, events)] for events in (alone, found[1])]
    assert figures[0] == pytest.approx(figures[1], rel=1e-12)


def test_blocks_that_are_computed_again(tmp_path):
    same(tmp_path, make_plan(parallel=EACH, model={"activation_checkpointing": True}))


def plain_layers():
    return nn.Sequential(nn.Linear(6, 9), *[nn.Linear(9, 9) for _ in range(8)], nn.Linear(9, 2))


def plain_task():
    """Without blocks: a sequence in stretches. Its samples are augmented, in fp32."""
    return dataclasses.replace(noisy_task(), model=plain_layers)


@pytest.mark.parametrize("again", [False, True])
def test_a_plain_sequence_is_divided_in_stretches(tmp_path, again):
    plan = make_plan(
        parallel=SHARD, model={"activation_checkpointing": again},
        optimizer={"name": "sgd", "lr": 0.1, "momentum": 0.9},
    )  # fmt: skip
    same(tmp_path, plan, plain_task, within=1e-6)


def test_each_rank_keeps_its_part_alone(tmp_path):
    """Of the first dimension of each: rounded up for rank 0, what is left for rank 1."""
    shapes = [p.shape for p in Reader().parameters()]
    first = sum(-(-shape[0] // 2) * shape[1:].numel() for shape in shapes)
    rest = sum(shape.numel() for shape in shapes) - first
    found = in_world(2, _sizes, make_plan(parallel=SHARD), tmp_path)
    assert found == [{"weights": n, "states": 2 * n} for n in (first, rest)]


def _sizes(ranks, plan, directory):
    from autotrain.run import loop

    kept, assembled = [], loop.assemble
    loop.assemble = lambda *args, **named: kept.append(assembled(*args, **named)) or kept[0]
    carried_out(ranks, plan, reader_task, directory)
    (run,) = kept
    states = [v for state in run.optimizer.state.values() for v in state.values() if v.ndim]
    return {"weights": sum(p.numel() for p in run.parameters),
            "states": sum(v.numel() for v in states)}  # fmt: skip


def test_bf16(tmp_path):
    plan = make_plan(
        parallel=SHARD, precision={"dtype": "bf16"},
        optimizer={"name": "sgd", "lr": 0.1, "momentum": 0.9},
    )  # fmt: skip
    same(tmp_path, plan, lambda: reader_task(model=lambda: Reader().float()), within=1e-2)


class Two(Reader):
    """A number for each of two ranks."""

    def __init__(self):
        super().__init__()
        self.pair = nn.Parameter(torch.ones(2))
        self.float()


def test_fp16_that_overflows_in_one_part_lowers_the_scale_of_all(tmp_path):
    plan = make_plan(parallel=SHARD, precision={"dtype": "fp16"}, train={"epochs": 1})
    scales = in_world(2, _overflowing, plan, tmp_path)
    assert scales[0] == scales[1] < 2.0**16


def _overflowing(ranks, plan, directory):
    """In rank 1's number of the pair, in the second step."""
    from autotrain.device import Precision

    made, calls, scaler = [], [0], Precision.scaler
    Precision.scaler = lambda self: made.append(scaler(self)) or made[-1]

    def loss(model, batch):
        calls[0] += model.training
        each = torch.tensor([0.0, 3e38 if calls[0] == 2 and model.training else 0.0])
        loss = next_word(model, batch)
        return dataclasses.replace(loss, total=loss.total + (model.pair * each).sum())

    carried_out(ranks, plan, lambda: reader_task(model=Two, loss=loss), directory)
    return made[-1].get_scale()


# --- one goes wrong -----------------------------------------------------------------------------


def failing(where, call):
    """In rank 1 memory runs out in the second block, in the `call`-th pass of training."""

    def make():
        calls = [0]

        def loss(model, batch):
            calls[0] += model.training
            if calls[0] == call and model.training and os.environ.get("RANK") == "1":
                model.blocks[1].fails = where
            return next_word(model, batch)

        return reader_task(loss=loss)

    return make


@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize("parallel", [SHARD, EACH])
def test_memory_that_runs_out_anywhere_in_a_pass_cuts_all_finer(tmp_path, where, parallel):
    plan = make_plan(
        parallel=parallel, batch={"micro_batch": 2, "accum_steps": 4}, train={"epochs": 2},
        model={"activation_checkpointing": where == "backward"},
    )  # fmt: skip
    _, found = same(tmp_path, plan, failing(where, 4))
    for events in found:
        (healed,) = of(Healed, events)
        assert healed.amends["batch.micro_batch"] == [2, 1]
        assert healed.step == 1
        assert events[-1].reason == "finished"
    assert "process 1" in of(Healed, found[0])[0].fault


@pytest.mark.parametrize("parallel", [{}, SHARD])
def test_memory_that_runs_out_in_one_update_leads_all_back(tmp_path, parallel):
    """The third: half of the ranks have changed their weights by then."""
    plan = make_plan(parallel=parallel, checkpoint={"every_epochs": None, "every_steps": 1})
    carried_out(None, plan, reader_task, tmp_path / "one")
    found = in_world(2, _failing_update, plan, tmp_path / "many")
    for events in found:
        (healed,) = of(Healed, events)
        assert healed.cure == "parameters are updated one by one; back to step 2"
        assert events[-1].reason == "finished"
    assert furthest(weights(tmp_path / "one"), weights(tmp_path / "many")) < 1e-12


def _failing_update(ranks, plan, directory):
    from autotrain.run import step

    commit, calls = step._commit, [0]

    def fails(run, bad):
        calls[0] += 1
        if ranks.rank == 1 and calls[0] == 3:
            raise torch.OutOfMemoryError("none left")
        commit(run, bad)

    step._commit = fails
    return carried_out(ranks, plan, reader_task, directory)


def test_nan_in_one_is_a_step_that_none_commits(tmp_path):
    def make():
        calls = [0]

        def loss(model, batch):
            made = next_word(model, batch)
            calls[0] += model.training
            spoilt = os.environ.get("RANK") == "1" and calls[0] == 2 and model.training
            return dataclasses.replace(made, total=made.total * float("nan")) if spoilt else made

        return reader_task(loss=loss)

    found = in_world(2, carried_out, make_plan(parallel=SHARD), make, tmp_path)
    for events in found:
        (healed,) = of(Healed, events)
        assert "at step 2 " in healed.fault
        assert events[-1].reason == "finished"


def odd_one(model, batch):
    raise ValueError("an odd sample")


def other_way(model, batch):
    """A block fewer."""
    blocks, model.blocks = model.blocks, model.blocks[1:]
    try:
        return next_word(model, batch)
    finally:
        model.blocks = blocks


def asks_to_stop(model, batch):
    os.kill(os.getpid(), signal.SIGTERM)
    return next_word(model, batch)


def at_fourth(what):
    """A task whose fourth loss of training is another in rank 1."""

    def make():
        calls = [0]

        def loss(model, batch):
            calls[0] += model.training
            here = model.training and calls[0] == 4 and os.environ.get("RANK") == "1"
            return (what if here else next_word)(model, batch)

        return reader_task(loss=loss)

    return make


def test_a_bug_in_one_ends_all_with_its_cause_and_the_last_whole_step(tmp_path):
    plan = make_plan(parallel=SHARD)
    first, second = in_world(2, carried_out, plan, at_fourth(odd_one), tmp_path)
    assert first[-1].message.startswith("process 1: step 4: ValueError: an odd sample")
    assert second[-1].message.startswith("step 4: ValueError: an odd sample")
    assert first[-2].reason == "error"
    assert checkpoint.steps(tmp_path) == [3]


def test_ranks_that_go_different_ways_are_told_and_do_not_wait_for_ever(tmp_path):
    plan = make_plan(parallel=SHARD)
    for events in in_world(2, carried_out, plan, at_fourth(other_way), tmp_path):
        assert events[-1].message == (
            "the processes went different ways: 0 uses blocks.0, 1 uses blocks.1"
        )
        assert 'parallel.strategy = "ddp"' in events[-1].hint


class Idle(Reader):
    """A parameter that takes no part."""

    def __init__(self):
        super().__init__()
        self.blocks[2].idle = nn.Parameter(torch.ones(3, dtype=torch.float64))


class Single(Reader):
    """A parameter without a dimension."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))


@pytest.mark.parametrize(
    ("net", "said"),
    [(Idle, "a parameter of blocks.2 took no part in the loss"),
     (Single, "outside of its blocks cannot be divided among processes: fully_shard doesn't")],
)  # fmt: skip
def test_what_cannot_be_divided_is_refused_by_name(tmp_path, net, said):
    plan = make_plan(parallel=SHARD)
    for events in in_world(2, carried_out, plan, lambda: reader_task(model=net), tmp_path):
        assert said in events[-1].message
        assert "ddp" in events[-1].hint


# --- checkpoints --------------------------------------------------------------------------------


def test_a_checkpoint_is_one_whole_model_that_any_number_goes_on_with(tmp_path):
    """Divided among two, then three, then whole in two, in one, and divided again."""
    plan, whole = (make_plan(parallel=p, train={"ema_decay": 0.9}) for p in (SHARD, {}))
    alone, many = tmp_path / "one", tmp_path / "many"
    carried_out(None, whole, reader_task, alone)
    for world, own, last in (
        (2, plan, 3),
        (3, plan, 6),
        (2, whole, 9),
        (1, plan, 11),
        (2, plan, 15),
    ):
        more = {"resume": True, "max_steps": last}
        if world == 1:
            found = [carried_out(None, own, reader_task, many, **more)]
        else:
            found = in_world(world, carried_out, own, reader_task, many, **more)
        assert [events[-1].step for events in found] == [last] * world
    one, last = (checkpoint.load(checkpoint.newest_good(n)[0]) for n in (alone, many))
    assert one.step == last.step == 15
    assert one.model.aliases == last.model.aliases == {"out.weight": "words.weight"}
    for part in ("model", "optimizer", "average"):
        assert furthest(getattr(one, part).tensors, getattr(last, part).tensors) < 1e-12, part


def test_a_save_that_fails_is_told_and_training_goes_on(tmp_path):
    found = in_world(2, _full_disk, make_plan(parallel=SHARD), tmp_path)
    assert ["checkpoint not saved" in getattr(e, "message", "") for e in found[0]].count(True) == 1
    assert [events[-1].reason for events in found] == ["finished"] * 2
    assert max(checkpoint.steps(tmp_path)) == 15


def _full_disk(ranks, plan, directory):
    save, calls = checkpoint.save, [0]

    def fails(*args):
        calls[0] += 1
        if calls[0] == 1:
            raise OSError(28, "No space left on device")
        return save(*args)

    checkpoint.save = fails
    return carried_out(ranks, plan, reader_task, directory)


def test_a_wish_of_one_stops_all(tmp_path):
    plan = make_plan(parallel=SHARD)
    found = in_world(2, carried_out, plan, at_fourth(asks_to_stop), tmp_path)
    assert [(of(Stopped, e)[0].reason, e[-1].step) for e in found] == [("terminated", 4)] * 2
