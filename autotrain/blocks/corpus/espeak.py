"""Speech from espeak-ng's library: the samples, and the sample at which each phoneme begins.

Standard library and numpy only, so that a process which speaks starts in a tenth of a second.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from autotrain.blocks.alignments import PAUSE
from autotrain.errors import AutotrainError

INSTALL = "install it: apt-get install -y espeak-ng (macOS: brew install espeak-ng)"
QUIET = 200  # of 32768
LIBRARIES = ("libespeak-ng.so.1", "libespeak-ng.1.dylib", "libespeak-ng.dll", "espeak-ng.dll")

# Of speak_lib.h.
_SYNCHRONOUS, _PHONEME_EVENTS, _DONT_EXIT = 2, 0x0001, 0x8000
_UTF8, _BY_CHARACTER, _LIST_ENDS, _PHONEME = 1, 1, 0, 7
_SPEED, _PITCH, _RANGE = 1, 3, 4

Samples = np.ndarray[Any, np.dtype[np.int16]]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("string", ctypes.c_char * 8),
    ]


_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


class Manner(NamedTuple):
    """How a sentence is spoken: a voice such as `en-us+f2`, its words a minute (80 to 350), its
    pitch (0 to 99, 50 is the voice's own) and how far that moves (0 to 100, 50 is natural)."""

    voice: str
    speed: int = 160
    pitch: int = 50
    range: int = 50


class Spoken(NamedTuple):
    """`samples`: int16 [samples] at `rate` hertz. `phonemes`: (name, its first sample), in order;
    the first begins at 0 and the last ends with the samples. One that lies wholly in its
    neighbour (the l of `miles`) begins where the next does."""

    samples: Samples
    rate: int
    phonemes: list[tuple[str, int]]

    def spans(self) -> list[tuple[str, int, int]]:
        """(name, first sample, the one behind its last) of each phoneme; no pause of length 0."""
        ends = [*(at for _, at in self.phonemes[1:]), len(self.samples)]
        named = zip(self.phonemes, ends, strict=True)
        return [(name, at, end) for (name, at), end in named if end > at or name != PAUSE]


class Espeak:
    """The library, ready to speak. One a process: it keeps its state in global variables.

    What was spoken before changes a few samples of what follows (a flutter in the pitch goes on),
    so the same samples come only from the same sentences in the same order in a new process.
    """

    def __init__(self) -> None:
        self.library = _load()
        self.rate = self.library.espeak_Initialize(
            _SYNCHRONOUS, 0, None, _PHONEME_EVENTS | _DONT_EXIT
        )
        if self.rate <= 0:
            raise AutotrainError("espeak-ng does not find its data", INSTALL)
        where = ctypes.c_char_p()
        self.library.espeak_Info.restype = ctypes.c_char_p
        self.version = self.library.espeak_Info(ctypes.byref(where)).decode().split(" ")[0]
        self.data = Path((where.value or b"").decode())
        self._chunks: list[Samples] = []
        self._marks: list[tuple[str, int]] = []
        self._callback = _CALLBACK(self._take)  # kept: the library calls it later
        if hasattr(self.library, "espeak_ng_SetRandSeed"):  # of 1.52: its noise follows the clock
            self.library.espeak_ng_SetRandSeed(ctypes.c_long(1))

    def say(self, text: str, manner: Manner) -> Spoken:
        """Speak a text. Raises AutotrainError for an unknown voice, and where nothing is said."""
        self._choose(manner)
        self._chunks, self._marks = [], []
        # Each time: another of these may have set its own, and be gone by now.
        self.library.espeak_SetSynthCallback(self._callback)
        raw = text.encode() + b"\0"
        failed = self.library.espeak_Synth(
            raw, ctypes.c_size_t(len(raw)), 0, _BY_CHARACTER, 0, _UTF8, None, None
        )
        if failed or not self._chunks or not self._marks:
            raise AutotrainError(f"espeak-ng says nothing for {text!r}")
        samples = np.concatenate(self._chunks)
        if np.abs(samples[: self._marks[0][1]]).max(initial=0) > QUIET:
            # Of a dozen voices that are chosen and say nothing it keeps events, and loses the next.
            raise AutotrainError(f"espeak-ng loses the first phoneme of {text!r}", "say it again")
        return Spoken(samples, self.rate, _in_order(self._marks, len(samples)))

    def has(self, voice: str) -> bool:
        """Whether there is such a voice; it is taken then."""
        _, plus, variant = voice.partition("+")
        known = not plus or (self.data / "voices" / "!v" / variant).is_file()
        return known and not self.library.espeak_SetVoiceByName(voice.encode())

    def _choose(self, manner: Manner) -> None:
        """Take this voice, speed, pitch and range. Raises AutotrainError for an unknown voice."""
        if not self.has(manner.voice):
            raise AutotrainError(
                f"espeak-ng has no voice {manner.voice}",
                "`espeak-ng --voices` and `espeak-ng --voices=variant` list them",
            )
        for parameter, value in (
            (_SPEED, manner.speed),
            (_PITCH, manner.pitch),
            (_RANGE, manner.range),
        ):
            self.library.espeak_SetParameter(parameter, value, 0)

    def fix_pitch(self, hertz: int) -> None:
        """Speak at exactly this pitch, flutter included, until told otherwise (0): for tests."""
        self.library.espeak_ng_SetConstF0(hertz)

    def _take(self, samples: Any, count: int, events: Any) -> int:
        if samples and count > 0:
            self._chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        number = 0
        while events[number].type != _LIST_ENDS:
            if events[number].type == _PHONEME:
                name = events[number].string.decode("utf-8", "replace")
                if not name.startswith("("):  # `(en)`: the language changes here
                    self._marks.append((name, events[number].sample))
            number += 1
        return 0


def _load() -> Any:
    for name in (ctypes.util.find_library("espeak-ng"), *LIBRARIES):
        if name is None:
            continue
        with suppress(OSError):
            return ctypes.CDLL(name)
    raise AutotrainError("espeak-ng is not installed: no library libespeak-ng", INSTALL)


def _in_order(marks: list[tuple[str, int]], count: int) -> list[tuple[str, int]]:
    """Marks from 0 on, none behind the end; `_:`, `_|` and silence without a name are pauses."""
    names = (PAUSE if name.startswith(PAUSE) or not name.strip() else name for name, _ in marks)
    placed = [(name, min(at, count)) for name, (_, at) in zip(names, marks, strict=True)]
    return placed if placed[0][1] == 0 else [(PAUSE, 0), *placed]


def is_here() -> bool:
    """Whether espeak-ng's library can be loaded."""
    try:
        _load()
    except AutotrainError:
        return False
    return True
