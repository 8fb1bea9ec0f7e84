"""Images and recordings looked at: their headers, and whether what these say is there."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autotrain.media import UnreadableError, blocks, open_clip, open_image

HEAD_FRAMES = 1 << 20
HEAD_VALUES = 1 << 22
TAIL_FRAMES = 1 << 12
# Decoded values a byte beyond which a file is decoded whatever that costs: no codec of speech
# or music comes near, silence and lies do.
SUSPICIOUS = 64


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
    """Header of an image, and with `decode` its first picture decoded. Raises UnreadableError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with open_image(path) as image:
            picture = Picture(*image.size, image.mode)
            if decode:
                image.draft(None, (max(picture.width // 8, 1), max(picture.height // 8, 1)))
                image.load()
    return picture


def look_at_recording(path: Path, decode: bool) -> Recording:
    """Header of a clip, and with `decode` its start and end decoded. Raises UnreadableError.

    One that claims more than its size can hold is decoded anyway.
    """
    with _quiet(path), open_clip(path) as clip:
        recording = Recording(clip.frames, clip.samplerate, clip.channels)
        values = recording.frames * recording.channels
        if decode or values > SUSPICIOUS * os.stat(path).st_size:
            return replace(recording, silent=not _peak(clip, recording))
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

    head = min(recording.frames, HEAD_FRAMES, max(HEAD_VALUES // recording.channels, 1))
    peak = 0.0
    for block in blocks(clip, head):
        peak = max(peak, float(np.abs(block).max()))
        if not np.isfinite(block).all():
            raise UnreadableError("holds samples that are not finite")
    if head < recording.frames:
        tail = min(TAIL_FRAMES, recording.frames - head)
        clip.seek(recording.frames - tail)
        for _ in blocks(clip, tail):
            pass
    return peak
