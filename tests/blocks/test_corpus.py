"""Speech that espeak-ng makes: the same bytes each time, aligned to a sample."""

import hashlib
import json
import os
import subprocess
import sys
from itertools import islice

import numpy as np
import pytest
import soundfile

from autotrain.blocks.alignments import read_alignment
from autotrain.blocks.corpus import SHIPPED
from autotrain.blocks.corpus import espeak as es
from autotrain.blocks.corpus.__main__ import main
from autotrain.blocks.corpus.making import heard, resampled
from autotrain.blocks.corpus.sentences import key, sentences, side
from autotrain.blocks.layouts import data_kind, speech_clips
from autotrain.blocks.normalising import normalised
from autotrain.blocks.pitch import pitch

needs_espeak = pytest.mark.skipif(not es.is_here(), reason="needs espeak-ng")
TEXT = "Anna borrowed the old yellow violin, and the moon rose over many lonely miles."


def command(*arguments):
    return [sys.executable, "-m", "autotrain.blocks.corpus", *map(str, arguments)]


def digests(folder):
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.rglob("*")
        if file.is_file()
    }


# --- sentences ------------------------------------------------------------------------------


def test_sentences_follow_from_the_seed_and_none_comes_twice():
    first = list(islice(sentences(0), 3000))
    assert first[:100] == list(islice(sentences(0), 100))
    assert first[:100] != list(islice(sentences(1), 100))
    assert len({key(s.text) for s in first}) == 3000
    assert all(normalised(s.text) == key(s.text) for s in first)


def test_what_is_held_out_of_one_corpus_is_in_no_others_training():
    held = {key(s.text) for s in islice(sentences(0), 3000) if s.split != "train"}
    assert len(held) == 300
    for seed in range(1, 4):
        trained = {key(s.text) for s in islice(sentences(seed), 3000) if s.split == "train"}
        assert not held & trained
    assert all(side(text) != "train" for text in held)
    assert side("The  WORDS, alone!") == side("the words alone")


# --- the clips that are shipped -------------------------------------------------------------


def test_the_shipped_clips_are_a_corpus_with_all_three_sides():
    clips = speech_clips(SHIPPED)
    assert data_kind(SHIPPED) == ("speech", "LJSpeech table metadata.csv: 20 clips")
    assert [clip.split for clip in clips].count("train") == 18
    assert {clip.split for clip in clips} == {"train", "valid", "test"}
    assert len({clip.speaker for clip in clips}) > 4
    size = sum(file.stat().st_size for file in SHIPPED.rglob("*") if file.is_file())
    assert size < 1_400_000
    for clip in clips:
        with soundfile.SoundFile(clip.path) as sound:
            assert (sound.samplerate, sound.channels) == (16_000, 1)
            phones = read_alignment(clip.path, sound.frames / sound.samplerate)
            total = sum(phone.seconds for phone in phones)
            assert abs(total - sound.frames / sound.samplerate) < 0.001
        assert sum(bool(phone.hertz) for phone in phones) > len(phones) / 3


# --- espeak-ng ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """30 clips by one process at a time, and with the same seed 72 seconds of speech by three."""
    folder = tmp_path_factory.mktemp("corpora")
    for name, *arguments in (("clips", "--clips", 30), ("hours", "--hours", 0.02, "--jobs", 3)):
        call = command(folder / name, "--jobs", 1, *arguments, "--seed", 3, "--format", "flac")
        done = subprocess.run(call, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert f"{name}: " in done.stdout
    return folder


@needs_espeak
def test_a_corpus_is_the_same_however_many_processes_make_it(made):
    clips, hours = digests(made / "clips"), digests(made / "hours")
    both = {name for name in clips if name.startswith("wavs/")} & set(hours)
    assert len(both) > 40
    assert all(clips[name] == hours[name] for name in both)
    assert len(clips) == 30 * 2 + 2
    lines = [(made / name / "metadata.csv").read_text().splitlines() for name in ("clips", "hours")]
    assert all(one == other for one, other in zip(*lines, strict=False))


@needs_espeak
def test_so_many_hours_are_reached_with_the_last_clip_and_nothing_is_left_over(made):
    clips = speech_clips(made / "hours")
    seconds = [soundfile.info(clip.path).duration for clip in clips]
    assert sum(seconds[:-1]) < 72 <= sum(seconds)
    assert len(list((made / "hours/wavs").iterdir())) == 2 * len(clips)
    assert not list(made.glob("*.part"))


@needs_espeak
def test_another_call_does_not_go_on_with_what_is_half_made(tmp_path, capsys):
    out = tmp_path / "out"
    assert main([str(out), "--clips", "1"]) == 0
    assert main([str(out), "--clips", "1"]) == 1
    assert "out: is there already" in capsys.readouterr().err
    os.replace(out, tmp_path / "out.part")
    assert main([str(out), "--clips", "1", "--seed", "1"]) == 1
    assert "half made by another call (seed differ)" in capsys.readouterr().err
    (tmp_path / "out.part/corpus.json").write_text("[")
    assert main([str(out), "--clips", "1"]) == 1
    assert "out.part: " in capsys.readouterr().err
    assert json.loads((SHIPPED / "corpus.json").read_text())["clips"] == 20


@needs_espeak
@pytest.mark.parametrize(
    ("arguments", "says", "code"),
    [
        (["--voices", "en-us+m1,klingonese"], "no voice klingonese", 1),
        (["--voices", "en-us+q9"], r"no voice en-us+q9", 1),
        (["--voices", ","], "--voices", 2),
        (["--clips", "0"], "--clips: 0 is not from 1", 2),
        (["--hours", "-1"], "--hours: -1", 2),
        (["--speeds", "fast"], "--speeds: 'fast'", 2),
        (["--pitches", "50,120"], "--pitches: 120", 2),
    ],
)
def test_wrong_arguments_are_named_before_anything_is_made(tmp_path, capsys, arguments, says, code):
    assert main([str(tmp_path / "out"), *arguments]) == code
    assert says in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_without_espeak_one_line_says_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(es.ctypes.util, "find_library", lambda name: None)
    monkeypatch.setattr(es, "LIBRARIES", ("libespeak-nowhere.so.1",))
    assert main([str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: espeak-ng is not installed")
    assert "apt-get install -y espeak-ng" in said
    assert not es.is_here()


@needs_espeak
def test_phonemes_begin_where_their_sound_does():
    """To a sample: a pause is all zeros, from its first sample to its last, and no phoneme is."""
    spoken = said_at(140, "en-us+m1", 150)
    starts = [at for _, at in spoken.phonemes]
    assert starts[0] == 0
    assert starts == sorted(starts)
    ends = [*starts[1:], len(spoken.samples)]
    assert sum(end - start for start, end in zip(starts, ends, strict=True)) == len(spoken.samples)
    pauses = 0
    for (name, start), end in zip(spoken.phonemes, ends, strict=True):
        if end - start > 300:
            loudest = np.abs(spoken.samples[start:end].astype(int)).max()
            # Closures of stops are silent too.
            assert (loudest < 10) == (name == "_") or name in "dbgptkl", name
            pauses += name == "_"
    assert pauses


def said_at(hertz, voice, speed=160):
    """espeak-ng tells no pitch, but it can be told one."""
    espeak = es.Espeak()
    espeak.fix_pitch(hertz)
    try:
        return espeak.say(TEXT, es.Manner(voice, speed))
    finally:
        espeak.fix_pitch(0)


@needs_espeak
@pytest.mark.parametrize("hertz", [90, 140, 220, 300])
@pytest.mark.parametrize("voice", ["en-us+m1", "en+f2", "en-gb-scotland+f3"])
def test_the_measured_pitch_is_the_one_that_was_spoken(hertz, voice):
    spoken = said_at(hertz, voice)
    _, phones = heard(spoken, 16_000)
    vowels = [phone for phone in phones if phone.phoneme[0] in "aeiouAEIOU@3" and phone.seconds]
    assert len(vowels) > 15
    assert all(abs(phone.hertz / hertz - 1) < 0.03 for phone in vowels)
    assert all(phone.hertz == 0 for phone in phones if phone.phoneme == "_")
    measured = pitch(spoken.samples, spoken.rate, 110)
    voiced = measured[measured > 0]
    assert len(voiced) > 0.4 * len(measured)
    assert (np.abs(voiced / hertz - 1) < 0.03).mean() > 0.97


@pytest.mark.parametrize("count", [22_050, 22_050 * 3 + 440])
def test_resampling_keeps_a_tone_and_drops_what_the_new_rate_cannot_have(count):
    def tone(hertz, rate, samples):
        at = np.arange(samples) / rate
        fade = np.minimum(1, np.minimum(at, count / 22_050 - at) / 0.05).clip(0)
        return 8000 * fade * np.sin(2 * np.pi * hertz * at)

    new = resampled((tone(1000, 22_050, count) + tone(9000, 22_050, count)).astype(np.int16),
                    22_050, 16_000)  # fmt: skip
    assert len(new) == round(count * 16_000 / 22_050)
    assert np.abs(new - tone(1000, 16_000, len(new))).max() < 40
    assert resampled(new, 16_000, 16_000) is new
