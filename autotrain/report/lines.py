"""One line of plain text for what happens besides the steps."""

from __future__ import annotations

from autotrain.events import Evaluated, Event, Healed, Saved, Started, Stopped, Warned
from autotrain.report.progress import Progress, evaluation
from autotrain.report.text import clean, number, plural
from autotrain.units import bytes_text, seconds_text

ROUTINE_SAVES = {"step", "epoch", "latest", "best", "mirrored"}
STOPS = {
    "finished": "finished",
    "early_stop": "stopped early, no further improvement",
    "max_steps": "stopped at the number of steps asked for",
    "interrupted": "interrupted",
    "terminated": "terminated",
    "not_finite": "stopped: the loss is no longer a finite number",
    "out_of_memory": "stopped: out of memory",
    "error": "stopped by an error",
}


def notable(event: Saved) -> bool:
    """Worth a line in a log: last, interrupted, emergency; its evaluation told of a best one."""
    words = set(event.label.replace("+", ",").replace(" ", ",").split(","))
    return bool(words - ROUTINE_SAVES - {""})


def folder_name(path: str) -> str:
    """The last part of a checkpoint's path, whichever system wrote it."""
    return path.replace("\\", "/").rstrip("/").rpartition("/")[2]


def _source(path: str) -> str:
    """A run's folder and its checkpoint."""
    parts = path.replace("\\", "/").rstrip("/").split("/")
    return f"{parts[-3]} at {parts[-1]}" if len(parts) > 2 else parts[-1]


def line(event: Event, progress: Progress) -> str | None:
    """What happened, in one line without control characters; None for a step."""
    text = _text(event, progress)
    return None if text is None else clean(text)


def _text(event: Event, progress: Progress) -> str | None:
    match event:
        case Started():
            return _started(event)
        case Evaluated():
            return f"{progress.position()}  {evaluation(event)}"
        case Saved():
            took = f"{bytes_text(event.bytes)} in {seconds_text(event.seconds)}"
            return f"saved {folder_name(event.path)} ({event.label}), {took}"
        case Healed():
            cost = f" (cost {seconds_text(event.cost_seconds)})" if event.cost_seconds > 0 else ""
            return f"mended at step {event.step:,}: {event.fault}: {event.cure}{cost}"
        case Warned():
            advice = f" ({event.advice})" if event.advice else ""
            return f"warning: {event.message}{advice}"
        case Stopped():
            return _stopped(event)
    return None


def _started(event: Started) -> str:
    if event.resumed_from:
        where = f"step {event.step:,} of {event.total_steps:,} on {event.device}"
        return f"resuming from {folder_name(event.resumed_from)}: {where}"
    valid = f", {event.valid_count:,} to validate on" if event.valid_count else ""
    begins = ""
    if event.weights_from:
        begins = f"; weights of {_source(event.weights_from)}: {event.weights_taken}"
    return (
        f"training on {event.device}: {plural(event.epochs, 'epoch')} of "
        f"{plural(event.steps_per_epoch, 'step')}, {plural(event.train_count, 'sample')}{valid}"
        f"{begins}"
    )


def _stopped(event: Stopped) -> str:
    detail = f": {event.detail}" if event.detail else ""
    best = ""
    if event.best is not None:
        at = "" if event.best_step is None else f" at step {event.best_step:,}"
        best = f"; best {number(event.best)}{at}"
    took = seconds_text(event.seconds)
    return f"{STOPS[event.reason]}{detail}, step {event.step:,} after {took}{best}"
