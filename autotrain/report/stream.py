"""A stream that never stops a training run: a closed pipe or a full disk is its own problem."""

from __future__ import annotations

import io
from typing import TextIO


class Tolerant(io.TextIOBase):
    """Writes to `stream` until that fails, then to nowhere.

    Characters that the stream's encoding lacks become `?`.
    """

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__()
        self._stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The wrapped stream's; rich chooses its characters by it."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    @property
    def gone(self) -> bool:
        """Whether nobody reads any more."""
        return self._stream is None

    def isatty(self) -> bool:
        """Whether a person is likely to be looking."""
        try:
            return self._stream is not None and self._stream.isatty()
        except (OSError, ValueError):
            return False

    def fileno(self) -> int:
        """The wrapped stream's descriptor; rich asks it for the terminal's size."""
        if self._stream is None:
            raise io.UnsupportedOperation("fileno")
        return self._stream.fileno()

    def write(self, text: str) -> int:
        """Write, or lose the text; never raises."""
        if self._stream is not None:
            try:
                self._stream.write(self._writable(text))
            except (OSError, ValueError):
                self._stream = None
        return len(text)

    def flush(self) -> None:
        """Flush, or give the stream up; never raises."""
        if self._stream is not None:
            try:
                self._stream.flush()
            except (OSError, ValueError):
                self._stream = None

    def line(self, text: str) -> None:
        """One line, at once: a reader of a log wants it now."""
        self.write(text + "\n")
        self.flush()

    def _writable(self, text: str) -> str:
        try:
            return text.encode(self.encoding).decode(self.encoding)
        except UnicodeError:
            return text.encode(self.encoding, "replace").decode(self.encoding)
