"""`--within 6h`, `--for 5usd` and `--price 0.35`, as a person may spell them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotrain.commands.limits import as_settings, dollars, seconds
from autotrain.errors import UsageError
from autotrain.goal import parse_settings


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("6h", 21_600), ("90m", 5_400), ("1d12h", 129_600), ("45min", 2_700), ("3600s", 3_600),
        ("1.5h", 5_400), ("2 h 30 min", 9_000), (" 1 Day ", 86_400), ("0.5d", 43_200),
        ("1w", 604_800), ("2 hours 5 seconds", 7_205), (".5h", 1_800),
    ],
)  # fmt: skip
def test_a_length_of_time_is_read(text, expected):
    assert seconds(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "6", "h", "6x", "-6h", "0h", "6h!", "6hh", "1m30h", "6h6h", "6h 6", "six hours", "1e3s",
     "9" * 400 + "h", "6:00", "5usd"],
)  # fmt: skip
def test_a_length_of_time_that_is_none_is_named(text):
    with pytest.raises(UsageError, match="not a length of time") as error:
        seconds(text)
    assert f"--within {text}" in error.value.message
    assert "6h" in error.value.hint


def test_a_bare_number_is_asked_for_its_unit():
    with pytest.raises(UsageError, match=r"--within 6: not a length of time \(of what\?\)"):
        seconds("6")


@given(st.integers(0, 9), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_parts_of_a_time_add_up(days, hours, minutes, rest):
    whole = ((days * 24 + hours) * 60 + minutes) * 60 + rest
    if whole:
        assert seconds(f"{days}d{hours}h{minutes}m{rest}s") == whole


@pytest.mark.parametrize("text", ["5usd", "$5", "5 USD", "5$", "5", "5.0 dollars", "usd 5", "5/h"])
def test_an_amount_of_dollars_is_read(text):
    assert dollars(text, "--for") == 5


def test_an_hour_may_cost_nothing_but_nothing_cannot_be_spent():
    assert as_settings((), None, None, "0") == ("train.price_per_hour=0.0",)
    with pytest.raises(UsageError, match="--for 0: not an amount"):
        as_settings((), None, "0", None)


@pytest.mark.parametrize("text", ["", "5eur", "-5", "0", "5,0", "free", "nan", "inf", "1e99"])
def test_an_amount_that_is_none_is_named(text):
    with pytest.raises(UsageError, match="not an amount of dollars") as error:
        dollars(text, "--price")
    assert f"--price {text}" in error.value.message
    assert "another currency" in error.value.hint


def test_the_flags_are_settings_of_the_plan():
    said = as_settings(["train.epochs=3"], "6h", "5usd", "$0.35")
    settings, options = parse_settings(list(said))
    assert settings == {
        "train.epochs": 3,
        "train.within_seconds": 21_600,
        "train.spend_dollars": 5,
        "train.price_per_hour": 0.35,
    }
    assert options == {}
    assert as_settings(("a=1",), None, None, None) == ("a=1",)


def test_a_flag_and_its_setting_are_two_ways_to_say_the_same():
    with pytest.raises(UsageError, match=r"--within, train\.within_seconds: two ways"):
        as_settings(["train.within_seconds=9"], "6h", None, None)
