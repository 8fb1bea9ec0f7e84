import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from autotrain.units import GIB, KIB, MIB, bytes_from, bytes_text, count_text, seconds_text

BYTES = {"B": 1, "KiB": KIB, "MiB": MIB, "GiB": GIB, "TiB": 1024 * GIB}
COUNTS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1, "min": 60, "h": 3600, "d": 86400}


def back(text: str, units: dict[str, float]) -> float:
    words = text.split()
    pairs = zip(words[::2], words[1::2] or [""], strict=True)
    return sum(float(value) * units[unit] for value, unit in pairs)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("700MiB", 734_003_200), ("32GB", 32 * 10**9), ("1.5 gib", 3 << 29), ("8 B", 8),
        (".5tb", 5 * 10**11), ("10kB", 10_000), ("10KiB", 10_240), (" 3 MB ", 3_000_000),
    ],
)  # fmt: skip
def test_a_size_is_read_as_people_write_it(text, size):
    assert bytes_from(text) == size


@pytest.mark.parametrize("text", ["32", "32G", "iB", "3iB", "-3MB", "3 MBs", "1e9B", "GB", "1,5GB"])
def test_a_size_without_a_unit_of_bytes_is_none(text):
    assert bytes_from(text) is None


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"), (999, "999 B"), (1000, "0.977 KiB"), (1536, "1.5 KiB"), (8 * GIB, "8 GiB"),
        (1023.7 * KIB, "1 MiB"), (999.9 * KIB, "0.976 MiB"), (-2 * MIB, "-2 MiB"),
        (4000 * 1024 * GIB, "4000 TiB"),
    ],
)  # fmt: skip
def test_bytes_read_in_binary_units(count, text):
    assert bytes_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"), (3e-6, "3 us"), (0.0042, "4.2 ms"), (0.9999, "1 s"), (1.5, "1.5 s"),
        (59.99, "1 min 0 s"), (95, "1 min 35 s"), (3599.7, "1 h 0 min"), (7300, "2 h 1 min"),
        (90000, "1 d 1 h"), (-0.5, "-500 ms"), (math.inf, "inf s"), (math.nan, "nan s"),
    ],
)  # fmt: skip
def test_seconds_read_as_a_person_says_them(seconds, text):
    assert seconds_text(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (12, "12"), (999.9, "1 k"), (4_700_000, "4.7 M"), (3e18, "3000 P")],
)
def test_counts_read_in_decimal_units(count, text):
    assert count_text(count) == text


@settings(deadline=None)
@given(st.integers(0, 1 << 60))
@example(999 * MIB + 999 * KIB)
def test_the_text_is_within_half_a_percent_and_has_no_exponent(count):
    for text, units in ((bytes_text(count), BYTES), (count_text(count), COUNTS)):
        assert "e" not in text
        assert math.isclose(back(text, units), count, rel_tol=0.0051)


@settings(deadline=None)
@given(st.floats(1e-6, 1e8))
@example(0.99951e-3)
def test_a_duration_is_within_half_a_percent_up_to_a_minute_and_a_unit_after_it(seconds):
    text = seconds_text(seconds)
    slack = seconds * 0.0051 if seconds < 59.95 else 0.5 if seconds < 3599.5 else 3600
    assert "e" not in text
    assert abs(back(text, SECONDS) - seconds) <= slack
