"""Clips as tensors: rates, channels, damaged files, spectra and masks."""

import logging
import math

import pytest
import soundfile
import torch

from autotrain import media
from autotrain.blocks import audio
from autotrain.blocks.losses import inside
from autotrain.errors import AutotrainError

from .strange import make_strange


def sine(rate=16_000, seconds=1.0, hertz=440.0, peak=0.5):
    return peak * torch.sin(2 * math.pi * hertz * torch.arange(int(rate * seconds)) / rate)


def write(path, samples, rate=16_000):
    soundfile.write(path, samples.numpy(), rate, subtype="PCM_16")
    return path


def test_a_clip_is_loaded_as_it_was_written(tmp_path):
    wave = sine()
    loaded = audio.load_clip(write(tmp_path / "a.flac", wave), 16_000)
    assert loaded.dtype == torch.float32
    assert torch.allclose(loaded, wave, atol=1e-4)


def test_another_rate_is_resampled_and_said_once(tmp_path, caplog):
    audio._say_resampled.cache_clear()
    path = write(tmp_path / "a.wav", sine(rate=22_050), 22_050)
    with caplog.at_level(logging.WARNING):
        first, _ = audio.load_clip(path, 16_000), audio.load_clip(path, 16_000)
    assert len(first) == 16_000
    assert torch.allclose(first[500:-500], sine()[500:-500], atol=0.01)
    assert [r.getMessage() for r in caplog.records] == [
        "clips of 22050 Hz are resampled to 16000 Hz"
    ]


def test_two_channels_are_mixed_to_their_mean(tmp_path):
    left, right = sine(peak=0.8), sine(peak=0.2)
    path = write(tmp_path / "a.wav", torch.stack([left, right], dim=1))
    assert torch.allclose(audio.load_clip(path, 16_000), sine(peak=0.5), atol=1e-3)


def test_only_the_first_seconds_are_read(tmp_path):
    path = write(tmp_path / "a.wav", sine(seconds=2.0))
    assert len(audio.load_clip(path, 16_000, max_seconds=0.5)) == 8_000
    assert audio.clip_seconds(path) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("samples", "says"),
    [(torch.zeros(16_000), "silent"), (torch.zeros(0), "no samples")],
)
def test_a_clip_that_holds_nothing_is_refused_by_name(tmp_path, samples, says):
    path = write(tmp_path / "bad.wav", samples)
    with pytest.raises(AutotrainError, match=f"bad.wav: .*{says}"):
        audio.load_clip(path, 16_000)


def test_whole_numbers_written_as_floats_are_refused_by_name(tmp_path):
    for peak, name in ((1.5, "loud.wav"), (20_000.0, "bad.wav")):
        samples = sine(peak=peak).numpy()
        soundfile.write(tmp_path / name, samples, 16_000, subtype="FLOAT")
    assert float(audio.load_clip(tmp_path / "loud.wav", 16_000).max()) > 1.4
    with pytest.raises(AutotrainError, match=r"bad.wav: peaks at [\d.]+, where full scale is 1"):
        audio.load_clip(tmp_path / "bad.wav", 16_000)


def test_samples_that_are_not_finite_are_refused_by_name(tmp_path):
    path = tmp_path / "bad.wav"
    soundfile.write(path, torch.full((100,), math.nan).numpy(), 16_000, subtype="FLOAT")
    with pytest.raises(AutotrainError, match=r"bad.wav: .*not finite"):
        audio.load_clip(path, 16_000)


@pytest.mark.parametrize("read", [audio.clip_seconds, lambda path: audio.load_clip(path, 16_000)])
def test_a_file_that_is_no_audio_or_missing_is_refused_by_name(tmp_path, read):
    path = tmp_path / "bad.flac"
    with pytest.raises(AutotrainError, match=r"bad.flac: unreadable audio"):
        read(path)
    path.write_bytes(b"no audio at all")
    with pytest.raises(AutotrainError, match=r"bad.flac: unreadable audio"):
        read(path)


@pytest.mark.parametrize("count", [1, 319, 320, 16_000])
def test_a_spectrum_has_a_frame_every_hop_and_half_the_bins(count):
    spectrum = audio.log_spectrum(torch.ones(count), n_fft=880, window=640, hop=320)
    assert spectrum.shape == (count // 320 + 1, 441)


def test_a_sine_of_full_scale_reads_0_db_at_its_bin_and_silence_the_floor():
    wave = sine(hertz=16_000 * 100 / 880, peak=1.0)
    spectrum = audio.log_spectrum(wave, n_fft=880, window=640, hop=320, floor_db=-90)
    assert spectrum[20].argmax() == 100
    assert spectrum[20, 100] == pytest.approx(0, abs=0.01)
    silent = audio.log_spectrum(torch.zeros(640), n_fft=880, window=640, hop=320, floor_db=-90)
    assert torch.allclose(silent, torch.tensor(-90.0))


def test_padding_is_zero_at_the_end_and_the_mask_leaves_it_out():
    clips = [torch.ones(3, 2), torch.ones(5, 2)]
    padded, lengths = audio.pad_frames(clips)
    mask = inside(lengths, padded.shape[1])
    assert padded.shape == (2, 5, 2)
    assert lengths.tolist() == [3, 5]
    assert mask.tolist() == [[True, True, True, False, False], [True] * 5]
    assert torch.equal(padded[..., 0] == 1, mask)
    rounded, lengths = audio.pad_frames(clips, 4)
    assert (rounded.shape, lengths.tolist()) == ((2, 8, 2), [3, 5])
    assert torch.equal(rounded[:, :5], padded)
    assert torch.equal(audio.pad_frames(clips, 5)[0], padded)


def test_a_rate_that_shares_nothing_with_the_models_is_refused(tmp_path):
    """Its filter would take gigabytes."""
    path = write(tmp_path / "odd.wav", sine(rate=44_101), 44_101)
    with pytest.raises(AutotrainError, match=r"odd.wav: .*44101 Hz cannot be resampled to 16000"):
        audio.load_clip(path, 16_000)
    assert len(audio.load_clip(path, 44_101)) == 44_101


def test_a_clip_that_claims_more_than_it_holds_is_refused_by_name(tmp_path):
    """Of hours that are claimed, only what is there is decoded."""
    path = write(tmp_path / "long.flac", sine())
    raw = bytearray(path.read_bytes())
    for frames, says in (
        (16_000 * 3600, "truncated|cannot be decoded"),
        (1 << 35, "as one sample"),
    ):
        raw[21:26] = ((raw[21] & 0xF0) << 32 | frames).to_bytes(5, "big")
        path.write_bytes(raw)
        with pytest.raises(AutotrainError, match=rf"long.flac: .*({says})"):
            audio.load_clip(path, 16_000)
    assert len(audio.load_clip(path, 16_000, max_seconds=0.5)) == 8000


def test_many_channels_are_mixed_without_holding_all(tmp_path):
    wave = torch.stack([sine(peak=i / 600) for i in range(600)], dim=1)
    path = write(tmp_path / "many.wav", wave)
    assert torch.allclose(audio.load_clip(path, 16_000), wave.mean(dim=1), atol=1e-3)
    with media.open_clip(path) as clip:
        sizes = [block.size for block in media.blocks(clip, clip.frames)]
    assert sum(sizes) == wave.numel()
    assert max(sizes) <= media.BLOCK_VALUES


@pytest.mark.parametrize("read", [audio.clip_seconds, lambda path: audio.load_clip(path, 16_000)])
def test_what_is_no_file_is_refused_and_holds_nothing_up(tmp_path, read):
    for name, problem in make_strange(tmp_path, ".wav").items():
        with pytest.raises(AutotrainError, match=rf"{name}\.wav: unreadable audio \({problem}"):
            read(tmp_path / f"{name}.wav")
