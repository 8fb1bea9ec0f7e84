"""Which samples form which step, where a plan has buckets of lengths."""

import math
from itertools import chain

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autotrain.plan.lengths import pieces
from autotrain.run.loading import data
from autotrain.run.loading.bucketed import BucketedOrder, even, size_of
from autotrain.run.loading.itinerary import ordered
from autotrain.run.loop import train
from autotrain.schema import LengthProfile

from .plans import make_plan
from .tasks import NoisyNet, noisy_task, sequence_net, sequence_task
from .test_resume import digests, figures, run
from .test_resume import pieces as cut_up

BUCKETS = ((20.0, 12), (50.0, 5), (100.0, 2))


@st.composite
def orders(draw, longest=100, no_single=False):
    """An order over any lengths, some beyond the last bucket where `longest` is above 100."""
    values = draw(st.lists(st.integers(0, longest), min_size=1, max_size=150))
    sizes = sorted(draw(st.sets(st.integers(1, 30), min_size=3, max_size=3)), reverse=True)
    buckets = tuple((end, size) for (end, _), size in zip(BUCKETS, sizes, strict=True))
    lengths = torch.tensor(values, dtype=torch.float64)
    target = draw(st.floats(5, 3000))
    return BucketedOrder(lengths, buckets, target, draw(st.integers(0, 2**63)), no_single)


def epoch_of(order, epoch=0):
    first = epoch * order.steps_per_epoch
    return [order.window(first + step) for step in range(order.steps_per_epoch)]


@given(orders(300), st.integers(0, 3))
def test_an_epoch_holds_every_sample_exactly_once_and_sizes_agree(order, epoch):
    windows = epoch_of(order, epoch)
    seen = sorted(chain.from_iterable(chain.from_iterable(windows)))
    assert seen == list(range(len(order.lengths)))
    first = epoch * order.steps_per_epoch
    assert [list(map(len, window)) for window in windows] == [
        order.sizes(first + step) for step in range(len(windows))
    ]
    assert all(windows)


@given(orders(300), st.integers(0, 3))
def test_no_micro_batch_mixes_buckets_or_has_more_than_its_longest_allows(order, epoch):
    ends = [end for end, _ in order.buckets]
    for micro_batch in chain.from_iterable(epoch_of(order, epoch)):
        longest = float(order.lengths[micro_batch].max())
        shortest = float(order.lengths[micro_batch].min())
        assert 1 <= len(micro_batch) <= size_of(longest, order.buckets)
        assert sum(end < longest for end in ends) == sum(end < shortest for end in ends)


@given(orders(), st.integers(0, 3))
def test_every_window_has_its_share_of_the_items_to_one_micro_batch(order, epoch):
    windows = epoch_of(order, epoch)

    def items(samples):
        return float(order.lengths[samples].sum())

    largest = max(items(m) for m in chain.from_iterable(windows))
    share = float(order.lengths.sum()) / len(windows)
    shares = [items([*chain.from_iterable(window)]) for window in windows]
    if order.steps_per_epoch == round(float(order.lengths.sum()) / order.target_items):
        assert share == pytest.approx(order.target_items, rel=0.51)
    # A micro-batch of more than the target pushes the next windows along.
    if largest <= share:
        assert all(abs(each - share) <= largest + 1e-6 for each in shares)


def test_windows_are_of_the_target_on_average_and_near_it():
    generator = torch.Generator().manual_seed(1)
    lengths = (torch.rand(5000, generator=generator).double() * 99 + 1).round()
    order = BucketedOrder(lengths, BUCKETS, 1500.0, 3)
    shares = [float(lengths[[*chain.from_iterable(window)]].sum()) for window in epoch_of(order, 1)]
    assert sum(shares) / len(shares) == pytest.approx(1500, rel=0.01)
    assert max(abs(each - 1500) for each in shares) <= 260
    assert len({tuple(order.sizes(step)) for step in range(20)}) > 10


@given(orders(300))
def test_the_order_depends_on_seed_and_epoch_alone(order):
    same = BucketedOrder(order.lengths, order.buckets, order.target_items, order.seed)
    assert epoch_of(order, 2) == epoch_of(same, 2)


def test_two_epochs_and_two_seeds_differ():
    lengths = torch.arange(200).double() % 100
    orders = [BucketedOrder(lengths, BUCKETS, 300.0, seed) for seed in (0, 1)]
    one, two, other = epoch_of(orders[0]), epoch_of(orders[0], 1), epoch_of(orders[1])
    assert one != two
    assert one != other
    # Not only in another turn: other samples meet, too.
    assert set(map(frozenset, chain(*one))) != set(map(frozenset, chain(*two)))


@given(orders(100, no_single=True))
def test_batch_norm_meets_a_single_sample_only_where_nothing_else_is_possible(order):
    if len(order.lengths) < 2:
        return
    for group, size in order.groups:
        assert len(group) > 1
        assert 1 in even(len(group), size) if size == 1 else True
        if size > 2:
            assert min(even(len(group), size)) > 1


@given(st.integers(1, 300), st.integers(1, 40))
def test_an_even_cut_has_no_rest(count, most):
    sizes = even(count, most)
    assert sum(sizes) == count
    assert len(sizes) == math.ceil(count / most)
    assert max(sizes) <= most
    assert max(sizes) - min(sizes) <= 1


@given(orders())
def test_a_plan_counts_the_steps_that_a_run_makes(order):
    values = sorted(order.lengths.tolist())
    mean = math.fsum(values) / len(values)
    if mean == 0:
        return
    known = LengthProfile(count=len(values), read=len(values), mean=mean, points=tuple(values))
    made = pieces(known, order.buckets, len(values))
    assert sum(piece.batches for piece in made) == sum(
        len(even(len(group), size)) for group, size in order.groups
    )


def test_a_sample_beyond_the_last_bucket_takes_the_room_it_needs():
    assert [size_of(x, BUCKETS) for x in (0, 20, 20.5, 100)] == [12, 12, 5, 2]
    assert size_of(200, ((10.0, 20), (100.0, 8))) == 2  # as with attention: a quarter
    assert size_of(1e9, BUCKETS) == 1
    lengths = torch.tensor([5.0, 99.0, 98.0, 97.0, 150.0, 151.0, 1000.0]).double()
    order = BucketedOrder(lengths, ((20.0, 9), (100.0, 4)), 100.0, 0)
    assert sorted(len(m) for m in chain(*epoch_of(order))) == [1, 1, 1, 1, 3]


def test_a_validation_set_goes_from_long_to_short():
    lengths = torch.tensor([60.0, 3.0, 30.0, 99.0, 61.0, 2.0]).double()
    order = BucketedOrder(lengths, BUCKETS, 100.0, 0)
    assert order.in_turn(lengths) == [[3, 4], [0], [2], [1, 5]]


# --- a whole run ---------------------------------------------------------------------------


def varied(**more):
    """40 sequences of 1 to 9 frames, 13 to validate on; the plan's buckets fit them."""
    frames = sequence_task().train.frames
    return sequence_task(length=lambda i: float(len(frames[i])), **more)


PLANNED = {"buckets": ((3.0, 8), (6.0, 4), (9.0, 2)), "micro_batch": 2, "target_items": 40.0}


def test_a_bucketed_run_resumes_to_the_bit(tmp_path):
    plan = make_plan(batch=PLANNED)
    whole = run(plan, varied(), tmp_path / "whole")
    cut = cut_up(plan, varied, tmp_path / "cut", [5, 11, 3])
    assert figures(cut) == figures(whole)
    assert digests(tmp_path / "cut") == digests(tmp_path / "whole")
    spread = sum(len(frames) for frames in sequence_task().train.frames)
    assert whole[0].steps_per_epoch == round(spread / 40)


def test_workers_change_nothing_in_a_bucketed_run(tmp_path):
    run(make_plan(batch=PLANNED), varied(), tmp_path / "none")
    plan = make_plan(batch=PLANNED, loader={"workers": 2})
    cut_up(plan, varied, tmp_path / "two", [7])
    assert digests(tmp_path / "two") == digests(tmp_path / "none")


def test_however_it_is_cut_a_bucketed_run_weighs_frames_alike(tmp_path):
    """One bucket of whole windows, and many small ones: the same mean loss on the same data."""
    seen = []
    for parts in (((9.0, 40),), PLANNED["buckets"]):
        batch = {**PLANNED, "buckets": parts, "target_items": 1e6}
        directory = tmp_path / str(len(parts))
        events = run(make_plan(batch=batch, train={"epochs": 4}), varied(), directory)
        seen.append([e.loss for e in events if e.name == "evaluated"])
    assert seen[0] == pytest.approx(seen[1], rel=1e-9)


def test_another_target_or_other_buckets_are_another_run(tmp_path):
    from autotrain.errors import AutotrainError

    run(make_plan(batch=PLANNED), varied(), tmp_path, max_steps=1)
    for change in ({"target_items": 41.0}, {"buckets": ((9.0, 2),)}, {"buckets": None}):
        with pytest.raises(AutotrainError, match="batch"):
            run(make_plan(batch={**PLANNED, **change}), varied(), tmp_path, resume=True)


def test_longer_samples_than_were_planned_for_are_told_once(tmp_path):
    batch = {**PLANNED, "buckets": ((3.0, 8), (6.0, 2))}
    events = run(make_plan(batch=batch), varied(), tmp_path)
    told = [e for e in events if e.name == "warned"]
    assert len(told) == 1
    assert "samples longer than the plan's longest, 6: " in told[0].message
    assert "up to 9" in told[0].message
    assert events[-1].reason == "finished"


def test_buckets_without_lengths_count_for_nothing(tmp_path):
    plain = run(make_plan(batch={"micro_batch": 2}), sequence_task(), tmp_path / "plain")
    odd = run(make_plan(batch=PLANNED), sequence_task(), tmp_path / "odd")
    assert figures(plain) == figures(odd)


def test_a_validation_set_of_its_own_comes_in_order_where_its_lengths_are_told(tmp_path):
    def longest_first(batch, **more):
        task = sequence_task(length=lambda i: float(i % 9 + 1), **more)
        plan = make_plan(batch=batch)
        return ordered(plan, data.split(task, plan), sequence_net())[1]

    def costs(batches):
        return [[index % 5 + 1 for index in batch] for batch in batches]

    own = {"valid_length": lambda i: float(i % 5 + 1)}
    for batch in ({}, PLANNED):
        in_order = longest_first(batch, **own)
        flat = [cost for part in costs(in_order) for cost in part]
        assert sorted(index for part in in_order for index in part) == [*range(13)]
        assert flat == sorted(flat, reverse=True)
        assert [index for part in longest_first(batch) for index in part] == [*range(13)]


def test_a_held_out_validation_set_is_cut_by_its_own_lengths(tmp_path):
    task = noisy_task(40, length=lambda i: float(i % 9 + 1))
    plan = make_plan(batch=PLANNED)
    parts = data.split(task, plan)
    costs = parts.valid_lengths
    assert costs.tolist() == [float(i % 9 + 1) for i in parts.valid.indices]
    events = train(plan, task, tmp_path, task_file=tmp_path / "task.py")
    *_, last = events
    assert last.reason == "finished"
    order, valid = ordered(plan, parts, NoisyNet())
    assert valid == order.in_turn(costs)
    assert len({len(micro_batch) for micro_batch in valid}) > 1
    assert data.split(noisy_task(40), plan).valid_lengths is None
