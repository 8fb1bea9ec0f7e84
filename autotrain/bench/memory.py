"""Memory, predicted beside measured: one row for each model and size, and what they add up to."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autotrain.schema import Plan, Prediction, Record, Trial
from autotrain.units import bytes_text

if TYPE_CHECKING:
    from rich.table import Table

PICTURES, CLASSES, SIDE = 48, 4, 64
LANDMARKS = (51, 2)


class Row(Record):
    """One trial beside the prediction that was made without it. Bytes.

    `message`: why nothing was measured. `tensor_*` and `reserved_*` are measured where the
    allocator tells; what is predicted of the device is the process without loader workers.
    """

    model: str
    device: str
    dtype: str
    optimizer: str
    micro_batch: int
    accum_steps: int
    outcome: str
    message: str = ""
    tensor_predicted: Prediction
    tensor_measured: int | None = None
    reserved_predicted: Prediction
    reserved_measured: int | None = None
    device_predicted: Prediction
    device_measured: int | None = None


class Figures(Record):
    """Absolute relative errors of the expected value, and the share that fell in the interval."""

    what: str
    cases: int
    median: float
    p90: float
    worst: float
    inside: float


def row(name: str, plan: Plan, trial: Trial) -> Row:
    """A plan that was made without trials, and the trial of it."""
    said, ok = plan.predicted, trial.outcome == "ok"
    where = "CPU" if plan.device.kind == "cpu" else f"{plan.device.kind}:{plan.device.index}"
    return Row(
        model=name,
        device=where,
        dtype=plan.precision.dtype,
        optimizer=plan.optimizer.name,
        micro_batch=plan.batch.micro_batch,
        accum_steps=plan.batch.accum_steps,
        outcome=trial.outcome,
        message=trial.message,
        tensor_predicted=said.tensor_peak_bytes,
        tensor_measured=trial.tensor_peak_bytes if ok else None,
        reserved_predicted=said.reserved_peak_bytes,
        reserved_measured=trial.reserved_peak_bytes if ok else None,
        device_predicted=said.device_peak_bytes,
        device_measured=trial.device_peak_bytes if ok else None,
    )


def figures(rows: Sequence[Row]) -> list[Figures]:
    """Median, p90 and worst error of the tensor, reserved and device peaks that were measured."""
    found = []
    for what in ("tensor", "reserved", "device"):
        pairs = [
            (getattr(each, f"{what}_predicted"), getattr(each, f"{what}_measured")) for each in rows
        ]
        known = [(said, took) for said, took in pairs if took]
        if known:
            found.append(_figures(f"{what} peak", known))
    return found


def _figures(what: str, known: Sequence[tuple[Prediction, int]]) -> Figures:
    errors = sorted(abs(said.expected / took - 1) for said, took in known)
    inside = sum(said.low <= took <= said.high for said, took in known)
    # The smallest error that nine of ten do not exceed.
    place = -(-9 * len(errors) // 10) - 1
    return Figures(
        what=what,
        cases=len(errors),
        median=statistics.median(errors),
        p90=errors[place],
        worst=errors[-1],
        inside=inside / len(known),
    )


def table(rows: Sequence[Row]) -> Table:
    """All rows for a person: errors are of what was predicted, over what was measured."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, header_style="bold")
    made.add_column("model")
    made.add_column("setup")
    shown = [w for w in ("tensor", "reserved") if any(getattr(r, f"{w}_measured") for r in rows)]
    for what in shown:
        made.add_column(f"{what} peak", justify="right")
        made.add_column("measured", justify="right")
        made.add_column("error", justify="right")
    for title in ("device peak", "between", "measured", "error"):
        made.add_column(title, justify="right")
    for each in rows:
        cells = [each.model, _setup(each)]
        for what in shown:
            said = getattr(each, f"{what}_predicted")
            took = getattr(each, f"{what}_measured")
            cells += [bytes_text(said.expected), _bytes(took), _error(said, took)]
        said, took = each.device_predicted, each.device_measured
        between = f"{bytes_text(said.low)} to {bytes_text(said.high)}"
        ending = each.outcome.replace("_", " ") if each.outcome != "ok" else _error(said, took)
        made.add_row(*cells, bytes_text(said.expected), between, _bytes(took), ending)
    return made


def _setup(each: Row) -> str:
    parts = f" x {each.accum_steps}" if each.accum_steps > 1 else ""
    return f"{each.device} {each.dtype} {each.optimizer} {each.micro_batch}{parts}"


def _bytes(count: int | None) -> str:
    return "-" if count is None else bytes_text(count)


def _error(said: Prediction, took: int | None) -> str:
    if not took:
        return "-"
    outside = "" if said.low <= took <= said.high else " outside"
    return f"{said.expected / took - 1:+.1%}{outside}"


def summary(figure: Figures) -> str:
    """One line: `device peak  9 cases  median 2.1 %  p90 ...`."""
    return (
        f"{figure.what:14} {figure.cases} cases: median {figure.median:.1%}, "
        f"p90 {figure.p90:.1%}, worst {figure.worst:.1%}; "
        f"{figure.inside:.0%} in the interval"
    )


def write_pictures(folder: Path) -> None:
    """Pictures of noise in a folder per class, for a template that brings none of its own."""
    import numpy
    from PIL import Image

    noise = numpy.random.default_rng(0)
    for number in range(PICTURES):
        place = folder / f"class-{number % CLASSES}"
        place.mkdir(parents=True, exist_ok=True)
        pixels = noise.integers(0, 256, (SIDE, SIDE, 3), dtype=numpy.uint8)
        Image.fromarray(pixels).save(place / f"{number}.png")


def write_features(folder: Path) -> None:
    """Landmarks of noise with glosses, of three signers, for a template that brings none."""
    import numpy

    noise = numpy.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    rows = ["file,glosses,signer"]
    for number in range(PICTURES):
        points = noise.random((noise.integers(40, 80), *LANDMARKS), dtype=numpy.float32)
        numpy.savez(folder / f"{number}.npz", landmarks=points)
        rows.append(f"{number},A B{number % CLASSES} C,s{number % 3}")
    (folder / "glosses.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def write_speech(folder: Path) -> None:
    """The clips that come along: of noise, a recogniser would have nothing to learn."""
    from autotrain.blocks.corpus import SHIPPED

    shutil.copytree(SHIPPED, folder)


# What a template of this kind is measured on where it brings no data.
WRITERS: dict[str, Callable[[Path], None]] = {
    "images": write_pictures,
    "features": write_features,
    "speech": write_speech,
}
