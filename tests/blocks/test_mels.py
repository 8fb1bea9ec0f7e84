"""Spectra with as many frames as they say, figures per phoneme, and back to sound."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autotrain.blocks.alignments import read_alignment
from autotrain.blocks.audio import load_clip
from autotrain.blocks.corpus import SHIPPED
from autotrain.blocks.layouts import speech_clips
from autotrain.blocks.mels import (
    Mels,
    Normaliser,
    SpeedPerturbed,
    frames_of,
    moments,
    phoneme_means,
)
from autotrain.errors import AutotrainError

MELS = Mels()


@pytest.fixture(scope="module")
def spoken():
    return [(clip, load_clip(clip.path, MELS.rate)) for clip in speech_clips(SHIPPED)[:4]]


@pytest.mark.parametrize("count", [1, 199, 200, 201, 16_000])
def test_a_clip_has_a_frame_every_hop_and_one_more(count):
    samples = torch.randn(count, generator=torch.Generator().manual_seed(0))
    mels, energy = MELS.with_energy(samples)
    frames = MELS.frames(count)
    assert mels.shape == (frames, 80)
    assert energy.shape == MELS.pitch(samples).shape == (frames,)
    assert torch.equal(MELS(samples), mels)


def test_a_tone_is_loud_in_its_band_and_its_energy_grows_with_it():
    wave = torch.sin(2 * math.pi * 1000 * torch.arange(16_000) / 16_000)
    quiet, loud = MELS.with_energy(wave * 0.1), MELS.with_energy(wave)
    band = int(loud[0][40].argmax())
    hertz = 700 * (10 ** ((band + 1) / 81 * math.log10(1 + 8000 / 700)) - 1)
    assert abs(hertz - 1000) < 80
    assert torch.allclose(loud[1][10:70], 10 * quiet[1][10:70], rtol=1e-3)
    assert float(MELS(torch.zeros(400)).max()) == pytest.approx(math.log(1e-5))


@given(st.lists(st.floats(0, 0.4), min_size=1, max_size=60), st.integers(0, 3))
def test_frames_of_phonemes_add_up_whatever_their_lengths(seconds, more):
    samples = math.floor(sum(seconds) * MELS.rate) + more
    durations = frames_of(seconds, MELS.frames(samples), MELS)
    assert sum(durations) == MELS.frames(samples)
    assert min(durations) >= 0
    for duration, length in zip(durations, seconds, strict=True):
        assert abs(duration - length * MELS.rate / MELS.hop) <= 2


def test_seconds_that_were_written_with_six_digits_lose_no_frame():
    mels = Mels(rate=22_050, hop=256)
    for count in range(1, 200):
        written = round(count * 256 / 22_050, 6)
        assert frames_of([written, 1.0], 1000, mels)[0] == count


def test_shipped_phonemes_fill_their_clips_frames(spoken):
    for clip, samples in spoken:
        phones = read_alignment(clip.path, len(samples) / MELS.rate)
        assert sum(p.seconds for p in phones) == pytest.approx(len(samples) / MELS.rate, abs=1e-3)
        frames = MELS.frames(len(samples))
        assert sum(frames_of([p.seconds for p in phones], frames, MELS)) == frames


def test_means_of_phonemes_leave_out_what_is_unvoiced():
    values = torch.tensor([0.0, 100.0, 0.0, 200.0, 0.0, 0.0, 50.0])
    assert phoneme_means(values, [2, 2, 0, 2, 1]).tolist() == [100.0, 200.0, 0.0, 0.0, 50.0]


def test_normalised_features_have_mean_0_and_deviation_1_and_come_back(spoken):
    clips = [MELS(samples) for _, samples in spoken]
    normaliser = Normaliser(*moments(clips))
    done = normaliser(torch.cat(clips))
    assert torch.allclose(done.mean(dim=0), torch.zeros(80), atol=1e-3)
    assert torch.allclose(done.std(dim=0, unbiased=False), torch.ones(80), atol=1e-3)
    assert torch.allclose(normaliser.undone(done), torch.cat(clips), atol=1e-3)
    assert set(normaliser.state_dict()) == {"mean", "deviation"}


def test_a_feature_that_never_moves_is_not_divided_by_nothing_and_no_clips_are_refused():
    mean, deviation = moments([torch.ones(5, 3)])
    assert Normaliser(mean, deviation)(torch.ones(2, 3)).abs().max() == 0
    with pytest.raises(AutotrainError, match="no frames"):
        moments([])


def test_speech_comes_back_from_its_spectrum(spoken):
    """The spectrum of what comes back is the spectrum that went in, to a few tenths of a neper."""
    for _, samples in spoken:
        mels = MELS(samples)
        sound = MELS.to_sound(mels)
        assert len(sound) == (len(mels) - 1) * MELS.hop
        again = MELS(sound)
        heard = mels > mels.max() - 6  # 52 dB below the loudest is not heard
        assert float((again - mels)[heard].abs().mean()) < 0.35
        torch.rand(1)
        before = torch.random.get_rng_state()
        assert torch.equal(sound, MELS.to_sound(mels))
        assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("frames", [1, 2, 3, 9])
def test_a_few_frames_give_a_few_samples_of_sound(frames):
    assert len(MELS.to_sound(torch.zeros(frames, 80))) == (frames - 1) * 200


@pytest.mark.parametrize("shape", [(0, 80), (5, 40), (1, 5, 80)])
def test_what_is_no_spectrum_is_refused_by_its_shape(shape):
    with pytest.raises(AutotrainError, match="spectra of shape"):
        MELS.to_sound(torch.zeros(shape))


def test_speed_changes_length_and_pitch_by_the_factor_drawn():
    wave = torch.sin(2 * math.pi * 200 * torch.arange(16_000) / 16_000)
    perturbed = SpeedPerturbed(16_000, (0.9, 1.0, 1.1))
    torch.manual_seed(0)
    lengths = {}
    for _ in range(20):
        changed = perturbed(wave)
        lengths[len(changed)] = float(MELS.pitch(changed).median())
    assert set(lengths) == {17_778, 16_000, 14_546}
    for length, hertz in lengths.items():
        assert hertz == pytest.approx(200 * 16_000 / length, rel=0.01)
    torch.manual_seed(5)
    first = perturbed(wave)
    torch.manual_seed(5)
    assert torch.equal(first, perturbed(wave))
    with pytest.raises(AutotrainError, match="speeds"):
        SpeedPerturbed(16_000, ())
