"""The end of a run: what was predicted beside what was measured, and what to do next."""

from __future__ import annotations

import math
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from autotrain.report.convergence import convergence
from autotrain.report.lines import STOPS
from autotrain.report.progress import monitored
from autotrain.report.result import RunResult
from autotrain.report.text import (
    columns,
    interval,
    labelled,
    literal,
    number,
    percent,
    plural,
    quantity,
)
from autotrain.schema import Plan, Prediction
from autotrain.units import seconds_text

REPORT_SCHEMA = 1
LISTED = 6
NAMES = {
    "tensor_peak_bytes": "tensor peak",
    "reserved_peak_bytes": "reserved",
    "device_peak_bytes": "memory peak",
    "step_seconds": "one step",
    "run_seconds": "whole run",
    "checkpoint_bytes": "checkpoint",
}
RESUMABLE = {"max_steps", "interrupted", "terminated", "error"}


@dataclass(frozen=True, slots=True)
class Comparison:
    """A prediction beside what was measured; `measured` is None where it cannot be known."""

    low: float
    expected: float
    high: float
    measured: float | None
    ratio: float | None
    inside: bool | None
    note: str


def comparisons(result: RunResult, plan: Plan) -> dict[str, Comparison]:
    """Every prediction of the plan beside the run's own figure.

    A run that took fewer steps than planned is held against that share of the run's time.
    """
    share = min(result.steps / result.full_steps, 1.0) if result.full_steps else 1.0
    part = f"for {result.steps:,} of {result.full_steps:,} steps" if share < 1 else ""
    unknown = "measured on a GPU only" if plan.device.kind in ("cpu", "mps") else "not recorded"
    measured: dict[str, float | None] = {
        "tensor_peak_bytes": result.tensor_peak_bytes,
        "reserved_peak_bytes": result.reserved_peak_bytes,
        "device_peak_bytes": result.device_peak_bytes,
        "step_seconds": result.step_seconds,
        "run_seconds": result.seconds if result.points else None,
        "checkpoint_bytes": result.checkpoint_bytes,
    }
    found = {}
    for key, value in measured.items():
        scale = share if key == "run_seconds" else 1.0
        note = (part if key == "run_seconds" else "") if value is not None else unknown
        found[key] = _compare(getattr(plan.predicted, key), value, scale, note)
    return found


def _compare(said: Prediction, measured: float | None, scale: float, note: str) -> Comparison:
    low, expected, high = (scale * part for part in (said.low, said.expected, said.high))
    if measured is None or not math.isfinite(measured):
        return Comparison(low, expected, high, None, None, None, note)
    ratio = measured / expected if expected > 0 else None
    return Comparison(low, expected, high, measured, ratio, low <= measured <= high, note)


def report_json(result: RunResult, plan: Plan) -> dict[str, Any]:
    """What `report.json` holds. Bytes and seconds; null where something is not known."""
    stopped, best = result.stopped, result.best
    content = {
        "schema": REPORT_SCHEMA,
        "name": plan.run.name,
        "made_by": plan.made_by,
        "device": result.started.device if result.started else None,
        "weights": _weights(result),
        "stopped": {"reason": stopped.reason, "detail": stopped.detail} if stopped else None,
        "steps": result.steps,
        "planned_steps": result.full_steps,
        "epochs": result.epoch(result.steps) if result.steps else 0,
        "sessions": result.sessions,
        "seconds": result.seconds,
        "loss": {
            "first_epoch": result.first_loss,
            "last_epoch": result.last_loss,
            "change_percent": None if result.loss_change is None else 100 * result.loss_change,
            "not_finite_points": result.not_finite,
        },
        "best": asdict(best) if best else None,
        "convergence": asdict(way) if (way := convergence(result)) else None,
        "measured": {
            "device_peak_bytes": result.device_peak_bytes,
            "step_seconds": result.step_seconds,
            "samples_per_second": result.samples_per_second,
            "data_wait_share": result.wait_share,
            "checkpoint_bytes": result.checkpoint_bytes,
            **result.sensed,
        },
        "predictions": {k: asdict(c) for k, c in comparisons(result, plan).items()},
        "evaluations": _evaluations(result),
        "healed": [asdict(event) for event in result.healed],
        "warnings": [asdict(event) for event in result.warned],
        "checkpoint": stopped.checkpoint if stopped else None,
    }
    return {key: finite(value) for key, value in content.items()}


def _weights(result: RunResult) -> dict[str, str | None] | None:
    """Whose weights the run began with; None where they were its own."""
    begun = result.begun
    if begun is None or begun.weights_from is None:
        return None
    return {
        "from": begun.weights_from, "taken": begun.weights_taken, "sha256": begun.weights_sha256,
    }  # fmt: skip


def _evaluations(result: RunResult) -> list[dict[str, Any]]:
    monitor = result.started.monitor if result.started else "loss"
    return [
        {
            "step": e.step,
            "epoch": result.epoch(e.step),
            "loss": e.loss,
            "metrics": e.metrics,
            "monitored": monitored(e, monitor),
            "best": e.best,
        }
        for e in result.evaluations
    ]


def finite(value: Any) -> Any:
    """JSON has no NaN: null."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def summary_text(result: RunResult, plan: Plan, directory: Path, path: str = "plan.toml") -> str:
    """The last thing `autotrain run` prints: the outcome, the comparison, the next command.

    `directory` is the run's own folder, `path` the plan it was started from.
    """
    blocks = [
        _outcome(result, plan),
        _table(result, plan),
        _places(directory),
        _next(result, directory, path),
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _outcome(result: RunResult, plan: Plan) -> list[str]:
    ended = STOPS[result.stopped.reason] if result.stopped else "no end recorded: killed or running"
    again = f", in {result.sessions} sessions" if result.sessions > 1 else ""
    lines = [
        labelled(plan.run.name, f"{ended}; {_steps(result)}; {seconds_text(result.seconds)}{again}")
    ]
    if result.points:
        lines.append(labelled("loss", _loss(result)))
    if result.best is not None:
        best = result.best
        at = f"at step {best.step:,}, epoch {result.epoch(best.step):,}"
        lines.append(labelled("best", f"{best.metric} {number(best.value)} {at}"))
    if (way := convergence(result)) is not None:
        lines.append(labelled("convergence", way.text))
    if result.samples_per_second is not None and result.wait_share is not None:
        waited = f"{percent(result.wait_share)} of the time spent waiting for data"
        lines.append(labelled("speed", f"{result.samples_per_second:,.3g} samples/s, {waited}"))
    lines += _listed("warned", [event.message for event in result.warned])
    return lines + _listed("mended", [f"{event.fault}: {event.cure}" for event in result.healed])


def _listed(label: str, texts: list[str]) -> list[str]:
    """One below the other, the label at the first; of many the first few, and how many more."""
    shown = texts if len(texts) <= LISTED else texts[: LISTED - 1]
    if shown != texts:
        shown = [*shown, f"and {len(texts) - len(shown)} more, in report.json"]
    dash = "- " if len(shown) > 1 else ""
    return [labelled("" if n else label, f"{dash}{text}") for n, text in enumerate(shown)]


def _steps(result: RunResult) -> str:
    if result.started is None or not result.steps:
        return "no steps"
    epoch, epochs = result.epoch(result.steps), result.started.epochs
    if result.steps < result.full_steps:
        return f"{result.steps:,} of {result.full_steps:,} steps, in epoch {epoch} of {epochs}"
    return f"{plural(result.steps, 'step')}, {plural(epochs, 'epoch')}"


def _loss(result: RunResult) -> str:
    change = result.loss_change
    text = f"{number(result.last_loss)}, mean of the last epoch"
    if change is not None:
        text = f"{number(result.first_loss)} -> {number(result.last_loss)}"
        text += f" ({abs(100 * change):.1f} % {'down' if change <= 0 else 'up'}"
        text += ", mean of the first epoch and of the last)"
    if result.not_finite:
        text += f"; not finite at {result.not_finite:,} of {len(result.points):,} log points"
    return text


def _table(result: RunResult, plan: Plan) -> list[str]:
    """Fits 80 columns; what does not fit a column is said below."""
    rows, notes = [["", "predicted", "between", "measured", "ratio", ""]], []
    for key, found in comparisons(result, plan).items():
        said = Prediction(low=found.low, expected=found.expected, high=found.high)
        measured = "-" if found.measured is None else quantity(key, found.measured)
        ratio = "-" if found.ratio is None else _ratio(found.ratio)
        expected = quantity(key, found.expected)
        rows.append([NAMES[key], expected, interval(key, said), measured, ratio, _verdict(found)])
        notes += [f"{NAMES[key]}: {found.note}"] if found.note else []
    return [*columns(rows), *notes]


def _ratio(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.1g}"


def _verdict(found: Comparison) -> str:
    if found.measured is None:
        return "unknown"
    side = "above" if found.measured > found.high else "below"
    return "inside" if found.inside else side


def _places(directory: Path) -> list[str]:
    return [
        literal("checkpoints", f"{directory / 'checkpoints'}"),
        literal("picture", f"{directory / 'report.png'}"),
        literal("figures", f"{directory / 'report.json'}"),
    ]


def _next(result: RunResult, directory: Path, path: str) -> list[str]:
    reason = result.stopped.reason if result.stopped else "error"
    resume = f"autotrain run {shlex.quote(path)} --resume"
    if reason in RESUMABLE:
        return [literal("next", resume)]
    if reason == "out_of_memory":
        return [literal("next", f"lower batch.micro_batch in {path}, then {resume}")]
    if reason == "not_finite":
        return [literal("next", f"lower optimizer.lr in {path}, then {resume}")]
    curves = f"tensorboard --logdir {shlex.quote(str(directory / 'metrics'))}"
    return [
        literal("curves", curves),
        literal("next", f"autotrain evaluate {shlex.quote(str(directory))}"),
    ]
