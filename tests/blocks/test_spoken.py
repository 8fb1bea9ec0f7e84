"""Clips as samples: what a recogniser and a speaker learn from."""

import logging
import shutil

import pytest
import soundfile
import torch

from autotrain.blocks.alignments import alignment_path, alignment_text, read_alignment
from autotrain.blocks.corpus import SHIPPED
from autotrain.blocks.layouts import speech_clips
from autotrain.blocks.mels import Mels
from autotrain.blocks.spoken import Aligned, Transcribed, aligned_clips, pad_voiced
from autotrain.blocks.transcripts import readable_texts
from autotrain.blocks.units import characters, symbols
from autotrain.errors import AutotrainError

MELS = Mels()


@pytest.fixture
def corpus(tmp_path):
    return shutil.copytree(SHIPPED, tmp_path / "corpus")


def phoneme_units(clips):
    return symbols([[phone.phoneme for phone in clip.phones] for clip in clips])


def test_a_recogniser_gets_sound_and_the_units_of_its_text():
    clips = readable_texts(speech_clips(SHIPPED))
    units = characters([clip.text for clip in clips])
    samples = Transcribed(clips, units, 16_000)
    assert len(samples) == 20
    sound, text = samples[2]
    assert units.decode(text) == clips[2].text == "it is a far far better thing that i do"
    assert len(sound) == soundfile.info(clips[2].path).frames
    assert len(Transcribed(clips, units, 8000, max_seconds=0.5)[0][0]) == 4000


def test_a_clip_that_turns_silent_is_named_and_another_takes_its_place(corpus, caplog):
    clips = readable_texts(speech_clips(corpus))
    soundfile.write(clips[3].path, torch.zeros(16_000).numpy(), 16_000)
    units = characters([clip.text for clip in clips])
    with caplog.at_level(logging.WARNING):
        _, text = Transcribed(clips, units, 16_000)[3]
    assert units.decode(text) == clips[4].text
    assert "000003.flac: silent" in caplog.text


def test_a_speaker_gets_figures_for_every_phoneme():
    clips = aligned_clips(speech_clips(SHIPPED))
    speakers = sorted({item.clip.speaker for item in clips})
    samples = Aligned(clips, phoneme_units(clips), MELS, speakers)
    for index, (clip, phones) in enumerate(clips[:5]):
        one = samples[index]
        frames = MELS.frames(soundfile.info(clip.path).frames)
        assert one.mels.shape == (frames, 80)
        assert int(one.durations.sum()) == frames
        assert {len(part) for part in one[:4]} == {len(phones)}
        assert speakers[int(one.speaker)] == clip.speaker
        assert one.pitch.tolist() == pytest.approx([phone.hertz for phone in phones])
        pauses = [i for i, phone in enumerate(phones) if phone.phoneme == "_" and one.durations[i]]
        voiced = [i for i, phone in enumerate(phones) if phone.hertz and one.durations[i] > 5]
        assert float(one.energy[pauses].mean()) < 0.2 * float(one.energy[voiced].mean())


def test_a_table_without_pitch_has_it_measured_about_the_same(corpus):
    known = aligned_clips(speech_clips(corpus))
    for clip, phones in known:
        bare = [phone._replace(hertz=None) for phone in phones]
        alignment_path(clip.path).write_text(alignment_text(bare), encoding="utf-8")
    unknown = aligned_clips(speech_clips(corpus))
    units = phoneme_units(known)
    for index in range(4):
        said, measured = (Aligned(c, units, MELS)[index] for c in (known, unknown))
        both = (said.pitch > 0) & (measured.pitch > 0) & (said.durations > 4)
        assert int(both.sum()) > 8
        assert float((measured.pitch / said.pitch - 1)[both].abs().median()) < 0.02


def test_clips_whose_phonemes_do_not_fit_are_named_and_skipped(corpus, caplog):
    clips = speech_clips(corpus)
    alignment_path(clips[0].path).unlink()
    phones = read_alignment(clips[1].path)
    alignment_path(clips[1].path).write_text(alignment_text(phones[:-8]), encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        assert len(aligned_clips(clips)) == 18
    assert "000000.flac: no phonemes beside it" in caplog.text
    assert "000001.tsv: its phonemes last" in caplog.text
    alignment_path(clips[2].path).write_text("phoneme\tseconds\nx\ty\n")
    with pytest.raises(AutotrainError, match="3 of 20 clips are damaged"):
        aligned_clips(clips)


def test_a_batch_is_padded_behind_what_counts():
    clips = aligned_clips(speech_clips(SHIPPED))[:3]
    samples = [Aligned(clips, phoneme_units(clips), MELS)[index] for index in range(3)]
    batch = pad_voiced(samples)
    assert batch.frames.tolist() == [len(one.mels) for one in samples]
    assert batch.durations.sum(dim=1).tolist() == batch.frames.tolist()
    assert batch.mels.shape == (3, max(batch.frames), 80)
    for row, one in enumerate(samples):
        count, frames = int(batch.counts[row]), int(batch.frames[row])
        for padded, own in zip(batch[:4], one[:4], strict=True):
            assert torch.equal(padded[row, :count], own)
            assert not padded[row, count:].any()
        assert torch.equal(batch.mels[row, :frames], one.mels)


def test_a_batch_may_be_padded_to_few_shapes():
    clips = aligned_clips(speech_clips(SHIPPED))[:2]
    samples = [Aligned(clips, phoneme_units(clips), MELS)[index] for index in range(2)]
    batch, wide = pad_voiced(samples), pad_voiced(samples, multiple=64)
    assert {tensor.shape[1] % 64 for tensor in (*wide[:4], wide.mels)} == {0}
    assert wide.mels.shape[2] == 80
    count, frames = batch.phonemes.shape[1], batch.mels.shape[1]
    assert torch.equal(wide.pitch[:, :count], batch.pitch)
    assert torch.equal(wide.mels[:, :frames], batch.mels)
    assert not wide.mels[:, frames:].any()
    assert torch.equal(wide.frames, batch.frames)
