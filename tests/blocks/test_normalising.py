"""Transcripts as they are spoken."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotrain.blocks.english_numbers import cardinal
from autotrain.blocks.normalising import language_of, normalised
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
    assert normalised(text, language="en") == spoken


@pytest.mark.parametrize(
    ("language", "text", "spoken"),
    [
        ("fa", "می\u200cخواهم به خانه\u200cی شما بیایم، ساعت ۱۰:۳۰!",
         "می\u200cخواهم به خانه\u200cی شما بیایم ساعت ۱۰:۳۰"),
        ("fa", "\u200fکتـــاب\u200c ها \u202bخوب\u202c", "کتاب ها خوب"),
        ("ar", "ﺍﻟﺴﻼﻡ", "السلام"),
        ("hi", "क्\u200dया आप दिल्ली जा रहे हैं?", "क्\u200dया आप दिल्ली जा रहे हैं"),
        ("hi", "३.५ किलो", "३.५ किलो"),
        ("bn", "র\u200d্যাব।", "র\u200d্যাব"),
        ("ml", "അവന്\u200d പോയി", "അവന്\u200d പോയി"),
        ("tr", "IŞIK, İstanbul’da Iğdır", "ışık istanbul'da ığdır"),
        ("az", "I\u0307LK", "ilk"),
        ("de", "Die STRASSE, die Straße: ÄÖÜ", "die strasse die straße äöü"),
        ("de-AT", "Zusammen\u00adhang um 7", "zusammenhang um 7"),
        ("fr", "L’eau d’aujourd’hui, « Œuvre »; où ça?", "l'eau d'aujourd'hui œuvre où ça"),
        ("fr", "-3 ou \u22123, de 10-20, 1,5 et 1.990.", "-3 ou -3 de 10 20 1,5 et 1.990"),
        ("zh", "你好，世界！二〇二〇年ＡＢＣ１２３", "你好 世界 二〇二〇年abc123"),
        ("ja", "ﾃﾞｰﾀ、コーヒー", "データ コーヒー"),
        ("th", "สวัสดี\u200bครับ", "สวัสดี ครับ"),
        ("he", "צה״ל", "צה״ל"),
        ("ca", "col·legi · l'any", "col·legi l'any"),
        ("uz", "o‘zbek", "o'zbek"),
        ("el", "ΟΔΥΣΣΕΥΣ", "οδυσσευς"),
        ("", "İYİ ❤\ufe0f gün", "iyi gün"),
    ],
)  # fmt: skip
def test_letters_and_joiners_of_any_language_stay(language, text, spoken):
    assert normalised(text, language=language) == spoken


def test_upper_case_is_the_languages_too():
    assert normalised("ışık iyi", language="tr", case="upper") == "IŞIK İYİ"


@given(st.text(), st.sampled_from(["", "en", "tr", "fa"]))
def test_what_is_normalised_stays_as_it_is_and_keeps_its_letters(text, language):
    try:
        once = normalised(text, language=language)
    except AutotrainError:
        return
    assert normalised(once, language=language) == once
    assert once == " ".join(once.split())
    lost = {c for c in text if c.isalpha()} if not once else set()
    assert not lost - {"\u0640"}


def test_a_language_is_told_by_many_texts():
    assert language_of(["The old man went to the sea.", "It is late, and cold."]) == "en"
    assert language_of(["Ilık bir gün", "Kapıyı açtı"]) == "tr"
    assert language_of(["Der alte Mann ging ans Meer."] * 5) == ""
    assert language_of(["seven", "eight"]) == ""
    assert language_of([]) == ""


def test_what_is_no_code_of_a_language_is_refused():
    with pytest.raises(AutotrainError, match=r"language 'turkish' is no code"):
        normalised("a", language="turkish")


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
        normalised(text, language="en")


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
