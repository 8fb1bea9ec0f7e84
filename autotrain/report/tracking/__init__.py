"""A run's figures for W&B or MLflow: read from `events.jsonl` by a process that is not the run's.

So their packages, threads and networks can neither slow a run nor end it; what was not sent is
still in the file, and is sent by whoever asks next. Their own settings (`WANDB_MODE`,
`MLFLOW_TRACKING_URI`, ...) say where figures go.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

from autotrain import files, presence
from autotrain.errors import AutotrainError
from autotrain.events import Event, Started, Stopped
from autotrain.report.explain import settings
from autotrain.report.follow import Tail, digest, event_of
from autotrain.report.scalars import figures
from autotrain.report.text import setting
from autotrain.schema import Plan

TRACKERS = ("wandb", "mlflow")
POLL_SECONDS = 1.0
# One whose process is gone, or that says nothing for so long, is not waited for.
SILENT_SECONDS = 3600.0
KEPT = "tracking.json"
# Places on somebody's disk, or in somebody's cloud.
_PRIVATE = ("task.data", "task.file", "run.directory", "checkpoint.mirror")


class Row(NamedTuple):
    """Figures of one event: tags as TensorBoard has them."""

    step: int
    time: float
    figures: dict[str, float]


class About(NamedTuple):
    """A run, to a tracker. `plain`: settings as text; `identity`: its name there, the same after
    each resume; None at first.
    """

    name: str
    folder: Path
    plain: dict[str, str]
    identity: str | None


class Sender(NamedTuple):
    """An open run of a tracker. `whole`: it wants all rows again from the beginning."""

    identity: str
    send: Callable[[list[Row]], None]
    whole: bool = False


Opened = AbstractContextManager[Sender]


def check(names: Iterable[str]) -> None:
    """Raise AutotrainError for a tracker that is none, or whose package is not installed."""
    for name in names:
        if name not in TRACKERS:
            raise AutotrainError(f"--track {name}: not known", f"one of {', '.join(TRACKERS)}")
        if importlib.util.find_spec(name) is None:
            raise AutotrainError(
                f"--track {name}: {name} is not installed", f"pip install 'autotrain[{name}]'"
            )


def follow(folder: Path, plan: Plan, name: str) -> int:
    """Send a run's figures until it ends; returns how many events. Raises what the tracker does."""
    opened: Callable[[About], Opened] = importlib.import_module(f"{__name__}.to_{name}").opened
    kept = _kept(folder).get(name, {})
    path, sent, quiet = folder / "events.jsonl", 0, 0.0
    known = digest(Tail(path).lines())
    with opened(About(plan.run.name, folder, _plain(plan), kept.get("id"))) as sender:
        tail = Tail(path)
        tail.skip(0 if sender.whole else int(kept.get("sent", 0)))
        while True:
            events = [e for line in tail.lines() if (e := event_of(line)) is not None]
            if rows := [Row(e.step, e.time, found) for e in events if (found := figures(e))]:
                sender.send(rows)
            if events:
                sent, known = sent + len(events), [*known, *events]
                _keep(folder, name, {"id": sender.identity, "sent": tail.at})
            quiet = 0.0 if events else quiet + POLL_SECONDS
            known = [*(e for e in known[:-1] if isinstance(e, Started))][-1:] + known[-1:]
            if _over(known, quiet):
                return sent
            time.sleep(POLL_SECONDS)


def _over(known: list[Event], quiet: float) -> bool:
    """Whether nothing more is to come: it stopped, its process is gone, or it is long silent.

    `known`: how the newest session began, if that is known, and the newest event.
    """
    begun = next((e for e in reversed(known) if isinstance(e, Started)), None)
    gone = begun is not None and presence.alive(begun.process, begun.time) is False
    stopped = bool(known) and isinstance(known[-1], Stopped)
    return stopped or (gone and quiet > 0) or quiet > SILENT_SECONDS


def _plain(plan: Plan) -> dict[str, str]:
    """Settings that say something, without places on somebody's disk."""
    found = settings(plan).items()
    return {
        key: setting(key, value)
        for key, value in found
        if value is not None and key not in _PRIVATE
        and not key.startswith("predicted.")
    }  # fmt: skip


def _kept(folder: Path) -> dict[str, Any]:
    found = files.read_json(folder / KEPT)
    sound = isinstance(found, dict) and all(isinstance(v, dict) for v in found.values())
    return found if sound else {}


def _keep(folder: Path, name: str, content: dict[str, Any]) -> None:
    files.write_atomic(folder / KEPT, json.dumps({**_kept(folder), name: content}, indent=1))


def new_identity() -> str:
    """A name that no other run has."""
    return uuid.uuid4().hex[:16]
