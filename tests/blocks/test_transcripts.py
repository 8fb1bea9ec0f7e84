"""Which clips may be learned from, and which are held out."""

import logging
from pathlib import Path

import pytest
import soundfile

from autotrain.blocks.corpus import SHIPPED
from autotrain.blocks.layouts import Clip, speech_clips
from autotrain.blocks.transcripts import (
    Sides,
    clips_up_to,
    insist_on_both,
    long_enough,
    readable_texts,
    sides,
    within_units,
)
from autotrain.blocks.units import characters
from autotrain.errors import AutotrainError


def clips(*texts, split=""):
    return [Clip(Path(f"wavs/{i}.wav"), text, split=split) for i, text in enumerate(texts)]


def test_texts_are_normalised_and_those_without_words_named_and_skipped(caplog):
    given = [*clips(*["Good Morning!"] * 20, ""), Clip(Path("wavs/x.wav"), "?!")]
    with caplog.at_level(logging.WARNING):
        kept = readable_texts(given)
    assert [clip.text for clip in kept] == ["good morning"] * 20
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "skipped: wavs/20.wav: no transcript",
        "skipped: wavs/x.wav: no transcript but signs",
    ]


def test_a_text_that_cannot_be_read_is_named_with_its_file(caplog):
    with caplog.at_level(logging.WARNING):
        assert len(readable_texts(clips(*["to the sea"] * 20, "in the 1990s"))) == 20
    assert "wavs/20.wav: numbers that are not spelled out: '1990s'" in caplog.text


def test_numbers_of_a_language_without_words_here_stay_and_that_is_said(caplog):
    with caplog.at_level(logging.WARNING):
        kept = readable_texts(clips("um 7 Uhr", "es ist spät", "Straße"))
        assert readable_texts(clips("um 7 Uhr", "7"), "en")[0].text == "um seven uhr"
    assert [clip.text for clip in kept] == ["um 7 uhr", "es ist spät", "straße"]
    (said,) = (record.getMessage() for record in caplog.records)
    assert said.startswith("1 of 3 transcripts have numbers in digits")


def test_letters_outside_the_units_are_named_with_the_file(caplog):
    units = characters(["abc "])
    with caplog.at_level(logging.WARNING):
        assert len(within_units(clips(*["a b"] * 20, "a züb"), units)) == 20
    assert "wavs/20.wav: not among the 4 characters: 'z', 'ü'" in caplog.text
    with pytest.raises(AutotrainError, match=r"3 of 4 transcripts are damaged: wavs/0.wav: not"):
        within_units(clips("x", "y", "z", "a"), units)


def test_texts_longer_than_the_frames_are_named_and_skipped(caplog):
    """Two equal letters need a frame between them."""
    units, given = characters(["abc"]), clips(*["abc"] * 20, "aabb")
    with caplog.at_level(logging.WARNING):
        assert len(long_enough(given, units, lambda clip: 5)) == 20
    assert "wavs/20.wav: 4 units need 6 frames, it has 5" in caplog.text
    assert len(long_enough(given, units, lambda clip: 6)) == 21


def test_clips_that_are_too_long_are_named_and_skipped(caplog):
    given = speech_clips(SHIPPED)
    seconds = {clip: soundfile.info(clip.path).duration for clip in given}
    longest = max(given, key=seconds.__getitem__)
    with caplog.at_level(logging.WARNING):
        kept = clips_up_to(seconds[longest] - 0.01, given)
    assert kept == {clip: seconds[clip] for clip in given if clip != longest}
    assert f"{longest.path}: {seconds[longest]:.1f} s, over" in caplog.text
    with pytest.raises(AutotrainError, match=r"20 of 20 clips are damaged.* s, over 0.1 s"):
        clips_up_to(0.1, given)


def test_named_splits_are_kept_and_the_rest_is_left_out_aloud(caplog):
    given = [*clips("a", split="train"), *clips("b", split="valid"), *clips("c", split="test")]
    assert [[c.text for c in side] for side in sides(given, 0.5)] == [["a"], ["b"], ["c"]]
    with caplog.at_level(logging.WARNING):
        assert sides([*given, *clips("d", "e")], 0.5) == sides(given, 0.5)
    assert "2 of 5 clips are in no split, and left out" in caplog.text


def test_without_a_validation_split_no_sentence_is_on_both_sides():
    given = clips(*[f"sentence {i % 40}" for i in range(200)])
    train, valid, test = sides(given, 0.25)
    assert (len(train), len(valid), test) == (150, 50, [])
    assert not {clip.text for clip in train} & {clip.text for clip in valid}
    assert sides(list(reversed(given)), 0.25).valid == list(reversed(valid))
    assert len(sides(clips("", "", "", ""), 0.25).valid) == 1


def test_of_one_sentence_clips_are_held_out_and_that_is_said(caplog):
    with caplog.at_level(logging.WARNING):
        train, valid, _ = sides(clips(*["yes"] * 10), 0.2)
    assert (len(train), len(valid)) == (8, 2)
    assert "all clips say the same" in caplog.text
    with pytest.raises(AutotrainError, match=r"wavs/0\.wav: one clip, 2 are the least"):
        sides(clips("yes"), 0.2)


def test_a_side_that_lost_all_its_clips_is_refused():
    whole = sides(clips(*"abcdefgh"), 0.25)
    assert insist_on_both(whole) is whole
    with pytest.raises(AutotrainError, match="no clip is left to validate on"):
        insist_on_both(whole._replace(valid=[]))
    with pytest.raises(AutotrainError, match="no clip is left to train on"):
        insist_on_both(Sides([], whole.valid, []))


def test_a_corpus_without_training_clips_is_refused():
    with pytest.raises(AutotrainError, match="none of 1 clips is for training"):
        sides(clips("a", split="test"), 0.2)
