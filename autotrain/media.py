"""Images and recordings opened without trusting what they say; a probe and a run both do it here.

Only regular files, only formats that people train on, and nothing is allocated for a claim.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from autotrain.errors import AutotrainError, one_line
from autotrain.files import open_regular
from autotrain.units import bytes_text

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_FORMATS = ("PNG", "JPEG", "MPO", "BMP", "GIF", "WEBP", "TIFF", "PPM")
PIXEL_LIMIT = 89_478_485  # Pillow's: 256 MiB at three bytes a pixel
# So many pixels a byte are a blank sheet at best; a large one of these is taken for a bomb.
BOMB_RATIO, BOMB_PIXELS = 200, 1 << 24
RATES = range(100, 1_000_001)  # hertz
BLOCK_VALUES = 1 << 18  # decoded at once, over all channels
_SOUND = (b"RIFF", b"RF64", b"FORM", b"fLaC", b"OggS")
_CHUNKS = 64


class UnreadableError(Exception):
    """One file cannot be trained on; the text says why, in one line that any terminal may show."""

    def __init__(self, why: str) -> None:
        super().__init__(one_line(why, 400))


@contextmanager
def open_image(path: Path) -> Iterator[Image]:
    """An image whose header has been read; what its decoder raises within comes out as
    UnreadableError.

    Nothing but the formats above is tried: some of Pillow's others start programs.
    """
    from PIL import Image

    Image.init()
    formats = [name for name in IMAGE_FORMATS if name in Image.OPEN]
    try:
        with open_regular(path) as file, Image.open(file, formats=formats) as image:
            _refuse_bomb(image.width, image.height, os.fstat(file.fileno()).st_size)
            yield image
    except Image.DecompressionBombError:
        raise UnreadableError(f"an image bomb: over {2 * PIXEL_LIMIT:,} pixels") from None
    except (UnreadableError, AutotrainError):
        raise
    except Exception as error:  # decoders raise nearly anything on broken input
        raise UnreadableError(_problem(error)) from None


def _refuse_bomb(width: int, height: int, size: int) -> None:
    claim = f"an image bomb: {width} x {height} pixels"
    if not 0 < width * height <= PIXEL_LIMIT:
        raise UnreadableError(f"{claim}, over the limit of {PIXEL_LIMIT:,}")
    if width * height > max(BOMB_PIXELS, BOMB_RATIO * size):
        raise UnreadableError(f"{claim} in {bytes_text(size)}")


@contextmanager
def open_clip(path: Path) -> Iterator[Any]:
    """A recording as soundfile.SoundFile; what its decoder raises within comes out as
    UnreadableError. It has frames and channels, and a rate that people record at.
    """
    import soundfile

    try:
        with open_regular(path) as file:
            _check_sound(file)
            # By its handle: what stands at the path may be another file by now.
            source: int | str = str(path) if os.name == "nt" else file.fileno()
            file.seek(0)
            os.lseek(file.fileno(), 0, os.SEEK_SET)
            with soundfile.SoundFile(source, closefd=False) as clip:
                if min(clip.frames, clip.channels) <= 0:
                    raise UnreadableError("holds no samples")
                if clip.samplerate not in RATES:
                    raise UnreadableError(f"its header claims {clip.samplerate} samples a second")
                yield clip
    except (UnreadableError, AutotrainError):
        raise
    except Exception as error:
        raise UnreadableError(_problem(error)) from None


def blocks(clip: Any, wanted: int) -> Iterator[Any]:
    """The next `wanted` frames of a clip, as float32 [frames, channels] arrays of bounded size.

    Raises UnreadableError where it ends before: what a header claims need not be there.
    """
    got, most = 0, max(BLOCK_VALUES // clip.channels, 1)
    while got < wanted:
        block = clip.read(min(most, wanted - got), dtype="float32", always_2d=True)
        if not len(block):
            raise UnreadableError(
                f"truncated: of the {clip.frames} frames in its header {got} could be read"
            )
        got += len(block)
        yield block


def _problem(error: Exception) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    if isinstance(error, MemoryError):
        return "cannot be decoded: it asks for more memory than there is"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    said = getattr(error, "error_string", None) or str(error)
    return f"cannot be decoded: {said[:200].rstrip('.') or type(error).__name__}"


def _check_sound(file: BinaryIO) -> None:
    """Raise UnreadableError for what is no sound, and for a WAV that is shorter than it says.

    The decoder silently believes the file's size instead of the header.
    """
    start = file.read(12).ljust(12, b"\0")
    mpeg = start[:3] == b"ID3" or (start[0] == 0xFF and start[1] >= 0xE0)
    if start[:4] not in _SOUND and not mpeg:
        raise UnreadableError("cannot be decoded: not WAV, FLAC, Ogg, MP3 or AIFF")
    riff, _, wave = struct.unpack("<4sI4s", start)
    if (riff, wave) != (b"RIFF", b"WAVE"):
        return
    size = os.fstat(file.fileno()).st_size
    for _ in range(_CHUNKS):
        head = file.read(8)
        if len(head) < 8:
            return
        name, length = struct.unpack("<4sI", head)
        left = size - file.tell()
        if name == b"data" and length > left:
            raise UnreadableError(
                f"its header claims {bytes_text(length)} of sound, {bytes_text(left)} are there"
            )
        file.seek(length + length % 2, 1)
