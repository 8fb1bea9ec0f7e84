"""Watching: each log point and each evaluation joins the history; red flags become Warned events.

No torch and no device here: plain numbers in, events out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from autotrain.events import Evaluated, Step, Warned
from autotrain.run.cadence import Cadence
from autotrain.run.watching import flags, learning
from autotrain.run.watching.flags import FINE, Flag, Rule, Seen
from autotrain.run.watching.history import History
from autotrain.schema import Plan


def log_point(
    past: History, point: Step, losses: Iterable[float], plan: Plan, way: Cadence
) -> Iterator[Warned]:
    """After a Step event; `losses` are those of its steps, in turn."""
    past.log(point, (point.step - 1) % way.log_every + 1, losses)
    if past.steps and past.steps[-1] == point.step:
        rules = {**flags.AT_LOG_POINTS, **learning.AT_LOG_POINTS}
        yield from _told(rules, Seen(past, plan, way), point)


def evaluation(
    past: History, event: Evaluated, monitored: float, better: str, plan: Plan, way: Cadence
) -> Iterator[Warned]:
    """After an Evaluated event; `monitored` decides what is best, `better` lower or higher."""
    strange = {name: learning.suspicious(name, figure) for name, figure in event.metrics.items()}
    past.evaluate(event, -monitored if better == "higher" else monitored, strange)
    yield from _told(learning.AT_EVALUATIONS, Seen(past, plan, way, better), event)


def _told(rules: Mapping[str, Rule], seen: Seen, at: Step | Evaluated) -> Iterator[Warned]:
    """Each flag once, and again only after it came down."""
    past = seen.past
    for name, rule in rules.items():
        verdict = rule(seen)
        if isinstance(verdict, Flag) and name not in past.told:
            past.told.append(name)
            yield Warned(
                step=at.step, epoch=at.epoch, message=verdict.message, advice=verdict.advice
            )
        elif verdict == FINE and name in past.told:
            past.told.remove(name)
