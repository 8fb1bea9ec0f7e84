"""How long samples are, and steps traced on samples of one length."""

import math
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from steps import HERE, opened
from torch import nn

from autotrain import Loss, Task
from autotrain.errors import AutotrainError
from autotrain.probe import lengths
from autotrain.probe.lengths import check_valid_length, read_lengths


def said(length, count):
    return read_lengths(Task(model=nn.Identity, train=None, loss=None, length=length), HERE, count)


@given(st.lists(st.integers(0, 500), min_size=1, max_size=60), st.floats(0, 600))
def test_every_length_of_a_small_set_is_known(values, wanted):
    found = said(values.__getitem__, len(values))
    assert found.longest == max(values)
    picked = [values[i] for i in found.up_to(wanted, 3)]
    fitting = sorted((v for v in values if v <= wanted), reverse=True)
    assert picked == (fitting[:3] or [min(values)])
    profile = found.profile()
    if not any(values):
        assert profile is None
        return
    assert list(profile.points) == sorted(values)
    assert profile.mean == pytest.approx(sum(values) / len(values))
    assert (profile.count, profile.read) == (len(values), len(values))


def test_a_large_set_is_read_whole_where_that_is_quick_and_drawn_as_a_thousand_points():
    profile = said(lambda i: 10 + (i * 7919) % 50_021, 50_021).profile()
    assert profile.read == 50_021
    assert (profile.points[0], profile.maximum) == (10, 50_030)
    assert len(profile.points) == lengths.POINTS
    assert profile.points[500] == pytest.approx(25_000, rel=0.01)


def test_a_slow_length_is_asked_for_samples_spread_over_the_set(monkeypatch):
    monkeypatch.setattr(lengths, "READ_SECONDS", 0.2)
    asked = []

    def slow(index):
        asked.append(index)
        time.sleep(1e-4)
        return 1 + index

    profile = said(slow, 100_000).profile()
    assert (profile.count, profile.read) == (100_000, 2000)
    assert asked == list(range(0, 100_000, 50))
    assert profile.maximum > 99_000


@pytest.mark.parametrize("value", [-1, math.nan, math.inf])
def test_a_length_that_is_no_cost_is_named_by_its_sample(value):
    with pytest.raises(AutotrainError, match=rf"length\(2\) is {float(value)}") as caught:
        said([3, 4, value].__getitem__, 3)
    assert "0 or more" in caught.value.hint


def test_a_length_that_fails_is_named_by_its_line():
    with pytest.raises(AutotrainError, match=r"test_lengths\.py:\d+: length\(1\): KeyError"):
        said(lambda i: {0: 1}[i], 3)


@pytest.mark.parametrize("ends", [(0, math.nan), (-1, 2)])
def test_so_is_that_of_a_validation_sample(ends):
    given = Task(
        model=nn.Identity, train=None, loss=None, valid=ends, length=[1, 2].__getitem__,
        valid_length=ends.__getitem__,
    )  # fmt: skip
    with pytest.raises(AutotrainError, match=r"valid_length\([01]\) is (nan|-1)"):
        check_valid_length(given, HERE, 2)


def test_a_validation_set_that_cannot_tell_its_size_is_named_before_its_lengths_are_asked_for():
    class Endless:
        def __getitem__(self, index):
            return Frames()[0]

    given = Task(
        model=nn.Identity, train=Frames(), loss=energy, collate=pad, valid=Endless(),
        valid_length=float,
    )  # fmt: skip
    with pytest.raises(AutotrainError, match="the validation dataset has no length"):
        opened(given)


def test_the_longest_comes_first_and_of_equals_the_earliest():
    assert said([5, 9, 9, 2].__getitem__, 4).up_to(math.inf, 3) == [1, 2, 0]
    assert read_lengths(Task(model=nn.Identity, train=None, loss=None), HERE, 4) is None


# --- steps traced at a length --------------------------------------------------------------


class Frames(torch.utils.data.Dataset):
    """Sample i has 20 + 3 i frames of 16 numbers."""

    def __len__(self):
        return 80

    def __getitem__(self, index):
        return torch.ones(20 + 3 * index, 16)


class Attends(nn.Module):
    def __init__(self):
        super().__init__()
        self.wide, self.out = nn.Linear(16, 64), nn.Linear(64, 16)

    def forward(self, frames):
        hidden = self.wide(frames)
        scores = (hidden @ hidden.transpose(1, 2)).softmax(-1)
        return self.out((scores @ hidden).relu())


class Recalls(nn.Module):
    def __init__(self):
        super().__init__()
        self.memory, self.out = nn.LSTM(16, 64, batch_first=True), nn.Linear(64, 16)

    def forward(self, frames):
        return self.out(self.memory(frames)[0])


def energy(model, batch):
    return Loss(total=model(batch).square().sum(), weight=len(batch))


def pad(samples):
    return nn.utils.rnn.pad_sequence(samples, batch_first=True)


def varied(net, length=lambda i: 20 + 3 * i):
    return Task(model=net, train=Frames(), loss=energy, collate=pad, length=length)


def test_a_trace_at_a_length_takes_the_longest_samples_up_to_it():
    tracer = opened(varied(Recalls))
    for asked, frames in ((0.0, 257), (1e9, 257), (100.0, 98), (98.0, 98), (1.0, 20)):
        made = tracer.trace(4, length=asked)
        assert made.batch_bytes == 4 * frames * 16 * 4
        assert made.length == (257 if asked in (0.0, 1e9) else asked)
    assert tracer.profile().lengths.maximum == 257
    assert {t.length for t in tracer.profile().at("fp32")} == {257}


@pytest.mark.parametrize("net", [Attends, Recalls])
@pytest.mark.parametrize("length", [80.0, 230.0])
def test_a_fake_step_at_a_length_counts_what_the_allocator_hands_out(net, length):
    from test_model import allocator_peak

    class Only(Frames):
        def __len__(self):
            return 16

        def __getitem__(self, index):
            return torch.ones(int(length), 16)

    task = Task(model=net, train=Only(), loss=energy, collate=pad)
    measured = allocator_peak(task_with_default(task), 16)
    traced = opened(varied(net)).trace(16, length=length).peak_bytes
    print(f"{net.__name__} {length:g}: traced {traced}, allocated {measured}")
    assert traced == pytest.approx(measured, rel=0.02)


def task_with_default(task):
    """`allocator_peak` collates with torch's default: [batch, frames, 16] as a list of one."""
    samples = [(task.train[i],) for i in range(16)]
    return Task(
        model=task.model, train=samples, loss=lambda model, batch: task.loss(model, batch[0])
    )


def test_steps_that_are_traced_again_for_real_keep_their_lengths():
    class Asks(Recalls):
        """Looks at a number where there are many frames."""

        def forward(self, frames):
            made = super().forward(frames)
            if frames.shape[1] > 100 and frames.sum().item() > 0:
                made = made + super().forward(2 * frames)
            return made

    tracer = opened(varied(Asks))
    for length in (80.0, 0.0):
        tracer.trace(2, length=length)
    assert tracer.profile().traced == "concrete"
    seen = [(t.length, t.batch_bytes) for t in tracer.profile().traces]
    assert seen == [(80.0, 2 * 80 * 16 * 4), (257.0, 2 * 257 * 16 * 4)]
