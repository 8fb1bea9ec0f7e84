"""Media that lie: each is named and passed over, nothing hangs, nothing is allocated for it."""

import os
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from autotrain.media import UnreadableError
from autotrain.probe.arrays import look_at_features
from autotrain.probe.dataset import probe_dataset
from autotrain.probe.media import look_at_image, look_at_recording

NOISE = np.random.default_rng(0).normal(0, 0.1, 48_000)


def wav(path: Path) -> bytearray:
    soundfile.write(path, NOISE, 16_000)
    return bytearray(path.read_bytes())


def png_header(width: int, height: int) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (png_header(10_000, 10_000), "image bomb: 10000 x 10000"),
        (png_header(2**31 - 1, 2**31 - 1), "image bomb"),
        (png_header(50_000, 50_000), "image bomb"),
        (b"GIF89a", "not an image|cannot be decoded"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        (b"\x00" * 100, "not an image"),
    ],
)
def test_an_image_that_lies_is_unreadable(tmp_path, content, problem):
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(UnreadableError, match=problem):
        look_at_image(tmp_path / "x.png", decode=True)


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "tiff", "gif", "bmp"])
@pytest.mark.parametrize("part", [0.3, 0.7])
def test_a_truncated_image_is_found_by_decoding(tmp_path, kind, part):
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / f"x.{kind}"
    Image.fromarray(pixels).save(path)
    assert look_at_image(path, decode=True).pixels == 4096
    raw = path.read_bytes()
    path.write_bytes(raw[: int(part * len(raw))])
    with pytest.raises(UnreadableError):
        look_at_image(path, decode=True)


def test_a_wav_header_that_claims_4_gb_is_named(tmp_path):
    raw = wav(tmp_path / "x.wav")
    raw[40:44] = struct.pack("<I", 0xFFFFFFF0)
    (tmp_path / "x.wav").write_bytes(raw)
    with pytest.raises(UnreadableError, match=r"claims 4 GiB of sound, 93\.8 KiB are there"):
        look_at_recording(tmp_path / "x.wav", decode=False)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (slice(22, 24), b"\0\0"),  # channels
        (slice(22, 24), b"\xff\xff"),
        (slice(24, 28), b"\0\0\0\0"),  # rate
        (slice(44, None), b""),  # sound
        (slice(0, 4), b"RIFX"),
    ],
)
def test_a_wav_with_a_broken_header_is_unreadable(tmp_path, place, value):
    raw = wav(tmp_path / "x.wav")
    raw[place] = value
    (tmp_path / "x.wav").write_bytes(raw)
    with pytest.raises(UnreadableError):
        look_at_recording(tmp_path / "x.wav", decode=True)


@pytest.mark.parametrize("part", [0.02, 0.5, 0.95])
def test_a_truncated_flac_is_found_by_decoding(tmp_path, part):
    path = tmp_path / "x.flac"
    soundfile.write(path, NOISE, 16_000)
    assert look_at_recording(path, decode=True).seconds == 3
    raw = path.read_bytes()
    path.write_bytes(raw[: int(part * len(raw))])
    with pytest.raises(UnreadableError):
        look_at_recording(path, decode=True)


def test_a_long_flac_truncated_after_its_first_minute_is_found(tmp_path):
    path = tmp_path / "x.flac"
    soundfile.write(path, np.tile(NOISE, 30), 16_000)
    raw = path.read_bytes()
    assert look_at_recording(path, decode=True).frames == 1_440_000
    path.write_bytes(raw[: int(0.9 * len(raw))])
    with pytest.raises(UnreadableError):
        look_at_recording(path, decode=True)


@pytest.mark.parametrize("part", [0.5, 1])
def test_the_mp3_decoder_says_nothing_of_its_own(tmp_path, capfd, part):
    path = tmp_path / "x.mp3"
    soundfile.write(path, np.cumsum(NOISE) / 100, 16_000)
    os.truncate(path, int(part * path.stat().st_size))
    if part == 1:
        assert look_at_recording(path, decode=True).seconds == 3
    else:
        with pytest.raises(UnreadableError, match="truncated"):
            look_at_recording(path, decode=True)
    os.write(2, b"still here")
    assert capfd.readouterr().err == "still here"


def test_samples_that_are_not_finite_are_named(tmp_path):
    soundfile.write(tmp_path / "x.wav", np.full(100, np.nan), 16_000, subtype="FLOAT")
    with pytest.raises(UnreadableError, match="not finite"):
        look_at_recording(tmp_path / "x.wav", decode=True)


def npz(path: Path, header: bytes, body: bytes = b"", name: str = "features.npy") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            name, b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + body
        )
    return path


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        (
            "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000)}",
            "claims 3.64 TiB",
        ),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 4)}", "claims"),
        ("{'descr': '|O', 'fortran_order': False, 'shape': (2, 2)}", "pickled"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (0, 4)}", "is empty"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': ()}", "claims|no array"),
        ("__import__('os').system('touch pwned')", "cannot be read"),
        ("(" * 5000, "cannot be read"),
    ],
)
def test_an_npz_that_lies_is_unreadable(tmp_path, header, problem):
    with pytest.raises(UnreadableError, match=problem):
        look_at_features(npz(tmp_path / "x.npz", header.encode()), decode=True)


def test_an_npz_bomb_is_refused_by_its_size_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("autotrain.probe.arrays.ARRAY_LIMIT_BYTES", 1 << 20)
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000, 1000)}"
    path = npz(tmp_path / "x.npz", header, bytes(4_000_000))
    assert path.stat().st_size < 10_000
    with pytest.raises(UnreadableError, match=r"takes 3\.81 MiB"):
        look_at_features(path, decode=False)


@pytest.mark.parametrize("part", [0.5, 0.99])
def test_a_truncated_npz_is_unreadable(tmp_path, part):
    np.savez(tmp_path / "x.npz", features=np.zeros((20, 4), "float32"))
    raw = (tmp_path / "x.npz").read_bytes()
    (tmp_path / "x.npz").write_bytes(raw[: int(part * len(raw))])
    with pytest.raises(UnreadableError, match=r"not an \.npz archive"):
        look_at_features(tmp_path / "x.npz", decode=True)


def test_a_flipped_byte_in_an_npz_fails_its_checksum(tmp_path):
    np.savez(tmp_path / "x.npz", features=np.ones((20, 4), "float32"))
    raw = bytearray((tmp_path / "x.npz").read_bytes())
    raw[300] ^= 1
    (tmp_path / "x.npz").write_bytes(raw)
    with pytest.raises(UnreadableError):
        look_at_features(tmp_path / "x.npz", decode=True)


def test_features_that_are_not_finite_are_named(tmp_path):
    np.savez(tmp_path / "x.npz", features=np.full((20, 4), np.inf))
    with pytest.raises(UnreadableError, match="not finite"):
        look_at_features(tmp_path / "x.npz", decode=True)


def test_the_array_of_a_usual_name_wins_over_a_larger_one(tmp_path):
    np.savez(tmp_path / "x.npz", raw=np.zeros((90, 90)), features=np.zeros((20, 3, 4), "float32"))
    found = look_at_features(tmp_path / "x.npz", decode=True)
    assert (found.name, found.frames, found.width, found.bytes) == ("features", 20, 12, 960)


def test_a_folder_of_liars_is_profiled_with_each_of_them_named(tmp_path):
    for i in range(60):
        soundfile.write(tmp_path / f"{i:02}.wav", NOISE[i:2000], 16_000)
    raw = wav(tmp_path / "claims.wav")
    raw[40:44] = struct.pack("<I", 0xFFFFFFF0)
    (tmp_path / "claims.wav").write_bytes(raw)
    raw[22:24] = b"\0\0"
    (tmp_path / "channels.wav").write_bytes(raw)
    soundfile.write(tmp_path / "cut.flac", NOISE, 16_000)
    os.truncate(tmp_path / "cut.flac", 9000)
    (tmp_path / "nothing.wav").write_bytes(b"")
    os.mkfifo(tmp_path / "fifo.wav")
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    (tmp_path / "folder").symlink_to(".")
    profile = probe_dataset(tmp_path)
    assert {fault.path for fault in profile.faults} == {
        "claims.wav",
        "channels.wav",
        "cut.flac",
        "nothing.wav",
        "fifo.wav",
        "loop.wav",
        "folder",
    }
