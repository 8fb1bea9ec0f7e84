"""Files looked at in a process of its own: a decoder that crashes, hangs or wants too much memory
names its file, and takes nothing else with it.

`python -m autotrain.probe.looking`: on stdin what to look at, as lines of JSON, each answered by
one on stdout.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from autotrain.arrays import Frames, look_at_features
from autotrain.confine import confine
from autotrain.errors import AutotrainError
from autotrain.media import UnreadableError
from autotrain.probe.media import Picture, Recording, look_at_image, look_at_recording
from autotrain.units import bytes_text, seconds_text

if TYPE_CHECKING:
    from autotrain.child import Dialogue, Silence

LOOKS: dict[str, tuple[Callable[[Path, bool], Any], type[Any]]] = {
    "image": (look_at_image, Picture),
    "recording": (look_at_recording, Recording),
    "features": (look_at_features, Frames),
}
DECODERS = {"image": ("PIL.Image",), "recording": ("numpy", "soundfile"), "features": ("numpy",)}
# The largest image that is decoded takes 350 MiB.
MEMORY_BYTES = 1 << 30
SECONDS, START_SECONDS, CPU_SECONDS = 20.0, 60.0, 600.0
MOST_LOST = 5  # processes that files may take with them
T = TypeVar("T")


class Looker(Generic[T]):
    """Looks at files of one kind; its process starts with the first of them.

    Raises UnreadableError for a file that cannot be trained on, AutotrainError where
    `MOST_LOST` files have ended or stopped the process that looked at them.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.lost: list[str] = []
        self._process: Dialogue | None = None

    def __enter__(self) -> Looker[T]:
        """Within, files can be looked at."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """The process ends."""
        self._end()

    def __call__(self, path: Path, decode: bool) -> T:
        """What is seen of a file."""
        line = self._asked(json.dumps([self.kind, str(path), decode]).encode())
        if not isinstance(line, bytes) or not line.strip():
            self._end()
            self._lose(path, hung=not isinstance(line, bytes) and line.outcome == "timed_out")
        assert isinstance(line, bytes)
        said = json.loads(line)
        if "problem" in said:
            raise UnreadableError(said["problem"])
        seen: T = LOOKS[self.kind][1](**said)
        return seen

    def _asked(self, question: bytes) -> bytes | Silence:
        limit = SECONDS if self._process is not None else START_SECONDS
        return self._begin().ask(question, seconds=limit)

    def _begin(self) -> Dialogue:
        # Here, as the process that looks imports this module and is to stay small.
        from autotrain.child import Dialogue

        self._process = self._process or Dialogue(__name__)
        return self._process

    def _end(self) -> None:
        if self._process is not None:
            self._process.end()
            self._process = None

    def _lose(self, path: Path, *, hung: bool) -> None:
        why = f"its decoder had not ended after {seconds_text(SECONDS)}"
        why = why if hung else "its decoder crashed"
        self.lost.append(f"{path} ({why})")
        if len(self.lost) >= MOST_LOST:
            raise AutotrainError(
                f"{len(self.lost)} files crash or stop what decodes them: {', '.join(self.lost)}",
                "remove or replace them",
            )
        raise UnreadableError(why)


def main() -> None:
    """Answer until stdin ends."""
    confined = False
    for line in sys.stdin:
        kind, path, decode = json.loads(line)
        if not confined:
            import_decoders(kind)
            confine(MEMORY_BYTES, CPU_SECONDS)
            confined = True
        try:
            said = asdict(LOOKS[kind][0](Path(path), decode))
        except UnreadableError as problem:
            said = {"problem": str(problem)}
        except MemoryError:
            asked = f"it asks for more memory than the {bytes_text(MEMORY_BYTES)} it may take"
            said = {"problem": f"cannot be decoded: {asked}"}
        print(json.dumps(said), flush=True)


def import_decoders(kind: str) -> None:
    """Load what decodes, so that its own memory does not count as a file's."""
    for module in DECODERS[kind]:
        importlib.import_module(module)


if __name__ == "__main__":
    main()
