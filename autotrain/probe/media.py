"""Images and recordings looked at without trusting what their headers say."""

from __future__ import annotations

import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autotrain.probe.findings import UnreadableError
from autotrain.units import bytes_text

IMAGE_FORMATS = ("PNG", "JPEG", "MPO", "BMP", "GIF", "WEBP", "TIFF", "PPM")
PIXEL_LIMIT = 89_478_485  # Pillow's: 256 MiB at three bytes a pixel
HEAD_FRAMES = 1 << 20
BLOCK_FRAMES = 1 << 16
TAIL_FRAMES = 1 << 12


@dataclass(frozen=True, slots=True)
class Picture:
    """An image's header. `mode` is Pillow's: L, RGB, RGBA, P, ..."""

    width: int
    height: int
    mode: str

    @property
    def pixels(self) -> int:
        """What decoding it costs."""
        return self.width * self.height


@dataclass(frozen=True, slots=True)
class Recording:
    """A clip's header: frames per channel and hertz; `silent` where all decoded is zero."""

    frames: int
    rate: int
    channels: int
    silent: bool = False

    @property
    def seconds(self) -> float:
        """Its duration."""
        return self.frames / self.rate


def look_at_image(path: Path, decode: bool) -> Picture:
    """Header of an image, and with `decode` its first picture decoded. Raises UnreadableError.

    Nothing but the formats above is tried: some of Pillow's others start programs.
    """
    from PIL import Image

    Image.init()
    formats = [name for name in IMAGE_FORMATS if name in Image.OPEN]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(path, formats=formats) as image:
                picture = Picture(*image.size, image.mode)
                if not 0 < picture.pixels <= PIXEL_LIMIT:
                    raise UnreadableError(_bomb(picture))
                if decode:
                    image.draft(None, (max(picture.width // 8, 1), max(picture.height // 8, 1)))
                    image.load()
        except Image.DecompressionBombError:
            raise UnreadableError(f"an image bomb: over {2 * PIXEL_LIMIT:,} pixels") from None
        except UnreadableError:
            raise
        except Exception as error:  # decoders raise nearly anything on broken input
            raise UnreadableError(_image_problem(error)) from None
    return picture


def _bomb(picture: Picture) -> str:
    return (
        f"an image bomb: {picture.width} x {picture.height} pixels, over the limit of "
        f"{PIXEL_LIMIT:,}"
    )


def _image_problem(error: Exception) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"cannot be decoded: {text[:200]}"


def look_at_recording(path: Path, decode: bool) -> Recording:
    """Header of a clip, and with `decode` its start and end decoded. Raises UnreadableError."""
    import soundfile

    _check_wav(path)
    try:
        with _quiet(path), soundfile.SoundFile(path) as clip:
            recording = Recording(clip.frames, clip.samplerate, clip.channels)
            if min(recording.frames, recording.rate, recording.channels) <= 0:
                raise UnreadableError("holds no sound")
            if decode:
                return replace(recording, silent=not _peak(clip, recording))
    except soundfile.LibsndfileError as error:
        raise UnreadableError(f"cannot be decoded: {error.error_string.rstrip('.')}") from None
    except (OSError, RuntimeError, ValueError, MemoryError) as error:
        raise UnreadableError(f"cannot be decoded: {str(error)[:200]}") from None
    return recording


@contextmanager
def _quiet(path: Path) -> Iterator[None]:
    """Keep the MP3 decoder's own lines, one for each doubtful frame, from standard error."""
    if path.suffix.lower() != ".mp3":
        yield
        return
    try:
        kept = os.dup(2)
    except OSError:  # standard error is closed
        yield
        return
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _peak(clip: Any, recording: Recording) -> float:
    """Largest magnitude in the first million frames, which must be there, as the last must."""
    import numpy as np

    wanted = min(recording.frames, HEAD_FRAMES)
    got, peak = 0, 0.0
    while got < wanted and len(block := clip.read(min(BLOCK_FRAMES, wanted - got), "float32")):
        got += len(block)
        peak = max(peak, float(np.abs(block).max()))
        if not np.isfinite(block).all():
            raise UnreadableError("holds samples that are not finite")
    if got == wanted < recording.frames:
        tail = min(TAIL_FRAMES, recording.frames - wanted)
        clip.seek(recording.frames - tail)
        got, wanted = got + len(clip.read(tail, dtype="float32")), wanted + tail
    if got < wanted:
        raise UnreadableError(
            f"truncated: of the {recording.frames} frames in its header {got} could be read"
        )
    return peak


def _check_wav(path: Path) -> None:
    """The decoder silently believes the file's size instead of the header; we say so."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            riff, _, wave = struct.unpack("<4sI4s", file.read(12).ljust(12, b"\0"))
            if (riff, wave) != (b"RIFF", b"WAVE"):
                return
            for _ in range(64):
                head = file.read(8)
                if len(head) < 8:
                    return
                name, length = struct.unpack("<4sI", head)
                left = size - file.tell()
                if name == b"data" and length > left:
                    raise UnreadableError(
                        f"its header claims {bytes_text(length)} of sound, "
                        f"{bytes_text(left)} are there"
                    )
                file.seek(length + length % 2, 1)
    except OSError as error:
        raise UnreadableError(error.strerror or str(error)) from None
