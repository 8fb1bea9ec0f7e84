"""How high a voice is: tones, noise, silence, and a voice whose pitch is known."""

import numpy as np
import pytest

from autotrain.blocks.pitch import pitch, voiced_mean

RATE, HOP = 16_000, 80


def buzz(hertz, seconds=0.6, rate=RATE):
    """A tone with harmonics, as of a throat; `hertz` may move."""
    at = np.arange(int(seconds * rate))
    phase = 2 * np.pi * np.cumsum(np.broadcast_to(hertz, at.shape)) / rate
    return sum(np.sin(k * phase) / k for k in range(1, 8)) * 0.1


@pytest.mark.parametrize("hertz", [70, 85.3, 120, 199.5, 260, 333, 420, 480])
@pytest.mark.parametrize("rate", [16_000, 22_050])
def test_a_steady_tone_is_measured_to_half_a_percent(hertz, rate):
    measured = pitch(buzz(hertz, rate=rate), rate, rate // 200)
    inner = measured[10:-10]
    assert (inner > 0).all()
    assert np.abs(inner / hertz - 1).max() < 0.005


def test_a_glide_is_followed_without_jumps_of_octaves():
    glide = np.linspace(100, 300, int(1.0 * RATE))
    measured = pitch(buzz(glide, 1.0), RATE, HOP)[10:-10]
    wanted = glide[::HOP][10 : 10 + len(measured)]
    assert np.abs(measured / wanted - 1).max() < 0.03


def test_noise_silence_and_nothing_have_no_pitch():
    noise = np.random.default_rng(0).normal(size=RATE) * 0.1
    assert (pitch(noise, RATE, HOP) > 0).mean() < 0.05
    assert not pitch(np.zeros(RATE), RATE, HOP).any()
    assert len(pitch(np.zeros(0), RATE, HOP)) == 1
    for little in (noise[:4000] * 1e-3, buzz(150, 0.25) * 0.005):
        measured = pitch(np.concatenate([buzz(150), little, buzz(150)]), RATE, HOP)
        assert not measured[9600 // HOP + 6 : 13_600 // HOP - 6].any()


@pytest.mark.parametrize("count", [0, 1, 79, 80, 12_345])
def test_there_is_a_figure_for_every_frame(count):
    assert len(pitch(np.ones(count), RATE, HOP)) == count // HOP + 1


def test_the_mean_of_a_phoneme_is_of_its_voiced_frames():
    assert voiced_mean([0, 100, 200, 0, 0, 50], [1, 4, 5, 6]) == [0.0, 150.0, 0.0, 50.0]
