"""Where a run stands, as plain numbers: what a checkpoint keeps of it besides tensors."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from autotrain.run.watching.history import History
from autotrain.schema import Number, Whole


@dataclass
class RunState:
    """Where a run stands, between two steps. `evaluated` is the step of the last evaluation.

    `weight` counts up to the last log point. `reference` is the figure that patience compares
    with: it moves by `min_delta` at least, `best` by anything. `bad_streak`: steps in a row that
    were not committed, when it was last looked; `rollbacks`: how often the run went back;
    `went_back_at`: where it stood then, `went_back_to`: the step of the checkpoint it took;
    `broken_evaluations`: those in a row whose loss was not finite, `sound_evaluation`: the step
    of the last one whose loss was. `history` is what the red flags look at.
    """

    step: Whole = 0
    samples: Whole = 0
    weight: Number = 0.0
    evaluated: Whole = 0
    best: Number | None = None
    best_step: Whole | None = None
    reference: Number | None = None
    bad_evaluations: Whole = 0
    bad_streak: Whole = 0
    rollbacks: Whole = 0
    went_back_at: Whole | None = None
    went_back_to: Whole | None = None
    broken_evaluations: Whole = 0
    sound_evaluation: Whole = 0
    history: History = field(default_factory=History)

    def copied(self) -> dict[str, Any]:
        """As plain data that shares nothing with it: what `dataclasses.asdict` makes, soon."""
        return {**vars(self), "history": self.history.copied()}

    def judge(self, figure: float, better: str, min_delta: float) -> bool:
        """Take note of an evaluation's monitored figure; True if it is the best so far."""
        sign = 1.0 if better == "higher" else -1.0
        ahead = math.inf if self.reference is None else sign * (figure - self.reference)
        if math.isfinite(figure) and ahead > min_delta:
            self.reference, self.bad_evaluations = figure, 0
        else:
            self.bad_evaluations += 1
        best = self.best is None or sign * (figure - self.best) > 0
        if not (math.isfinite(figure) and best):
            return False
        self.best, self.best_step = figure, self.step
        return True

    def forget_best(self, step: int) -> None:
        """The best one is of a step whose weights were lost: the next figure is the best so far."""
        if self.best_step == step:
            self.best = self.best_step = None
