"""Randomness as a function of position, and generators left at rest by whom nobody draws from."""

import json
import random

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autotrain.run.seeds import GENERATORS, LOOKS, Draws, mixed

CPU = torch.device("cpu")
FROM = {
    "torch": lambda: float(torch.rand(())),
    "python": random.random,
    "numpy": lambda: float(numpy.random.rand()),
}


def steps(draws, first, last, draw):
    """What is drawn in these steps, a micro-batch each."""
    found = []
    for step in range(first, last):
        draws.before(step, 0)
        found.append(draw())
    return found


def settled(draws):
    """After as many looks as it takes to find that nobody draws."""
    for step in range(LOOKS):
        steps(draws, step, step + 1, lambda: None)
        assert all(draws.drawn.values())
        draws.look()
    assert not any(draws.drawn.values())
    return draws


@pytest.mark.parametrize("name", GENERATORS)
def test_who_draws_gets_a_function_of_the_position(name):
    """Whatever happened before, wherever it looks, whoever else draws between two steps."""
    draws, other = Draws(7, CPU), Draws(7, CPU)
    whole = steps(draws, 0, 9, FROM[name])
    parts = []
    for first in range(0, 9, 3):
        parts += steps(other, first, first + 3, FROM[name])
        other.look()
        [draw() for draw in FROM.values()]
    assert parts == whole
    assert len(set(whole)) == 9
    assert other.drawn == {each: each == name for each in GENERATORS}


def test_what_nobody_draws_from_is_left_at_rest():
    """No generator is touched again, and the state it rests in depends on the seed alone."""
    draws = settled(Draws(7, CPU))
    before = None
    for step in range(2, 5):
        draws.before(step, 0)
        now = [kind.state(CPU) for kind in GENERATORS.values()]
        assert before is None or now == before
        before = now
    again = Draws(7, CPU)
    again.load(draws.state())
    again.before(77, 0)
    assert [kind.state(CPU) for kind in GENERATORS.values()] == before


@pytest.mark.parametrize("name", GENERATORS)
def test_who_begins_to_draw_late_is_found_at_the_next_look(name):
    """A first draw comes from the state of rest, the same in a run that was resumed."""
    ends = []
    for resumed in (False, True):
        draws = settled(Draws(7, CPU))
        if resumed:
            kept, draws = draws.state(), Draws(7, CPU)
            random.seed(1), torch.manual_seed(1), numpy.random.seed(1)
            draws.load(kept)
        late = steps(draws, 4, 5, FROM[name])
        draws.look()
        ends.append(late + steps(draws, 5, 8, FROM[name]))
    assert ends[0] == ends[1]
    fresh = Draws(7, CPU)
    assert ends[0][1:] == steps(fresh, 5, 8, FROM[name])


@pytest.mark.parametrize("name", GENERATORS)
def test_who_draws_now_and_then_is_never_left_alone(name):
    """Found at one look, it is seeded for good, and looked at no more."""
    draws = Draws(7, CPU)
    steps(draws, 0, 1, FROM[name])
    draws.look()
    for step in range(1, LOOKS + 3):
        steps(draws, step, step + 1, lambda: None)
        draws.look()
    assert draws.drawn[name]
    late = settled(Draws(7, CPU))
    steps(late, 4, 5, FROM[name])
    late.look()
    for step in range(5, LOOKS + 8):
        steps(late, step, step + 1, lambda: None)
        late.look()
    assert late.drawn[name]


@settings(max_examples=60, deadline=None)
@given(
    begins=st.integers(0, 60), often=st.integers(1, 3), every=st.integers(1, 12),
    saves=st.sets(st.integers(0, 60), max_size=4), name=st.sampled_from([*GENERATORS]),
    micro_batches=st.integers(1, 3),
)  # fmt: skip
def test_a_save_changes_nothing_and_a_resume_draws_the_same(
    begins, often, every, saves, name, micro_batches
):
    """Whenever a model begins to draw, and however often; wherever a run is saved or goes on."""

    def walked(draws, first, kept=None):
        found = {}
        for step in range(first, 66):
            if step % every == 0:
                draws.look()
            if kept is not None and step in saves:
                kept[step] = json.loads(json.dumps(draws.state()))
                [draw() for draw in FROM.values()]
            for number in range(micro_batches):
                draws.before(step, number)
                if step >= begins and step % often == 0:
                    found[step, number] = FROM[name]()
        return found

    whole, kept = walked(Draws(7, CPU), 0), {}
    assert walked(Draws(7, CPU), 0, kept) == whole
    for step, state in kept.items():
        resumed = Draws(7, CPU)
        resumed.load(state)
        [draw() for draw in FROM.values()]
        assert walked(resumed, step) == {at: n for at, n in whole.items() if at[0] >= step}


def test_a_window_is_not_broken_off_where_its_draws_could_not_be_made_again():
    """Once what was at rest was drawn from, until a look has found it; the draws stay the same."""
    draws, other = settled(Draws(7, CPU)), settled(Draws(7, CPU))
    assert not draws.unsettled()
    drawn = steps(draws, 4, 5, FROM["torch"])
    assert draws.unsettled()
    assert drawn + steps(draws, 5, 7, FROM["torch"]) == steps(other, 4, 7, FROM["torch"])
    draws.look()
    assert not draws.unsettled()


def test_positions_have_seeds_of_their_own():
    found = {mixed(7, purpose, a, b) for purpose in range(3) for a in range(9) for b in range(9)}
    assert len(found) == 3 * 81
