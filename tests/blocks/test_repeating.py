"""Outputs that are stuck are told from those that say a thing twice."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotrain.blocks.repeating import is_loop, repeated_share, without_loops

WORDS = [f"w{i}" for i in range(60)]


@pytest.mark.parametrize(
    "text",
    [
        "the the the the",
        "so I said the cat the cat the cat the cat the cat",
        "a b c a b c a b c a b c",
        "well " + "no no yes " * 5,
        "x y z " * 4 + "x y",
        "and so it went on and on until the very end of that day " * 4,
    ],
)
def test_loops(text):
    assert is_loop(text.split())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "the",
        "no no no",
        "that was very very very good of you",
        "one two three one two three four five six one two three",
        "I know I know but what shall I say when they ask",
        "bye bye bye bye said the child and then we all went home at last",
    ],
)
def test_ordinary_outputs(text):
    assert not is_loop(text.split())


def test_the_share_is_a_sum_and_a_count():
    assert repeated_share([["a"] * 9, ["a", "b"], [], [1, 2] * 6]) == (2, 4)
    assert repeated_share([]) == (0, 0)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=8), st.integers(4, 9), st.data())
def test_whatever_repeats_to_the_end_is_a_loop(phrase, copies, data):
    """A beginning as long as what follows, and the last copy broken off."""
    begin = data.draw(st.lists(st.integers(10, 99), max_size=len(phrase) * copies))
    torn = data.draw(st.integers(0, len(phrase)))
    assert is_loop([*begin, *(phrase * copies), *phrase[:torn]])


@given(st.lists(st.integers(), unique=True, max_size=50))
def test_tokens_that_are_all_different_never_are(tokens):
    assert not is_loop(tokens)


def test_random_texts_are_not_loops():
    draw = random.Random(0)
    outputs = [draw.choices(WORDS, k=draw.randrange(1, 30)) for _ in range(2000)]
    assert repeated_share(outputs)[0] == 0


@given(st.lists(st.integers(0, 2), max_size=40))
def test_without_loops_nothing_else_is_lost_and_none_is_left(tokens):
    kept = without_loops(tokens)
    assert is_loop(kept) is False or is_loop(without_loops(kept)) is False
    assert set(kept) == set(tokens)
    if not any(_repeats_at(tokens, at) for at in range(len(tokens))):
        assert kept == tokens


def _repeats_at(tokens, at):
    return any(
        tokens[at : at + 4 * n] == tokens[at : at + n] * 4
        for n in range(1, (len(tokens) - at) // 4 + 1)
    )


def test_a_phrase_that_is_stuck_is_kept_once():
    assert without_loops(
        ["so", "I", "the", "cat", "the", "cat", "the", "cat", "the", "cat", "sat"]
    ) == ["so", "I", "the", "cat", "sat"]
    assert without_loops(["no", "no", "no"]) == ["no", "no", "no"]
    assert without_loops([1] * 100 + [2]) == [1, 2]
