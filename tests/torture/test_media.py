"""Small real media with bytes flipped, cut off and moved about: whatever is read of them, the only
error is our own, nothing takes long, and nothing is allocated for what a header claims."""

import math
import re
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from autotrain.arrays import look_at_features
from autotrain.blocks.audio import clip_seconds, load_clip
from autotrain.blocks.images import image_size, load_image
from autotrain.errors import AutotrainError
from autotrain.foreign import weights
from autotrain.media import UnreadableError
from autotrain.probe.looking import Looker
from autotrain.probe.media import look_at_image, look_at_recording

MOST_SECONDS, MOST_BYTES = 2.0, 300 << 20
EACH = 10  # trials for each time that a fault is to be tried
NOISE = np.random.default_rng(0)
# Numbers that headers lie with.
LIES = (
    0,
    1,
    0x7F,
    0x80,
    0xFF,
    0xFFFF,
    0x7FFF,
    0x7FFFFFFF,
    0xFFFFFFFF,
    0xFFFFFFF0,
    1 << 16,
    1 << 24,
)


def sounds(folder):
    wave = np.cumsum(NOISE.normal(0, 0.01, 6000)).clip(-0.9, 0.9)
    for name, subtype in (
        ("pcm.wav", "PCM_16"), ("deep.wav", "PCM_24"), ("float.wav", "FLOAT"),
        ("adpcm.wav", "IMA_ADPCM"),
        ("a.flac", None), ("vorbis.ogg", "VORBIS"), ("opus.ogg", "OPUS"), ("a.mp3", None),
        ("a.aiff", None), ("ulaw.wav", "ULAW"),
    ):  # fmt: skip
        soundfile.write(folder / name, wave, 16_000, subtype=subtype)
    soundfile.write(folder / "stereo.flac", np.stack([wave, wave[::-1]], 1), 44_100)
    soundfile.write(folder / "rf64.wav", wave, 16_000, format="RF64")
    return sorted(
        p for p in folder.iterdir() if p.suffix in (".wav", ".flac", ".ogg", ".mp3", ".aiff")
    )


def pictures(folder):
    pixels = NOISE.integers(0, 255, (24, 40, 4), dtype=np.uint8)
    colours = Image.fromarray(pixels[..., :3].copy())
    for name in ("a.png", "a.jpg", "a.gif", "a.webp", "a.bmp", "a.tiff", "a.ppm"):
        colours.save(folder / name)
    Image.fromarray(pixels).save(folder / "alpha.png")
    Image.fromarray(pixels).save(folder / "lossless.webp", lossless=True)
    colours.convert("P").save(folder / "palette.png", transparency=3)
    colours.save(folder / "progressive.jpg", progressive=True)
    for compression in ("tiff_lzw", "tiff_deflate", "jpeg", "packbits"):
        colours.save(folder / f"{compression}.tiff", compression=compression)
    colours.convert("1").save(folder / "fax.tiff", compression="group4")
    Image.fromarray(pixels[..., 0].astype("uint16") * 200).save(folder / "deep.png")
    exif = Image.Exif()
    exif[274] = 6
    colours.save(folder / "turned.jpg", exif=exif)
    frames = [colours.rotate(90 * i) for i in range(4)]
    for name in ("moving.gif", "moving.webp", "moving.png"):
        frames[0].save(folder / name, save_all=True, append_images=frames[1:])
    return sorted(p for p in folder.iterdir() if p.suffix[1:] in
                  ("png", "jpg", "gif", "webp", "bmp", "tiff", "ppm"))  # fmt: skip


def arrays(folder):
    values = NOISE.normal(size=(50, 12)).astype("float32")
    np.savez(folder / "plain.npz", features=values)
    np.savez_compressed(folder / "packed.npz", features=values, labels=np.arange(50))
    return [folder / "plain.npz", folder / "packed.npz"]


def tensors(folder):
    from safetensors.torch import save_file

    save_file({"a": torch.ones(3, 4), "b": torch.zeros(5)}, folder / "w.safetensors")
    return [folder / "w.safetensors"]


def mutated(raw, dice):
    """Bytes of a file that something, or somebody, changed in one to four places."""
    raw = bytearray(raw)
    for _ in range(dice.randint(1, 4)):
        # Where the lies are told: mostly in the first bytes.
        reach = dice.choice((64, 256, len(raw)))
        at = dice.randrange(max(min(reach, len(raw)), 1))
        match dice.choice(("flip", "flip", "byte", "lie", "lie", "cut", "zeros", "again", "drop")):
            case "flip" if raw:
                raw[at] ^= 1 << dice.randrange(8)
            case "byte" if raw:
                raw[at] = dice.randrange(256)
            case "lie":
                size, order = dice.choice((1, 2, 4, 8)), dice.choice(("little", "big"))
                lie = dice.choice(LIES) & ((1 << 8 * size) - 1)
                raw[at : at + size] = lie.to_bytes(size, order)
            case "cut":
                del raw[dice.randrange(len(raw) + 1) :]
            case "zeros":
                raw[at : at + dice.randint(1, 64)] = bytes(dice.randint(1, 64))
            case "again":
                raw[at:at] = raw[at : at + dice.randint(1, 512)]
            case "drop":
                del raw[at : at + dice.randint(1, 64)]
    return bytes(raw)


class Watch:
    """What one reading takes: seconds of this process, and how far its memory grew."""

    def __enter__(self):
        self.begun = time.process_time()
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        self.before = _status("VmRSS")
        return self

    def __exit__(self, *_):
        self.seconds = time.process_time() - self.begun
        self.grown = _status("VmHWM") - self.before


def _status(key):
    return int(re.search(rf"{key}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) << 10


READERS = {
    "sounds": (sounds, [
        lambda p: look_at_recording(p, decode=False), lambda p: look_at_recording(p, decode=True),
        clip_seconds, lambda p: load_clip(p, 16_000), lambda p: load_clip(p, 22_050, 0.2),
    ]),
    "pictures": (pictures, [
        lambda p: look_at_image(p, decode=False), lambda p: look_at_image(p, decode=True),
        image_size, lambda p: load_image(p, 32), lambda p: load_image(p, 16, 1),
    ]),
    "arrays": (arrays, [
        lambda p: look_at_features(p, decode=False), lambda p: look_at_features(p, decode=True),
    ]),
    "tensors": (tensors, [weights.read]),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is read on Linux")
@pytest.mark.parametrize("kind", READERS)
def test_media_that_were_changed_are_read_or_refused(tmp_path, times, dice, kind):
    make, readers = READERS[kind]
    whole = {path: path.read_bytes() for path in make(tmp_path)}
    for path in whole:
        for read in readers:
            read(path)  # as it was, it is fine
    refused = []
    for trial in range(EACH * times // len(READERS) + 1):
        source = dice.choice(list(whole))
        path = tmp_path / f"changed{source.suffix}"
        path.write_bytes(mutated(whole[source], dice))
        for number, read in enumerate(readers):
            with Watch() as watch:
                try:
                    read(path)
                except (UnreadableError, AutotrainError) as error:
                    refused.append(str(error).partition("\n\nhint:")[0])
                except BaseException:
                    _keep(path, trial)
                    raise
            said = f"{source.name}, trial {trial}, reader {number}: {watch.seconds:.1f} s, "
            said += f"{watch.grown >> 20} MiB"
            if watch.seconds > MOST_SECONDS or watch.grown > MOST_BYTES:
                _keep(path, trial)
            assert watch.seconds < MOST_SECONDS, said
            assert watch.grown < MOST_BYTES, said
    assert refused
    assert not [said for said in refused if "\n" in said]
    print(f"{kind}: {trial + 1} changed files, {len(refused)} readings refused")


def _keep(path, trial):
    path.rename(path.with_stem(f"found-{trial}"))


@pytest.mark.parametrize("kind", ["image", "recording", "features"])
def test_a_process_that_looks_at_changed_media_outlives_them(tmp_path, times, dice, kind):
    """Had one of them ended it or held it up, it would be named as such."""
    make = {"image": pictures, "recording": sounds, "features": arrays}[kind]
    whole = {path: path.read_bytes() for path in make(tmp_path)}
    with Looker(kind) as look:
        refused = []
        for trial in range(math.ceil(times / 3)):
            source = dice.choice(list(whole))
            path = tmp_path / f"changed{source.suffix}"
            path.write_bytes(mutated(whole[source], dice))
            try:
                look(path, decode=trial % 2 == 0)
            except UnreadableError as error:
                refused.append(str(error))
        assert look.lost == []
        assert not [said for said in refused if "\n" in said]
