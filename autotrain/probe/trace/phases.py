"""The parts of a traced step: a first micro-batch, a later one, an evaluation."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from autotrain.probe.trace.counter import Counter


@dataclass(frozen=True, slots=True)
class Phase:
    """What one part took. `start`: where it begins on the counter's tape."""

    start: int
    peak: int
    work: Any

    def told(self) -> dict[str, Any]:
        """What its operators did, by field of StepTrace."""
        names = ("matmul_flops", "convolution_flops", "moved_bytes", "ops")
        found = {name: getattr(self.work, name) for name in names}
        return found | {
            "untouched_bytes": round(self.work.untouched_bytes),
            "work": self.work.done(),
        }


def phase(counter: Counter, run: Callable[[], None]) -> Phase:
    """Run a part of a step and read the counter."""
    counter.restart()
    start = len(counter.tape)
    if counter.recorder is not None:
        counter.recorder.mark()
    run()
    measured = Phase(start, counter.peak, counter.work)
    gc.collect()
    return measured
