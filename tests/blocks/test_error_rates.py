"""Error rates as sums: Levenshtein's distance, empty texts, any cut of a batch, and the bands."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotrain.blocks.error_rates import (
    BANDS,
    band,
    character_errors,
    recognised,
    word_errors,
    words_of,
)

TEXT = st.lists(st.sampled_from(["a", "b", "see you", "", "é"]), max_size=6)


def distance(reference, hypothesis):
    """The textbook's table."""
    row = list(range(len(hypothesis) + 1))
    for i, meant in enumerate(reference, 1):
        before, row[0] = row[0], i
        for j, said in enumerate(hypothesis, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (meant != said))
    return row[-1]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT), max_size=5))
def test_errors_are_levenshteins_distance_over_words_summed(pairs):
    """Words may hold spaces, or nothing."""
    references, hypotheses = [list(side) for side in zip(*pairs, strict=True)] or ([], [])
    found = word_errors(references, hypotheses)
    assert found == (sum(distance(r, h) for r, h in pairs), sum(len(r) for r in references))
    singly = [word_errors([r], [h]) for r, h in pairs]
    assert found == (sum(e for e, _ in singly), sum(n for _, n in singly))


def test_a_string_is_its_words_and_a_character_error_counts_spaces():
    assert word_errors(["the  cat sat"], ["the cat sat down"]) == (1, 3)
    assert word_errors(["the cat"], [["the", "cat"]]) == (0, 2)
    assert character_errors([" ab c "], ["abc"]) == (1, 4)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("می\u200cخواهم به خانه", ["می\u200cخواهم", "به", "خانه"]),
        ("क्\u200dया आप", ["क्\u200dया", "आप"]),
        ("안녕 세상", ["안녕", "세상"]),
        ("我有3本 iphone書", ["我", "有", "3", "本", "iphone", "書"]),
        ("コーヒー", ["コ", "ー", "ヒ", "ー"]),
        ("สวัสดี", ["ส", "วั", "ส", "ดี"]),
    ],
)
def test_a_character_is_a_word_where_a_script_has_no_spaces(text, words):
    assert words_of(text) == words


def test_one_wrong_character_of_chinese_is_not_a_wrong_sentence():
    assert word_errors(["今天天气很好"], ["今天天汽很好"]) == (1, 6)


def test_all_that_is_said_of_nothing_is_an_error():
    assert word_errors(["", "a"], ["b c", ""]) == (3, 1)
    assert word_errors([[]], [[]]) == (0, 0)
    assert word_errors([], []) == (0, 0)


def test_references_and_hypotheses_go_in_pairs():
    with pytest.raises(ValueError, match="2 references and 1 hypotheses"):
        word_errors(["a", "b"], ["a"])


def test_figures_of_a_recogniser_tell_what_is_stuck():
    said = [["go"] * 9, ["a", "b"]]
    assert recognised([["a"], ["a", "c"]], said) == {"wer": (10, 3), "repeated": (1, 2)}


@pytest.mark.parametrize(
    ("rate", "name"),
    [
        (0.0, "production"), (0.15, "production"), (0.151, "usable"), (0.25, "usable"),
        (0.3, "rough"), (0.5, "rough"), (0.51, "early"), (1.0, "early"), (1.01, "stop and look"),
        (9.0, "stop and look"), (float("nan"), "stop and look"),
    ],
)  # fmt: skip
def test_bands(rate, name):
    assert band(rate).name == name
    assert [each.most for each in BANDS] == sorted(each.most for each in BANDS)
