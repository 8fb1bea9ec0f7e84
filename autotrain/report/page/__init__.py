"""`report.html`: a run on one page, with charts to hover, that asks nothing of any network.

All that comes from plans, names and events is escaped, or data that the script only shows as
text. A Content-Security-Policy lets no other script or style run than the two of this folder.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from autotrain.files import write_atomic
from autotrain.report.diagnosis import NAMES as KINDS
from autotrain.report.document import Comparison, Evaluation, Found, RunReport
from autotrain.report.explain import settings
from autotrain.report.lines import STOPS
from autotrain.report.page import svg
from autotrain.report.panels import Panel, panels
from autotrain.report.result import RunResult
from autotrain.report.summary import NAMES
from autotrain.report.text import clean, interval, number, plural, quantity, setting
from autotrain.schema import Plan, Prediction
from autotrain.units import seconds_text

# Of a long list the newest; all are in report.json.
LISTED = 200
# What a plan says of the places on somebody's disk is nobody else's.
_PRIVATE = ("task.", "run.directory", "checkpoint.mirror", "predicted.")
_LOOKS = {"converged": "well", "improving": "open", "too_short": "open"}


def write_html(said: RunReport, result: RunResult, plan: Plan, path: Path) -> None:
    """Write the page, whole or not at all. Raises AutotrainError where it cannot be written."""
    write_atomic(path, html(said, result, plan))


def html(said: RunReport, result: RunResult, plan: Plan) -> str:
    """The page of a run."""
    shown = panels(result, plan)
    body = [
        _head(said, plan),
        section("Diagnosis", _cards(said.diagnosis.findings)),
        section("The run", svg.figures(shown, result.steps)),
        section("Predicted and measured", _predictions(said)),
        _happened(said),
        _evaluations(said),
        _settings(plan),
        f"<footer>made by {escape(clean(said.made_by))}; nothing on this page comes from a "
        "network</footer>",
    ]
    per_epoch = result.started.steps_per_epoch if result.started else 1
    return document(said.name, body, shown, result.steps, per_epoch)


def document(
    title: str, body: Sequence[str], shown: Sequence[Panel], steps: int, per_epoch: int
) -> str:
    """A whole page of these parts, each HTML; `shown` are the panels that its script knows.

    `per_epoch`: steps of an epoch; 0: of no one's.
    """
    style, script = _asset("page.css"), _asset("page.js")
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    content = {
        "steps": max(steps, 1),
        "per_epoch": per_epoch,
        "panels": [svg.data(panel) for panel in shown if not panel.empty],
    }
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(clean(title))}</title>\n<style>{style}</style></head>\n<body>\n"
        f"{''.join(part for part in body if part)}\n"
        f'<script type="application/json" id="data">{_inert(content)}</script>\n'
        f"<script>{script}</script>\n</body></html>\n"
    )


@cache
def _asset(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"sha256-{digest}"


def _inert(content: dict[str, Any]) -> str:
    """JSON in which no text can end the element that holds it."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def section(title: str, content: str) -> str:
    """A part of the page under a heading; nothing where there is nothing."""
    return f"<section><h2>{title}</h2>{content}</section>\n" if content else ""


def _head(said: RunReport, plan: Plan) -> str:
    ended = STOPS[said.stopped.reason] if said.stopped else "no end recorded: killed or running"
    detail = f": {said.stopped.detail}" if said.stopped and said.stopped.detail else ""
    best = said.best
    facts = {
        "steps": f"{said.steps:,} of {said.planned_steps:,}",
        "epochs": f"{said.epochs:,} of {plan.train.epochs:,}",
        "time": seconds_text(said.seconds),
        "best": f"{best.metric} {_number(best.value)} at step {best.step:,}" if best else "",
        "device": said.device or "",
        "samples a step": f"{plan.batch.micro_batch} x {plan.batch.accum_steps}"
        f" = {plan.batch.global_batch}",
        "precision": plan.precision.dtype,
        "optimizer": f"{plan.optimizer.name}, {plan.optimizer.lr:.3g}, {plan.schedule.name}",
        "sessions": f"{said.sessions}" if said.sessions > 1 else "",
    }
    rows = "".join(
        f"<div><dt>{name}</dt><dd>{escape(clean(text))}</dd></div>"
        for name, text in facts.items()
        if text
    )
    outcome = f'<p class="soft">{escape(clean(ended + detail))}</p>'
    facts_shown = f'<dl class="facts">{rows}</dl>'
    return f"<header><h1>{escape(clean(said.name))}</h1>{outcome}{facts_shown}</header>\n"


def _cards(findings: Iterable[Found]) -> str:
    cards = []
    for found in findings:
        since = f", since epoch {found.since_epoch}" if found.since_epoch is not None else ""
        command = (
            f'<div class="command"><code>{escape(clean(found.command))}</code>'
            '<button type="button">copy</button></div>'
            if found.command
            else ""
        )
        cards.append(
            f'<article class="card {_LOOKS.get(found.kind, "bad")}">'
            f"<h3>{escape(KINDS[found.kind] + since)}</h3><p>{escape(clean(found.evidence))}</p>"
            f'<p class="soft">{escape(clean(found.advice))}</p>{command}</article>'
        )
    return f'<div class="cards">{"".join(cards)}</div>'


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells are HTML; a column whose heading begins with a star holds text."""
    kinds = ["text" if head.startswith("*") else "" for head in heads]
    top = _cells("th", kinds, [head.lstrip("*") for head in heads])
    body = "".join(f"<tr>{_cells('td', kinds, row)}</tr>" for row in rows)
    return (
        f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _cells(tag: str, kinds: Sequence[str], texts: Sequence[str]) -> str:
    return "".join(
        f'<{tag} class="{kind}">{text}</{tag}>' for kind, text in zip(kinds, texts, strict=True)
    )


def _predictions(said: RunReport) -> str:
    rows = []
    for key, found in said.predictions.items():
        between = interval(key, Prediction(low=found.low, expected=found.expected, high=found.high))
        measured = "-" if found.measured is None else quantity(key, found.measured)
        verdict = {True: "inside", False: "outside", None: ""}[found.inside]
        rows.append(
            (
                escape(NAMES[key]),
                quantity(key, found.expected),
                between,
                measured,
                "-" if found.ratio is None else f"{found.ratio:.2f}",
                _bar(found),
                f'<span class="{verdict}">{verdict}</span> {escape(found.note)}',
            )
        )
    heads = ("", "predicted", "between", "measured", "ratio", "*", "*")
    return table(heads, rows)


def _bar(found: Comparison) -> str:
    """The interval as a line, the expected value as a stroke, the measured one as a dot."""
    known = [found.low, found.high, *([found.measured] if found.measured is not None else [])]
    low, high = min(known), max(known)

    def at(value: float) -> float:
        return 8 + 114 * (value - low) / ((high - low) or 1.0)

    line = f"M{at(found.low):.1f} 7H{at(found.high):.1f}"
    stroke = f"M{at(found.expected):.1f} 2V12"
    dot = ""
    if found.measured is not None:
        colour = "green" if found.inside else "red"
        dot = f'<circle class="dot {colour}" cx="{at(found.measured):.1f}" cy="7" r="4"/>'
    paths = f'<path class="bold ink" d="{line}"/><path class="bold ink" d="{stroke}"/>'
    return f'<svg viewBox="0 0 130 14" aria-hidden="true">{paths}{dot}</svg>'


def _happened(said: RunReport) -> str:
    warned = [(e.step, e.message + (f" ({e.advice})" if e.advice else "")) for e in said.warnings]
    mended = [(e.step, f"{e.fault}: {e.cure}") for e in said.healed]
    parts = []
    for title, told in (("Warned", warned), ("Mended", mended)):
        if told:
            items = "".join(
                f"<li>step {step:,}: {escape(clean(text))}</li>" for step, text in told[-LISTED:]
            )
            parts.append(section(title, f"<ul>{items}</ul>"))
    return "".join(parts)


def _number(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else number(value)


def _evaluations(said: RunReport) -> str:
    told: Sequence[Evaluation] = said.evaluations
    if not told:
        return ""
    names = list(dict.fromkeys(name for e in told for name in e.metrics if name != "loss"))[:12]
    rows = [
        (
            f"{e.step:,}",
            f"{e.epoch:,}",
            _number(e.loss),
            *(_number(e.metrics.get(name)) for name in names),
            "best" if e.best else "",
        )
        for e in told[-LISTED:]
    ]
    heads = ("step", "epoch", "validation loss", *(escape(clean(name)) for name in names), "*")
    count = f"the last {LISTED} of {len(told):,}" if len(told) > LISTED else f"{len(told):,}"
    return f"<details><summary>Evaluations ({count})</summary>{table(heads, rows)}</details>\n"


def _settings(plan: Plan) -> str:
    rows = []
    for key, value in settings(plan).items():
        if value is None or key.startswith(_PRIVATE):
            continue
        section, _, name = key.partition(".")
        reason = plan.because.get(section, {}).get(name)
        why = reason.formula if reason is not None else ""
        rows.append((escape(key), escape(setting(key, value)), escape(clean(why))))
    listed = table(("", "*value", "*why"), rows)
    return f"<details><summary>Settings ({plural(len(rows), 'key')})</summary>{listed}</details>\n"
