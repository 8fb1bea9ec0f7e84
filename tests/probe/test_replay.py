"""A traced step is played again on real memory: the same operators on tensors like its own."""

from dataclasses import replace

import pytest
import torch
from steps import NEED_DATA, TASKS, Rows, classifier, mlp, opened
from torch import nn
from torch.nn import functional

from autotrain import Loss, Task
from autotrain.probe import replay
from autotrain.probe.replay import EVALUATE, FIRST, LATER, Player
from autotrain.probe.trace.program import Call


def program(tracer, micro_batch=4, dtype="fp32"):
    return tracer.program(tracer.trace(micro_batch, dtype))


def unequal():
    """No two parameters of one shape."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 10))


def gradients_of(tracer, player):
    """By shape: what is left of the first part when all that dies has died."""
    slots = [None] * player.slots
    for slot, tensor in player.given:
        slots[slot] = tensor
    with torch.enable_grad(), torch._C._AutoDispatchBelowAutograd():
        player.parts[FIRST](slots)
    given = {tensor.data_ptr() for _, tensor in player.given}
    left = [t for t in slots if t is not None and t.data_ptr() not in given]
    return {tuple(t.shape): t for t in left if t.dim()}


def test_what_is_played_is_the_step_to_the_bit():
    """Gradients of the weights that the player drew, on the task's own batch."""
    tracer = opened(classifier(unequal, 64))
    player = Player(program(tracer))
    played = gradients_of(tracer, player)
    model = unequal()
    weights = {tuple(t.shape): t for _, t in player.given}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(weights[tuple(parameter.shape)])
    loss = tracer.task.loss(model, tracer._batch(4))
    (loss.total / loss.weight).backward()
    for parameter in model.parameters():
        assert torch.equal(played[tuple(parameter.shape)], parameter.grad)


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_steps_of_every_sort_can_be_played(name, dtype):
    made = program(opened(TASKS[name]()), dtype=dtype)
    assert made.whole
    (taken,) = replay.timed([(made, 1)], 2, 0.0)
    assert 0 < taken.evaluate_seconds < 60
    assert 0 < taken.seconds < 60


class Many(nn.Module):
    """Views of every sort, writes in place, a list cut up, an index, a buffer of counts."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(64, 64), nn.Linear(32, 10)
        self.register_buffer("order", torch.arange(64).flip(0))

    def forward(self, x):
        x = self.first(x)[:, self.order].clone()
        x[:, ::2] *= 0.5
        left, right = x.chunk(2, 1)
        values, places = left.topk(8, dim=1)
        x = (left.t().contiguous().t() + right).unfold(1, 4, 4).flatten(1)
        x = x.scatter_add(1, places, values)
        return self.last(functional.dropout(x, 0.1, self.training))


def searching(model, batch):
    """As many as the values say: all in a trace, where nobody knows them, and none when played."""
    inputs, labels = batch
    kept = labels[model(inputs).amax(dim=-1) > 1e9]
    return {"found": (sum(label for label in kept), len(labels))}


def test_a_search_that_takes_another_way_when_played_costs_its_own_time_alone():
    task = replace(classifier(unequal, 64), measure=searching)
    (taken,) = replay.timed([(program(opened(task)), 1)], 1, 0.0)
    assert taken.evaluate_seconds is None
    assert 0 < taken.seconds < 60


def test_views_writes_in_place_and_indices_are_played():
    made = program(opened(classifier(Many, 64)))
    assert made.whole
    assert replay.timed([(made, 1)], 1, 0.0)[0].seconds > 0


def test_weights_that_only_a_later_part_looks_at_are_there():
    """A model that computes more in training than in evaluation, and the other way round."""

    class Either(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.other = nn.Linear(64, 10), nn.Linear(64, 10)

        def forward(self, x):
            return self.one(x) if self.training else self.one(x) + self.other(x)

    player = Player(program(opened(classifier(Either, 64))))
    assert min(player.play(FIRST), player.play(FIRST, LATER), player.play(EVALUATE)) > 0


def test_a_step_with_sparse_gradients_is_not_whole():
    def loss(model, batch):
        out = model(batch[0]).sum()
        return Loss(total=out, weight=batch[0].numel())

    task = Task(
        model=lambda: nn.Embedding(50, 8, sparse=True), train=Rows(6, integers=50), loss=loss
    )
    assert not program(opened(task)).whole


def test_a_step_that_ran_on_real_data_is_not_kept():
    """Its tensors would be kept as well."""
    tracer = opened(NEED_DATA["item"]())
    tracer.trace(4, "fp32")
    assert not tracer.programs


def test_nothing_that_died_in_the_step_lives_on_while_it_is_played():
    made = program(opened(classifier(mlp, 64)), micro_batch=8)
    outputs = {s for step in made.steps if isinstance(step, Call) for s in step.outputs}
    player = Player(made)
    slots = [None] * made.slots
    for slot, tensor in player.given:
        slots[slot] = tensor
    with torch.enable_grad(), torch._C._AutoDispatchBelowAutograd():
        player.parts[FIRST](slots)
    alive = [slots[s] for s in outputs if s is not None and slots[s] is not None]
    storages = {t.untyped_storage().data_ptr() for t in alive if t.numel() > 1}
    given = {t.untyped_storage().data_ptr() for _, t in player.given}
    assert len(storages - given) == len([*mlp().parameters()])  # gradients, and nothing else


def test_more_samples_take_longer_and_threads_are_put_back():
    tracer = opened(classifier(lambda: mlp(1024), 64))
    few, many = (program(tracer, size) for size in (2, 512))
    before = torch.get_num_threads()
    one, other = replay.timed([(few, 1), (many, 1)], 1, 0.5)
    assert other.seconds > 2 * one.seconds
    assert torch.get_num_threads() == before


def test_on_a_busy_machine_playing_ends_before_its_least_rounds(monkeypatch):
    made, threads = program(opened(classifier(lambda: mlp(1024), 64))), torch.get_num_threads()
    monkeypatch.setattr(replay, "LONGEST", 0.0)
    with pytest.raises(TimeoutError, match="a few rounds of it take over"):
        replay.timed([(made, 1)], 1, 0.0)
    assert torch.get_num_threads() == threads


def test_of_several_each_is_played_after_itself(monkeypatch):
    """Else each would make its kernels anew, which the others have pushed out."""
    tracer, played, whole = opened(classifier(lambda: mlp(1024), 64)), [], replay.Player.round
    many = [(program(tracer, size), 1) for size in (2, 4)]

    def noted(player, *arguments):
        played.append(player)
        return whole(player, *arguments)

    monkeypatch.setattr(replay.Player, "round", noted)
    replay.timed(many, 1, 0.0)
    assert len(played) == 2 * 2 * replay.LEAST_ROUNDS
    assert played[::2] == played[1::2]
    played.clear()
    replay.timed(many[:1], 1, 0.0)
    assert len(played) == 1 + replay.LEAST_ROUNDS
    assert replay.timed([], 1, 0.0) == []


def test_playing_draws_no_random_numbers_of_ours():
    made = program(opened(classifier(Many, 64)))
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    replay.timed([(made, 1)], 1, 0.0)
    assert torch.equal(torch.rand(3), expected)
