"""`autotrain evaluate`: a checkpoint's figures over a split, as the run itself counts them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from autotrain import files
from autotrain.commands.opened import Opened, Wanted, explained, open_run
from autotrain.commands.streams import data_only
from autotrain.errors import AutotrainError, UsageError
from autotrain.events import Healed, Warned
from autotrain.rates import band, is_error_rate
from autotrain.report.evaluation import Confusion, Evaluation

if TYPE_CHECKING:
    from autotrain.run.evaluate import Figures
    from autotrain.run.trained import Trained

_EXIT = {"interrupted": 130, "terminated": 143}


def evaluate(wanted: Wanted, split: str, *, as_json: bool) -> int:
    """Print every figure, of classifiers each class; write them into the run's folder."""
    with data_only() as out:
        from autotrain.run.trained import SPLITS

        if split not in SPLITS:
            raise UsageError(f"--split {split}: no such split", hint=f"one of {', '.join(SPLITS)}")
        opened = open_run(wanted, split)
        found = _evaluated(opened)
        if isinstance(found, int):
            return found
        written = _written(found, opened.place)
        following = f"autotrain {'predict' if opened.task.predict else 'export'} {opened.command}"
        following += " INPUT..." if opened.task.predict else " --to onnx"
        record = json.dumps(found.record())
        print(record if as_json else found.text(written, following), file=out, flush=True)
    return 0


def _evaluated(opened: Opened) -> Evaluation | int:
    """The figures; the exit code where somebody stopped it on the way."""
    from autotrain.device import capped, settings
    from autotrain.run.evaluate import evaluate as over
    from autotrain.run.signals import Stop

    plan, begun = opened.plan, perf_counter()
    with Stop().catch() as stop, settings(plan), capped(plan):
        trained = opened.load()
        try:
            table = _Table(trained)
            print(f"evaluating step {trained.step:,} on {trained.split}: {trained.count:,} samples",
                  file=sys.stderr)  # fmt: skip
            figures = over(trained, stop, table)
            matrix = table.read()
        except Exception as error:
            raise explained(error, f"evaluating {opened.name}") from error
        finally:
            trained.feed.close()
            _tell(trained)
        if figures is None:
            return _EXIT[stop.reason or "interrupted"]
    return _made(opened, trained, figures, matrix, perf_counter() - begun)


def _made(
    opened: Opened, trained: Trained, figures: Figures, matrix: Confusion | None, seconds: float
) -> Evaluation:
    from autotrain.run.keeping.keeper import pointed

    return Evaluation(
        name=opened.name,
        step=trained.step,
        best=pointed(opened.place).get("best") == trained.step,
        averaged=trained.averaged,
        weights_sha256=trained.weights_sha256,
        split=str(trained.split),
        samples=trained.count,
        device=str(trained.device),
        dtype=trained.precision.dtype,
        seconds=seconds,
        loss=figures.loss,
        metrics=figures.metrics,
        bands={key: _band(value) for key, value in figures.metrics.items() if is_error_rate(key)},
        monitor=opened.task.monitor,
        confusion=matrix,
    )


def _band(rate: float) -> tuple[str, str]:
    found = band(rate)
    return found.name, found.advice


class _Table:
    """Counts, batch by batch, which class is taken for which, where the task says how."""

    def __init__(self, trained: Trained) -> None:
        self.trained = trained
        self.counts: Any = None

    def __call__(self, batch: Any) -> None:
        if (count := self.trained.task.confusion) is None:
            return
        with self.trained.precision.autocast():
            counted: Any = count(self.trained.model, batch)
        self.counts = counted if self.counts is None else self.counts + counted

    def read(self) -> Confusion | None:
        """Raises AutotrainError where the names are not as many as the classes."""
        if self.counts is None:
            return None
        counts = [[int(value) for value in row] for row in self.counts.tolist()]
        names = [str(name) for name in self.trained.task.classes or range(len(counts))]
        if len(names) != len(counts):
            raise AutotrainError(
                f"the task names {len(names)} classes, its model answers for {len(counts)}",
                "Task(classes=...): a name for each output, in their order",
            )
        return Confusion(names, counts)


def _tell(trained: Trained) -> None:
    """What was put right on the way: samples that could not be read, workers that died."""
    for event in trained.feed.news:
        if isinstance(event, Healed):
            print(f"warning: {event.fault}: {event.cure}", file=sys.stderr)
        elif isinstance(event, Warned):
            print(f"warning: {event.message}", file=sys.stderr)
    for note in trained.form.notes:
        print(f"warning: {note}", file=sys.stderr)


def _written(found: Evaluation, place: Path) -> list[str]:
    """The files in the run's folder; one that cannot be written is said, and costs nothing."""
    written = []
    figures = place / f"evaluation-{found.split}.json"
    picture = place / f"confusion-{found.split}.png"
    try:
        files.write_atomic(figures, json.dumps(found.record(), indent=1) + "\n")
        written.append(str(figures))
        if found.confusion is not None:
            from autotrain.report import confusion

            title = f"{found.name}, step {found.step:,}, {found.split}"
            confusion.write_png(found.confusion, title, picture)
            written.append(str(picture))
    except (OSError, AutotrainError) as error:
        print(f"warning: not written: {error}", file=sys.stderr)
    return written
