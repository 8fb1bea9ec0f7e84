"""`report.json`: what a run came to, for programs. Its schema is docs/report.schema.json."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from autotrain.events import Healed, StopReason, Warned
from autotrain.report.convergence import Convergence, convergence
from autotrain.report.diagnosis import Diagnosis, Kind, Place, command, diagnose
from autotrain.report.progress import monitored
from autotrain.report.result import RunResult
from autotrain.schema import Plan, Prediction

REPORT_SCHEMA: Literal[1] = 1


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


@dataclass(frozen=True, slots=True)
class Ended:
    """Why the run ended."""

    reason: StopReason
    detail: str


@dataclass(frozen=True, slots=True)
class Losses:
    """Mean training losses; of log points that are no number, how many there are."""

    first_epoch: float | None
    last_epoch: float | None
    change_percent: float | None
    not_finite_points: int


@dataclass(frozen=True, slots=True)
class Reached:
    """The best monitored figure."""

    metric: str
    value: float | None
    step: int


@dataclass(frozen=True, slots=True)
class Measured:
    """Bytes and seconds; shares from 0 to 1; None where nobody told."""

    device_peak_bytes: int | None
    step_seconds: float | None
    samples_per_second: float | None
    data_wait_share: float | None
    checkpoint_bytes: int | None
    gpu_utilisation: float | None
    gpu_celsius_highest: float | None
    gpu_watts: float | None
    gpu_slowed: dict[str, float] | None
    others_cpu: float | None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One evaluation; `monitored` decides what is best."""

    step: int
    epoch: int
    loss: float | None
    metrics: dict[str, float | None]
    monitored: float | None
    best: bool


@dataclass(frozen=True, slots=True)
class Found:
    """One finding. `changes`: what to set; `command`: the line that makes such a plan."""

    kind: Kind
    since_epoch: int | None
    evidence: str
    advice: str
    changes: dict[str, str]
    command: str | None


@dataclass(frozen=True, slots=True)
class Diagnosed:
    """`verdict`: the kind of the first finding."""

    verdict: Kind
    findings: list[Found]


@dataclass(frozen=True, slots=True)
class RunReport:
    """A run's `report.json`. `stopped` is None for a run that was killed or still goes on.

    `weights`: those that it began with, where they were not its own: from, taken, sha256.
    """

    schema: Literal[1]
    name: str
    made_by: str
    device: str | None
    weights: dict[str, str | None] | None
    stopped: Ended | None
    steps: int
    planned_steps: int
    epochs: int
    sessions: int
    seconds: float
    loss: Losses
    best: Reached | None
    convergence: Convergence | None
    measured: Measured
    predictions: dict[str, Comparison]
    diagnosis: Diagnosed
    evaluations: list[Evaluation]
    healed: list[Healed]
    warnings: list[Warned]
    checkpoint: str | None


@dataclass(frozen=True, slots=True)
class StageReport:
    """Of one stage the outcome; its own folder, `path`, holds its own report."""

    stage: str
    path: str
    stopped: Ended | None
    steps: int
    planned_steps: int
    epochs: int
    seconds: float
    best: Reached | None
    checkpoint: str | None
    diagnosis: Diagnosed


@dataclass(frozen=True, slots=True)
class StagesReport:
    """The `report.json` of a run with stages."""

    schema: Literal[1]
    name: str
    made_by: str
    planned_stages: int
    seconds: float
    stages: list[StageReport]


def as_json(content: RunReport | StagesReport) -> dict[str, Any]:
    """What the file holds. Bytes and seconds; null where something is not known, or no number."""
    found: dict[str, Any] = finite(asdict(content))
    return found


def report(result: RunResult, plan: Plan, place: Place) -> RunReport:
    """What a run came to; `place` is what commands call its plan."""
    stopped, best, sensed = result.stopped, result.best, result.sensed
    change = result.loss_change
    return RunReport(
        schema=REPORT_SCHEMA,
        name=plan.run.name,
        made_by=plan.made_by,
        device=result.started.device if result.started else None,
        weights=_weights(result),
        stopped=Ended(stopped.reason, stopped.detail) if stopped else None,
        steps=result.steps,
        planned_steps=result.full_steps,
        epochs=result.epoch(result.steps) if result.steps else 0,
        sessions=result.sessions,
        seconds=result.seconds,
        loss=Losses(
            result.first_loss,
            result.last_loss,
            None if change is None else 100 * change,
            result.not_finite,
        ),
        best=Reached(best.metric, best.value, best.step) if best else None,
        convergence=convergence(result),
        measured=Measured(
            device_peak_bytes=result.device_peak_bytes,
            step_seconds=result.step_seconds,
            samples_per_second=result.samples_per_second,
            data_wait_share=result.wait_share,
            checkpoint_bytes=result.checkpoint_bytes,
            **sensed,
        ),
        predictions=comparisons(result, plan),
        diagnosis=diagnosed(diagnose(result, plan), place),
        evaluations=_evaluations(result),
        healed=result.healed,
        warnings=result.warned,
        checkpoint=stopped.checkpoint if stopped else None,
    )


def diagnosed(found: Diagnosis, place: Place) -> Diagnosed:
    """With the lines to type."""
    return Diagnosed(
        found.verdict,
        [
            Found(
                each.kind,
                each.since_epoch,
                each.evidence,
                each.advice,
                {change.key: change.value for change in each.changes},
                command(each.changes, place),
            )
            for each in found.findings
        ],
    )


def comparisons(result: RunResult, plan: Plan) -> dict[str, Comparison]:
    """Every prediction of the plan beside the run's own figure.

    A run that took fewer steps than planned is held against that share of the run's time.
    """
    share = min(result.steps / result.full_steps, 1.0) if result.full_steps else 1.0
    part = f"for {result.steps:,} of {result.full_steps:,} steps" if share < 1 else ""
    by_allocator = plan.device.kind in ("cpu", "mps")
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
        gpu_only = by_allocator and key in ("tensor_peak_bytes", "reserved_peak_bytes")
        unknown = "measured on a GPU only" if gpu_only else "not recorded"
        note = (part if key == "run_seconds" else "") if value is not None else unknown
        found[key] = _compare(getattr(plan.predicted, key), value, scale, note)
    return found


def _compare(said: Prediction, measured: float | None, scale: float, note: str) -> Comparison:
    low, expected, high = (scale * part for part in (said.low, said.expected, said.high))
    if measured is None or not math.isfinite(measured):
        return Comparison(low, expected, high, None, None, None, note)
    ratio = measured / expected if expected > 0 else None
    return Comparison(low, expected, high, measured, ratio, low <= measured <= high, note)


def _weights(result: RunResult) -> dict[str, str | None] | None:
    """Whose weights the run began with; None where they were its own."""
    begun = result.begun
    if begun is None or begun.weights_from is None:
        return None
    return {
        "from": begun.weights_from, "taken": begun.weights_taken, "sha256": begun.weights_sha256,
    }  # fmt: skip


def _evaluations(result: RunResult) -> list[Evaluation]:
    monitor = result.started.monitor if result.started else "loss"
    return [
        Evaluation(
            e.step, result.epoch(e.step), e.loss, dict(e.metrics), monitored(e, monitor), e.best
        )
        for e in result.evaluations
    ]


def finite(value: Any) -> Any:
    """JSON has no NaN: null."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
