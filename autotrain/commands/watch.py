"""`autotrain watch`: a run as it goes, from another terminal, by its `events.jsonl` alone."""

from __future__ import annotations

import re
import shlex
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from autotrain import planfile, presence
from autotrain.errors import AutotrainError
from autotrain.events import Evaluated, Event, Saved, Started, Step, Stopped, Warned
from autotrain.report.console import Show, viewer
from autotrain.report.follow import Tail, digest, event_of, last_time
from autotrain.report.stages import DONE
from autotrain.report.stream import Tolerant
from autotrain.schema import Plan
from autotrain.units import seconds_text

POLL_SECONDS = 0.5
# Silence is told after a minute, and ten times as long as the longest pause that there was.
SILENT_SECONDS, SILENT_TIMES = 60.0, 10.0
# One whose process is gone may be started again by whoever keeps it running; after that it is dead.
GONE_SECONDS = 10.0
_STAGE = re.compile(r"[1-9][0-9]*-")
_BAD = ("error", "not_finite", "out_of_memory")


def watch(directory: str, track: Sequence[str], *, as_json: bool) -> int:
    """Show a run until it ends: 0, or 1 where it failed or died. A terminal waits for a resume.

    `track`: trackers that are sent its figures in place of a person.
    """
    folder, out = Path(directory), Tolerant(sys.stdout)
    if track:
        return _send(folder, track)
    if folder.is_file():
        raise AutotrainError(f"{folder}: not a run's folder", "name a folder such as runs/my-task")
    try:
        return _follow(folder, out, as_json=as_json)
    except KeyboardInterrupt:
        print("\nno longer watching; the run goes on by itself", file=sys.stderr)
        return 130


def _send(folder: Path, names: Sequence[str]) -> int:
    """Send what was not sent yet, to one after the other, until the run ends."""
    from autotrain.commands.report import plan_of
    from autotrain.report import tracking

    tracking.check(names)
    plan = plan_of(folder)
    for name in names:
        try:
            count = tracking.follow(folder, plan, name)
        except Exception as error:
            why = str(error).partition("\n")[0] or type(error).__name__
            raise AutotrainError(f"{name}: {why}", f"see how {name} itself is set up") from error
        print(f"{name}: {count:,} events sent", file=sys.stderr)
    print(f"\nnext        autotrain report {shlex.quote(str(folder))}", file=sys.stderr)
    return 0


def _follow(folder: Path, out: Tolerant, *, as_json: bool) -> int:
    """Watch the run, or its stages in turn."""
    place, told = None, ""
    watched: _Watch | None = None
    while True:
        gone = watched is not None and watched.gone()
        place, before = _newest(folder), place
        if place is None or place == before:
            if watched is not None and gone:
                _farewell(folder, None, out)
                return watched.code()
            waits = f"waiting for a run in {folder}" if before is None else "waiting for a stage"
            if told != waits:
                print(f"{waits}; ^C leaves", file=sys.stderr)
                told = waits
            place = before
            time.sleep(POLL_SECONDS)
            continue
        watched = _Watch(place, out)
        ended = watched.raw() if as_json else watched.shown()
        if ended is None or ended.reason not in (*DONE, "max_steps") or _last(folder, place):
            _farewell(folder, ended, out)
            return watched.code()


def _newest(folder: Path) -> Path | None:
    """Where events are: the run's own folder, or that of the stage that began last."""
    if (folder / "events.jsonl").is_file():
        return folder
    stages = [p.parent for p in folder.glob("[1-9]*-*/events.jsonl") if _STAGE.match(p.parent.name)]
    return max(stages, key=_standing, default=None)


def _standing(place: Path) -> tuple[float, int]:
    """When a stage's newest event was; of two alike the later stage counts."""
    return last_time(place / "events.jsonl"), int(place.name.partition("-")[0])


def _last(folder: Path, place: Path) -> bool:
    """Whether no stage comes after the one in `place`."""
    plan = _plan_of(folder)
    return place == folder or plan is None or place.name.startswith(f"{len(plan.stage)}-")


def _plan_of(folder: Path) -> Plan | None:
    try:
        return planfile.load(folder / "plan.toml", consistent=False)
    except AutotrainError:
        return None


def _farewell(folder: Path, ended: Stopped | None, out: Tolerant) -> None:
    """The next command."""
    if out.gone:
        return
    name = shlex.quote(str(folder))
    resume = f"autotrain run {shlex.quote(str(folder / 'plan.toml'))} --resume"
    done = ended is not None and ended.reason in DONE
    follow = f"autotrain report {name}" if done else resume
    Tolerant(sys.stderr).line(f"\nnext        {follow}")


class _Watch:
    """One run's events, from where it stands now to its end."""

    def __init__(self, place: Path, out: Tolerant) -> None:
        self.tail, self.out, self.place = Tail(place / "events.jsonl"), out, place
        self.started: Started | None = None
        self.ended: Stopped | None = None
        self.last: Event | None = None
        self.longest = 0.0  # pause between events
        self.heard: float | None = None  # when the last event got here; no clock's step moves it
        self.said = ""
        self.gone_at: float | None = None

    def raw(self) -> Stopped | None:
        """How it ended. Every event as it stands in the file, one a line."""
        while not self._over():
            found = [(line, event_of(line)) for line in self.tail.lines()]
            for line, event in found:
                if event is not None:
                    self._see(event)
                    self.out.line(line)
            self._pause(None, quiet=not found)
        return self.ended

    def shown(self) -> Stopped | None:
        """How it ended. As a run shows itself: first where it stands, then each event."""
        past, plan = digest(self.tail.lines()), _plan_of(self.place)
        if plan is not None:  # which says how many steps the last one stands for
            last = max((e.step for e in past if isinstance(e, Step)), default=0)
            past = [e for e in past if not isinstance(e, Step) or e.step == last]
        with viewer(plan, self.out) as show:
            self._show(past, show)
            while not self._over():
                found = [e for line in self.tail.lines() if (e := event_of(line)) is not None]
                self._show(found, show)
                self._pause(show, quiet=not found)
        return self.ended

    def _pause(self, show: Show | None, *, quiet: bool) -> None:
        self._doubt(show)
        if quiet and not self._over():
            time.sleep(POLL_SECONDS)

    def _show(self, events: Iterable[Event], show: Show) -> None:
        for event in events:
            self._see(event)
            show(event)

    def _see(self, event: Event) -> None:
        if isinstance(event, Started):
            self.started, self.ended, self.gone_at, self.longest = event, None, None, 0.0
        elif self.last is not None:
            self.longest = max(self.longest, event.time - self.last.time)
        if isinstance(event, Evaluated | Saved):
            self.longest = max(self.longest, event.seconds)
        self.ended = event if isinstance(event, Stopped) else self.ended
        self.last, self.said = event, ""
        if self.heard is not None:
            self.heard = time.monotonic()

    def _over(self) -> bool:
        """Whether there is nothing more to wait for. A terminal may wait for a resume."""
        if self.ended is not None or self.out.gone:
            return True
        dead = self.gone_at is not None and time.monotonic() - self.gone_at > GONE_SECONDS
        return dead and not self.out.isatty()

    def code(self) -> int:
        """1 where it failed or died."""
        bad = self.ended is None or self.ended.reason in _BAD
        return int(bad and not self.out.gone)

    def gone(self) -> bool:
        """Whether its process is, so that no stage comes after it."""
        return presence.alive(*_marked(self.started)) is False

    def _doubt(self, show: Show | None) -> None:
        """Say, once, that nothing comes any more, and why if that can be known."""
        if self.last is None or self.ended is not None:
            return
        if self.heard is None:  # what was there already is as old as it says
            self.heard = time.monotonic() - max(time.time() - self.last.time, 0.0)
        there, silent = presence.alive(*_marked(self.started)), time.monotonic() - self.heard
        if there is False:
            self.gone_at = self.gone_at or time.monotonic()
            said, advice = "the run has died: its process is gone, and no end is recorded", ""
        elif silent > max(SILENT_SECONDS, SILENT_TIMES * self.longest):
            said = f"no word from the run for {seconds_text(silent)}"
            advice = "it is at something long" if there else "it may have died"
            if there is None and silent > 10 * SILENT_SECONDS:
                self.gone_at = self.gone_at or time.monotonic()
        else:
            return
        if said.partition(" for ")[0] == self.said:
            return
        self.said = said.partition(" for ")[0]
        if show is not None:
            show(Warned(step=self.last.step, epoch=self.last.epoch, time=self.last.time,
                        message=said, advice=advice))  # fmt: skip


def _marked(started: Started | None) -> tuple[str | None, float]:
    return (started.process, started.time) if started is not None else (None, 0.0)
