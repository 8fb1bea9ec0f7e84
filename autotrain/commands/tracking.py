"""`run --track wandb`: a process beside the run sends its figures; the run knows nothing of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from autotrain import child, planfile
from autotrain.events import Evaluated, Event, Stopped

# After a run has ended its last figures are waited for so long; then they are sent without it.
END_SECONDS, HURRY_SECONDS = 15.0, 1.0


class Tracked:
    """`see` every event; `close` at the end. One process for each tracker."""

    def __init__(self, directory: Path, names: Sequence[str]) -> None:
        self._directory, self._wanted = directory, [*names]
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._patience = END_SECONDS

    def _log(self, name: str) -> Path:
        return self._directory / f"track-{name}.log"

    def see(self, event: Event) -> None:
        """Begin with the first event; say, once, that a tracker has given up."""
        while self._wanted:
            self._begin(self._wanted.pop())
        if isinstance(event, Stopped) and event.reason in ("interrupted", "terminated"):
            self._patience = HURRY_SECONDS
        if isinstance(event, Evaluated | Stopped):
            for name, process in [*self._running.items()]:
                if process.poll():
                    self._give_up(name)

    def _begin(self, name: str) -> None:
        try:
            self._log(name).unlink(missing_ok=True)
            with open(self._log(name), "xb") as log:
                self._running[name] = start(self._directory, name, log)
        except Exception as error:
            self._say(name, str(error))

    def _give_up(self, name: str) -> None:
        del self._running[name]
        said = b""
        with suppress(OSError):
            said = self._log(name).read_bytes()[-4000:]
        lines = [line for line in said.decode(errors="replace").splitlines() if line.strip()]
        self._say(name, lines[-1].strip() if lines else "no word why")

    def _say(self, name: str, why: str) -> None:
        from autotrain.report.stream import Tolerant
        from autotrain.report.text import clean

        again = f"`autotrain watch {self._directory} --track {name}` sends them"
        Tolerant(sys.stderr).line(
            f"warning: {name}: figures are not sent: {clean(why)[:300]}; training goes on; {again}"
        )

    def close(self) -> None:
        """Wait a little for the last figures."""
        for name, process in [*self._running.items()]:
            try:
                if process.wait(self._patience):
                    self._give_up(name)
            except subprocess.TimeoutExpired:
                print(
                    f"{name}: figures are still being sent, without this process", file=sys.stderr
                )


@contextmanager
def tracked(directory: Path, names: Sequence[str]) -> Iterator[Tracked]:
    """`Tracked`, closed at the end."""
    trackers = Tracked(directory, names)
    yield trackers
    trackers.close()


def start(directory: Path, name: str, log: IO[bytes]) -> subprocess.Popen[bytes]:
    """A process that sends the figures of the run in this folder, until it ends."""
    return child.start("autotrain.commands.tracking", log, log, str(directory), name)


def main(directory: str, name: str) -> None:
    """What that process does."""
    from autotrain.report.tracking import follow

    folder = Path(directory)
    follow(folder, planfile.load(folder / "plan.toml"), name)


if __name__ == "__main__":
    main(*sys.argv[1:3])
