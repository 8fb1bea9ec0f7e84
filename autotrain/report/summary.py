"""The end of a run: what was predicted beside what was measured, and what to do next."""

from __future__ import annotations

import shlex
from pathlib import Path

from autotrain.report.diagnosis import NAMES as KINDS
from autotrain.report.document import Comparison, Found, RunReport
from autotrain.report.lines import STOPS
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

LISTED = 6
NAMES = {
    "tensor_peak_bytes": "tensor peak",
    "reserved_peak_bytes": "reserved",
    "device_peak_bytes": "memory peak",
    "step_seconds": "one step",
    "run_seconds": "whole run",
    "checkpoint_bytes": "checkpoint",
}
# Of these nothing has to be done.
WELL = ("converged", "improving", "too_short")
RESUMABLE = {"max_steps", "interrupted", "terminated", "error"}


def summary_text(
    said: RunReport, result: RunResult, plan: Plan, directory: Path, path: str = "plan.toml"
) -> str:
    """The last thing `autotrain run` prints: the outcome, the comparison, the next command.

    `directory` is the run's own folder, `path` the plan it was started from.
    """
    blocks = [
        _outcome(said, result, plan),
        _table(said),
        *map(_finding, said.diagnosis.findings),
        _places(directory),
        _next(said, directory, path),
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _finding(found: Found) -> list[str]:
    """What it is, why, what to do, and the line that does it."""
    since = f" since epoch {found.since_epoch}" if found.since_epoch is not None else ""
    lines = [
        labelled("diagnosis", f"{KINDS[found.kind]}{since}: {found.evidence}"),
        labelled("advice", found.advice),
    ]
    return [*lines, literal("try", found.command)] if found.command else lines


def _outcome(said: RunReport, result: RunResult, plan: Plan) -> list[str]:
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
    if said.convergence is not None:
        lines.append(labelled("convergence", said.convergence.text))
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


def _table(content: RunReport) -> list[str]:
    """Fits 80 columns; what does not fit a column is said below."""
    rows, notes = [["", "predicted", "between", "measured", "ratio", ""]], []
    for key, found in content.predictions.items():
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
        literal("page", f"{directory / 'report.html'}"),
        literal("picture", f"{directory / 'report.png'}"),
        literal("figures", f"{directory / 'report.json'}"),
    ]


def _next(said: RunReport, directory: Path, path: str) -> list[str]:
    reason = said.stopped.reason if said.stopped else "error"
    resume = f"autotrain run {shlex.quote(path)} --resume"
    if reason in RESUMABLE:
        return [literal("next", resume)]
    if reason == "out_of_memory":
        return [literal("next", f"lower batch.micro_batch in {path}, then {resume}")]
    if reason == "not_finite":
        return [literal("next", f"lower optimizer.lr in {path}, then {resume}")]
    better = said.diagnosis.findings[0].command
    if better is not None and said.diagnosis.verdict not in WELL:
        return [literal("next", better)]
    curves = f"tensorboard --logdir {shlex.quote(str(directory / 'metrics'))}"
    following = f"autotrain evaluate {shlex.quote(str(directory))}"
    return [literal("curves", curves), literal("next", following)]
