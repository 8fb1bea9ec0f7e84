"""Media that lie: each is named and passed over, nothing hangs, nothing is allocated for it."""

import os
import socket
import struct
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from autotrain.arrays import look_at_features
from autotrain.media import UnreadableError
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
    monkeypatch.setattr("autotrain.arrays.ARRAY_LIMIT_BYTES", 1 << 20)
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


@pytest.mark.parametrize("look", [look_at_image, look_at_recording, look_at_features])
def test_what_is_no_file_is_unreadable_and_holds_nothing_up(tmp_path, look):
    """A listing leaves these out; a file may have become one since."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to("loop")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        says = {"pipe": "not a regular", "folder": "directory", "device": "not a regular",
                "loop": "symbolic links", "socket": "not a regular", "gone": "No such"}  # fmt: skip
        for name, problem in says.items():
            with pytest.raises(UnreadableError, match=problem):
                look(tmp_path / name, True)


def test_a_blank_sheet_of_the_largest_size_is_a_bomb(tmp_path):
    Image.new("L", (9000, 9000)).save(tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size < 100_000
    with pytest.raises(UnreadableError, match=r"an image bomb: 9000 x 9000 pixels in 7\d\.\d KiB"):
        look_at_image(tmp_path / "x.png", decode=False)
    Image.new("L", (4000, 4000)).save(tmp_path / "x.png")  # a scanned page may be blank
    assert look_at_image(tmp_path / "x.png", decode=True).pixels == 16_000_000


def test_a_gif_of_very_many_pictures_is_its_first(tmp_path):
    """Nothing counts them: that would mean to read all."""
    frames = [Image.new("RGB", (4, 4), (200 * i, 0, 0)) for i in range(2)]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:], duration=50)
    raw = (tmp_path / "x.gif").read_bytes()
    begin = raw.index(b"\x21\xf9")
    second = raw[raw.index(b"\x21\xf9", begin + 1) : -1]
    (tmp_path / "x.gif").write_bytes(raw[:-1] + second * 500_000 + b";")
    begun = time.process_time()
    assert look_at_image(tmp_path / "x.gif", decode=True).pixels == 16
    assert time.process_time() - begun < 1


def test_a_flac_that_claims_hours_is_decoded_though_nobody_asked(tmp_path):
    path = tmp_path / "x.flac"
    soundfile.write(path, NOISE, 16_000)
    raw = bytearray(path.read_bytes())
    raw[21:26] = ((raw[21] & 0xF0) << 32 | 3_600_000_000).to_bytes(5, "big")  # frames: 36 bits
    path.write_bytes(raw)
    with pytest.raises(UnreadableError, match=r"truncated|cannot be decoded"):
        look_at_recording(path, decode=False)


@pytest.mark.parametrize("rate", [1, 99, 1_000_001, 2**31 - 1, 2**31, 2**32 - 1])
def test_a_rate_that_nobody_records_at_is_unreadable(tmp_path, rate):
    raw = wav(tmp_path / "x.wav")
    raw[24:28] = struct.pack("<I", rate)
    (tmp_path / "x.wav").write_bytes(raw)
    with pytest.raises(UnreadableError):
        look_at_recording(tmp_path / "x.wav", decode=False)


def test_a_format_that_no_corpus_has_does_not_reach_the_decoder(tmp_path):
    soundfile.write(tmp_path / "x.wav", NOISE, 16_000, format="MAT5")
    with pytest.raises(UnreadableError, match="not WAV, FLAC, Ogg, MP3 or AIFF"):
        look_at_recording(tmp_path / "x.wav", decode=False)


def test_an_array_header_of_gigabytes_is_not_read(tmp_path):
    """numpy would read all of it before it looked at its length; deflated, it takes no room."""
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        head = b"\x93NUMPY\x02\x00" + struct.pack("<I", 1 << 25)
        archive.writestr("features.npy", head + b" " * (1 << 25))
    with pytest.raises(UnreadableError, match="header claims 32 MiB"):
        look_at_features(path, decode=False)


def test_zeros_that_were_packed_to_nothing_are_a_bomb(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", features=np.zeros((20_000, 1000), "float32"))
    with pytest.raises(UnreadableError, match=r"a bomb: its array `features` takes 76\.3 MiB"):
        look_at_features(tmp_path / "x.npz", decode=False)


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_an_npz_packed_as_numpy_never_does_is_unreadable(tmp_path, method):
    with zipfile.ZipFile(tmp_path / "x.npz", "w", method) as archive:
        archive.writestr("features.npy", b"x" * 100)
    with pytest.raises(UnreadableError, match="packed in a way that numpy does not use"):
        look_at_features(tmp_path / "x.npz", decode=False)


def test_an_array_of_negative_sides_is_unreadable(tmp_path):
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (5, -2, -2)}"
    with pytest.raises(UnreadableError, match="is empty, of shape"):
        look_at_features(npz(tmp_path / "x.npz", header, bytes(80)), decode=True)


def test_what_a_file_says_of_itself_cannot_write_to_the_terminal(tmp_path):
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (0, 4)}"
    path = npz(tmp_path / "x.npz", header, name="\x1b[2J\nfeatures.npy")
    with pytest.raises(UnreadableError) as caught:
        look_at_features(path, decode=False)
    assert str(caught.value).isprintable()
