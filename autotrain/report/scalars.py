"""TensorBoard scalars, written by the tensorboard package: no torch, no TensorFlow, no thread.

Its RecordWriter is used on a file of our own. Its EventFileWriter would import TensorFlow
where that is installed, and starts a thread, which does not go well with workers that fork.
"""

from __future__ import annotations

import itertools
import os
import socket
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from autotrain.errors import AutotrainError
from autotrain.events import Evaluated, Event, Saved, Step
from autotrain.report.stream import Tolerant

FLUSH_SECONDS = 5.0
_files = itertools.count()


class Scalars:
    """Appends a run's figures to a new event file in `folder`; a resumed run adds another file.

    Raises AutotrainError when the file cannot be made. A disk that fills up later stops
    nothing: one warning on stderr, and no further scalars.
    """

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from tensorboard.compat.proto import event_pb2
            from tensorboard.summary.writer.record_writer import RecordWriter
        name = f"{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_files)}"
        path = folder / f"events.out.tfevents.{name}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._records: Any = RecordWriter(open(path, "wb"))  # noqa: SIM115
        except OSError as error:
            raise AutotrainError(
                f"{folder}: {error.strerror}", "choose a folder you may write"
            ) from None
        self._event: Any = event_pb2.Event
        self._flushed = 0.0
        self._put(self._event(wall_time=time.time(), file_version="brain.Event:2"))

    def write(self, event: Event) -> None:
        """The event's figures, if it has any."""
        found = figures(event)
        if not found:
            return
        record = self._event(wall_time=event.time, step=event.step)
        for tag, value in found.items():
            record.summary.value.add(tag=tag, simple_value=value)
        self._put(record)

    def _put(self, record: Any) -> None:
        if self._records is None:
            return
        try:
            self._records.write(record.SerializeToString())
            now = time.monotonic()
            if now - self._flushed >= FLUSH_SECONDS:
                self._records.flush()
                self._flushed = now
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        """Flush and close; a second time does nothing."""
        records, self._records = self._records, None
        if records is not None:
            try:
                records.close()
            except OSError as error:
                self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        records, self._records = self._records, None
        why = error.strerror or str(error)
        Tolerant(sys.stderr).line(f"warning: TensorBoard scalars: {why}; training goes on")
        if records is not None:
            try:
                records.close()
            except OSError:
                return


@contextmanager
def scalars(folder: Path) -> Iterator[Scalars]:
    """`Scalars`, closed at the end whatever happens."""
    writer = Scalars(folder)
    try:
        yield writer
    finally:
        writer.close()


def figures(event: Event) -> dict[str, float]:
    """Tag -> value, as TensorBoard groups them: by what stands before the slash."""
    if isinstance(event, Step):
        return {
            "train/loss": event.loss,
            **{f"train/{name}": float(value) for name, value in event.parts.items()},
            "train/lr": event.lr,
            "train/grad_norm": event.grad_norm,
            "speed/step_seconds": event.step_seconds,
            "speed/wait_seconds": event.wait_seconds,
            "memory/now_bytes": event.device_bytes,
            "memory/peak_bytes": event.peak_bytes,
            **{tag: value for tag, value in _sensed(event).items() if value is not None},
        }
    if isinstance(event, Evaluated):
        others = {f"valid/{name}": float(value) for name, value in event.metrics.items()}
        return {**others, "valid/loss": event.loss, "speed/evaluate_seconds": event.seconds}
    if isinstance(event, Saved) and event.label != "mirrored":
        return {"speed/save_seconds": event.seconds}
    return {}


def _sensed(event: Step) -> dict[str, float | None]:
    return {
        "gpu/utilisation": event.gpu_utilisation,
        "gpu/celsius": event.gpu_celsius,
        "gpu/watts": event.gpu_watts,
        "speed/others_cpu": event.others_cpu,
    }
