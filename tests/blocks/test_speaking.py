"""From a text to phonemes, from spectra to a WAV, and a vocoder of one's own."""

import gc

import pytest

from autotrain.blocks.corpus import espeak
from autotrain.blocks.speaking import Wish, phonemes_of, read_wish, sentences_of
from autotrain.errors import AutotrainError

needs_espeak = pytest.mark.skipif(not espeak.is_here(), reason="espeak-ng is not installed")


def test_a_text_may_say_how_it_is_to_be_spoken():
    assert read_wish(" Good day. ") == Wish("Good day.")
    given = "[voice=en-us+f2 speed=1.5 pitch=-3 energy=0.5] Good day."
    assert read_wish(given) == Wish("Good day.", "en-us+f2", 1.5, -3.0, 0.5)
    assert read_wish("[language=de] Guten Tag.") == Wish("Guten Tag.", language="de")
    assert read_wish("[] Good [day].") == Wish("Good [day].")


@pytest.mark.parametrize("given", ["", " \n", "[speed=1.2]", "[voice=me] "])
def test_an_empty_text_is_refused(given):
    with pytest.raises(AutotrainError, match="empty text"):
        read_wish(given)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("[speed=9] a", r"\[speed=9\] is no number from 0.25 to 4"),
        ("[pitch=high] a", r"\[pitch=high\]"),
        ("[energy=nan] a", r"\[energy=nan\]"),
        ("[tempo=1] a", r"\[tempo=1\] is no wish"),
        ("[text=1] a", r"\[text=1\] is no wish"),
        ("[voice=] a", r"\[voice=\] is no wish"),
    ],
)
def test_wishes_that_cannot_be_met_are_named(given, named):
    with pytest.raises(AutotrainError, match=named):
        read_wish(given)


def test_sentences_are_spoken_one_at_a_time():
    assert sentences_of("Who? Me; 3.5 m. Yes!") == ["Who?", "Me;", "3.5 m.", "Yes!"]
    assert sentences_of("Yes! ...") == ["Yes!"]
    assert sentences_of("...") == ["..."]
    assert sentences_of("वह गया। मैं हूँ॥") == ["वह गया।", "मैं हूँ॥"]
    assert sentences_of("你好。今天很好！") == ["你好。", "今天很好！"]
    assert sentences_of("چطوری؟ خوبم.") == ["چطوری؟", "خوبم."]


@needs_espeak
def test_phonemes_are_those_of_a_corpus_of_that_voice():
    by_name, by_next = (phonemes_of("Six horses.", v) for v in (["en-us"], ["anybody", "en-us"]))
    assert by_name == by_next
    assert [p for p in by_name if p != "_"][:4] == ["s", "I", "k", "s"]
    with pytest.raises(AutotrainError, match="no voice anybody or nobody"):
        phonemes_of("Six.", ["anybody", "nobody"])
    with pytest.raises(AutotrainError, match="nothing is spoken"):
        phonemes_of("...", ["en-us"])


def test_without_the_library_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setattr(espeak, "LIBRARIES", ("no-such-library",))
    monkeypatch.setattr(espeak.ctypes.util, "find_library", lambda name: None)
    from autotrain.blocks import speaking

    speaking._espeak.cache_clear()
    with pytest.raises(AutotrainError, match="not installed") as caught:
        phonemes_of("Six.", ["en-us"])
    assert "apt-get install -y espeak-ng" in caught.value.hint


@needs_espeak
def test_phonemes_are_read_on_after_somebody_else_used_the_library():
    before = phonemes_of("Six horses.", ["en-us"])
    espeak.Espeak().say("One.", espeak.Manner("en-us+f2"))
    gc.collect()
    assert phonemes_of("Six horses.", ["en-us"]) == before
