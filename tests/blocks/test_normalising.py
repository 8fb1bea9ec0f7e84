"""Transcripts as they are spoken."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotrain.blocks.normalising import cardinal, normalised
from autotrain.errors import AutotrainError


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("  He said:\t“Don’t!” ", "he said don't"),
        ("rock 'n' roll — the boys' well-known", "rock n roll the boys well known"),
        ("Ä ÉTÉ cafe\u0301", "ä été café"),
        ("আমি প্রতিদিন সকালে চা খাই।", "আমি প্রতিদিন সকালে চা খাই"),
        ("covid-19 at 10:30", "covid nineteen at ten thirty"),
        ("1,024 of 2.50 and -3, or 007", "one thousand twenty four of two point five zero and "
         "minus three or zero zero seven"),
        ("the 1st, 2nd, 12th, 20th and 143rd", "the first second twelfth twentieth and one hundred "
         "forty third"),
        ("5 cats. 6 dogs.", "five cats six dogs"),
    ],
)  # fmt: skip
def test_a_text_becomes_its_words(text, spoken):
    assert normalised(text) == spoken


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("in the 1990s", "'1990s'"), ("1/2 cup", "'1/2'"), ("version 3.5.2 now", "'3.5.2"),
        ("10000000000000000", "'10000000000000000'"), ("৩ টা", "'৩'"), ("1,23 left", "'1,23'"),
        ("50 % of it", "'%'"), ("R&B", "'&'"), ("it cost €5", "'€'"), ("½ cup", "'½'"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_as_it_stands_is_named(text, named):
    with pytest.raises(AutotrainError, match=named):
        normalised(text)


def test_each_part_can_be_left_out():
    assert normalised("Is it Anna's?", case="keep", punctuation="keep") == "Is it Anna's?"
    assert normalised("Is it?", case="upper") == "IS IT"
    with pytest.raises(AutotrainError, match=r"numbers .*: '7'"):
        normalised("at 7", numbers="refuse")


@given(st.integers(0, 10**15 - 1))
def test_words_of_a_number_say_that_number(number):
    """Read back by a reader of its own."""
    words = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9}
    words |= {"trillion": 10**12} | {cardinal(n): n for n in [*range(20), *range(20, 100, 10)]}
    total = group = 0
    for word in cardinal(number).split():
        value = words[word]
        if value >= 1000:
            total, group = total + group * value, 0
        elif value == 100:
            group *= 100
        else:
            group += value
    assert total + group == number


@given(st.text())
def test_any_text_is_normalised_once_and_for_all_or_refused(text):
    try:
        once = normalised(text)
    except AutotrainError:
        return
    assert normalised(once) == once
    assert once == " ".join(once.split())
