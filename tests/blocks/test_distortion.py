"""Mel-cepstral distortion: its scale, and the way through two sounds of unlike tempo."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autotrain.blocks.distortion import (
    cheapest_path,
    mel_cepstra,
    mel_cepstral_distortion,
)

WAVES = (torch.arange(80) + 0.5) * math.pi / 80


def row_by_row(costs):
    """The textbook's way."""
    rows, columns = costs.shape
    best = np.full((rows + 1, columns + 1), np.inf)
    best[0, 0] = 0
    for i in range(rows):
        for j in range(columns):
            best[i + 1, j + 1] = costs[i, j] + min(best[i, j], best[i, j + 1], best[i + 1, j])
    return best[rows, columns]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 1000))
def test_the_cheapest_path_is_the_textbooks(rows, columns, seed):
    costs = np.random.default_rng(seed).random((rows, columns))
    cost, pairs = cheapest_path(costs)
    assert cost == pytest.approx(row_by_row(costs))
    assert max(rows, columns) <= pairs <= rows + columns - 1


def test_cepstra_are_the_amplitudes_of_the_log_spectrums_waves():
    spectrum = 5 + 0.7 * (2 * WAVES).cos() - 0.2 * (13 * WAVES).cos() + 9 * (14 * WAVES).cos()
    expected = torch.zeros(13)
    expected[1], expected[12] = 0.7, -0.2
    torch.testing.assert_close(mel_cepstra(spectrum), expected, atol=1e-5, rtol=1e-4)


def test_it_is_the_root_mean_square_of_the_decibels_that_spectra_differ_by():
    wave = 3 * math.log(10) / 20 * (4 * WAVES).cos()  # 3 dB at its highest
    meant = torch.randn(6, 80).cumsum(dim=0)
    total, pairs = mel_cepstral_distortion(meant + wave, meant)
    assert pairs == 6
    assert total / pairs == pytest.approx(3 / math.sqrt(2), rel=1e-4)


def test_neither_loudness_nor_tempo_counts():
    meant = 4 * torch.randn(10, 80)
    slower = meant.repeat_interleave(2, dim=0) + 7.0
    total, pairs = mel_cepstral_distortion(slower, meant)
    assert pairs == 20
    assert total == pytest.approx(0, abs=1e-3)


def test_to_say_nothing_is_as_far_off_as_silence_is():
    meant, nothing, silence = torch.randn(3, 80), torch.zeros(0, 80), torch.full((1, 80), -11.5)
    total, pairs = mel_cepstral_distortion(nothing, meant)
    assert (total, pairs) == pytest.approx(mel_cepstral_distortion(silence, meant), rel=1e-4)
    assert total > 0
    assert pairs == 3
    assert mel_cepstral_distortion(meant, nothing) == pytest.approx((total, pairs))
    assert mel_cepstral_distortion(nothing, nothing) == (0.0, 0)
