"""The simulated caching allocator: its rules by hand, its invariants by hypothesis."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from autotrain.plan.allocator import Allocator

KIB, MIB = 1 << 10, 1 << 20


@st.composite
def tapes(draw, *, emptied=False):
    """Births of small, middling and large storages, and deaths of living ones."""
    sizes = st.one_of(st.integers(1, 4 * KIB), st.integers(1, 3 * MIB), st.integers(MIB, 60 * MIB))
    tape, living, births = [], [], 0
    for _ in range(draw(st.integers(1, 60))):
        if living and draw(st.integers(0, 2)) == 0:
            tape.append(-1 - living.pop(draw(st.integers(0, len(living) - 1))))
        else:
            tape.append(draw(sizes))
            living.append(births)
            births += 1
    return tape + [-1 - number for number in living] if emptied else tape


def played(*tape, **how):
    allocator = Allocator(**how)
    assert allocator.run(tape)
    return allocator


# --- by hand, from c10/cuda/CUDACachingAllocator.cpp -----------------------------------------


def test_requests_are_rounded_to_512_bytes():
    assert played(1).allocated == 512
    assert played(513, 512).allocated == 1536


def test_up_to_one_mib_shares_segments_of_two():
    assert played(MIB).reserved == 2 * MIB
    assert played(MIB, MIB).reserved == 2 * MIB
    assert played(MIB, MIB, 1).reserved == 4 * MIB


def test_middling_requests_share_segments_of_twenty():
    assert played(MIB + 1).reserved == 20 * MIB
    assert played(9 * MIB, 9 * MIB).reserved == 20 * MIB
    assert played(9 * MIB, 9 * MIB, 9 * MIB).reserved == 40 * MIB


def test_large_requests_get_a_segment_of_their_own_in_steps_of_two_mib():
    assert played(10 * MIB).reserved == 10 * MIB
    assert played(10 * MIB + 1).reserved == 12 * MIB
    assert played(33 * MIB, 9 * MIB).reserved == 54 * MIB


def test_a_large_block_is_split_only_where_more_than_one_mib_is_left():
    # 20 MiB are free; 19 leave 1 MiB, which stays with the block and serves nobody.
    kept = played(20 * MIB, -1, 19 * MIB)
    assert kept.allocated == 20 * MIB
    split = played(20 * MIB, -1, 18 * MIB)
    assert split.allocated == 18 * MIB


def test_the_smallest_block_that_is_large_enough_is_taken():
    # Freed: 40 and 12 MiB. 11 MiB goes into the 12, so that the 40 still serves 40.
    assert played(40 * MIB, 12 * MIB, -1, -2, 11 * MIB, 40 * MIB).reserved == 52 * MIB


def test_of_equal_blocks_the_lowest_address_is_taken():
    # A, B, C lie in one segment; A and C are freed, a newcomer takes A: B and C's hole remain.
    allocator = Allocator()
    a, b, c = (allocator.take(6 * MIB) for _ in range(3))
    allocator.release(c)
    allocator.release(a)
    assert allocator.take(6 * MIB).address == a.address
    assert b.address == a.address + 6 * MIB


def test_neighbours_join_again_when_freed():
    assert played(6 * MIB, 6 * MIB, 6 * MIB, -1, -3, -2, 20 * MIB).reserved == 20 * MIB


def test_blocks_of_two_segments_never_join():
    assert played(10 * MIB, 10 * MIB, -1, -2, 20 * MIB).reserved == 40 * MIB


def test_at_its_cap_it_gives_back_whole_free_segments_and_tries_again():
    tape = (10 * MIB, 10 * MIB, -1, -2, 20 * MIB)
    capped = played(*tape, cap=20 * MIB)
    assert (capped.retries, capped.reserved_peak) == (1, 20 * MIB)
    assert not Allocator(20 * MIB - 1).run(tape)


def test_a_segment_of_which_a_part_lives_is_not_given_back():
    # 2 MiB live in the first segment of 20: with 20 more it takes 40.
    tape = (2 * MIB, 18 * MIB, -2, 20 * MIB)
    assert not Allocator(39 * MIB).run(tape)
    assert Allocator(40 * MIB).run(tape)


def test_an_expandable_segment_grows_instead_of_leaving_holes():
    tape = (10 * MIB, 10 * MIB, -1, -2, 20 * MIB)
    assert played(*tape).reserved == 40 * MIB
    assert played(*tape, expandable=True).reserved == 20 * MIB
    assert played(10 * MIB, 10 * MIB, -2, 30 * MIB, expandable=True).reserved == 40 * MIB


def test_an_expandable_segment_at_its_cap_gives_back_its_free_end():
    # The large pool grew to 40 MiB and is free; the small one then wants 2 MiB of 40.
    tape = (40 * MIB, -1, MIB)
    assert played(*tape, expandable=True, cap=40 * MIB).reserved == 2 * MIB
    # Here what is given back is the very block that was to grow.
    tape = (KIB, -1, 10 * MIB, -2, 40 * MIB)
    assert played(*tape, expandable=True, cap=40 * MIB).reserved == 40 * MIB


# --- always ------------------------------------------------------------------------------------


@given(tapes(), st.booleans())
def test_what_is_reserved_covers_what_is_asked_for(tape, expandable):
    allocator = Allocator(expandable=expandable)
    now = most = 0
    sizes = [entry for entry in tape if entry >= 0]
    for entry in tape:
        now += entry if entry >= 0 else -sizes[-1 - entry]
        most = max(most, now)
    assert allocator.run(tape)
    assert most <= allocator.allocated_peak <= allocator.reserved_peak
    assert allocator.reserved_peak % (2 * MIB) == 0


@given(tapes(emptied=True))
def test_freeing_everything_leaves_every_segment_whole(tape):
    allocator = Allocator()
    assert allocator.run(tape)
    assert allocator.allocated == 0
    assert all(b.before is None and b.after is None for b in allocator.blocks.values())
    assert sum(block.size for block in allocator.blocks.values()) == allocator.reserved


@given(tapes(), st.booleans())
def test_blocks_never_overlap(tape, expandable):
    allocator = Allocator(expandable=expandable)
    living, taken = {}, 0
    for entry in tape:
        if entry >= 0:
            living[taken] = allocator.take(entry)
            taken += 1
        else:
            allocator.release(living.pop(-1 - entry))
    ends = sorted((b.address, b.address + b.size) for b in living.values())
    free = [(b.address, b.address + b.size) for b in allocator.blocks.values()]
    every = sorted(ends + free)
    assert all(a[1] <= b[0] for a, b in pairwise(every))
    assert sum(end - start for start, end in every) == allocator.reserved


@settings(max_examples=50)
@given(tapes())
def test_it_runs_under_its_own_peak_and_needs_no_less_than_it_allocates(tape):
    free = played(*tape)
    capped = Allocator(free.reserved_peak)
    assert capped.run(tape)
    assert capped.reserved_peak <= free.reserved_peak
    assert not Allocator(free.allocated_peak - 1).run(tape)


@given(tapes(), st.integers(0, 200 * MIB))
def test_a_cap_is_kept(tape, cap):
    allocator = Allocator(cap)
    allocator.run(tape)
    assert allocator.reserved_peak <= cap
