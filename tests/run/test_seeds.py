"""Randomness as a function of position, and generators left at rest by whom nobody draws from."""

import random

import numpy
import pytest
import torch

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


def test_positions_have_seeds_of_their_own():
    found = {mixed(7, purpose, a, b) for purpose in range(3) for a in range(9) for b in range(9)}
    assert len(found) == 3 * 81
