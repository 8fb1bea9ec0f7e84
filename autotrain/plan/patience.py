"""How many evaluations without progress to wait: for the run's end, for a lower learning rate.

A figure from n validation samples is uncertain by about 1 / sqrt(n) of itself: exactly so for a
loss that varies among samples as much as its mean, and for an error rate p of a half, where
sqrt(p (1 - p) / n) / p = 1 / sqrt(n). Two evaluations of the same samples differ by no more.
Progress that can be seen has to be larger. Errors fall about as the square root of the training
done, so by x / 2 of themselves while the training grows by x of itself: x = 2 / sqrt(n) of the run
passes until real progress stands out at its end. A tenth of the run is added for stalls that are
no noise.
"""

from __future__ import annotations

import math

TENTH, HALF = 0.1, 0.5
# d log(steps) that an error of so much of itself takes, where errors fall as steps^-0.5.
STEPS_OF_ERROR = 2.0
STALL_STEPS = 500
LEAST, MOST_LEAST = 3, 10
# ReduceLROnPlateau's own default is 10.
LEAST_PLATEAU, MOST_PLATEAU = 3, 10


def uncertainty(valid_count: int) -> float:
    """Standard deviation of a validation figure over the figure itself, about."""
    return 1 / math.sqrt(max(valid_count, 1))


def share(valid_count: int) -> float:
    """The part of a run to wait for progress: from a tenth to a half."""
    return min(TENTH + STEPS_OF_ERROR * uncertainty(valid_count), HALF)


def by_noise(valid_count: int, evaluations: int) -> int:
    """Evaluations in which real progress should have shown, of the run's `evaluations`."""
    return math.ceil(round(share(valid_count) * evaluations, 9))


def least(evaluations: int, steps_between: float) -> int:
    """To wait in any case: 500 steps of training, from 3 to 10 evaluations, half the run's at most.

    A few steps without progress say nothing, however many samples judge them.
    """
    usual = min(max(math.ceil(STALL_STEPS / max(steps_between, 1)), LEAST), MOST_LEAST)
    return min(usual, math.ceil(HALF * evaluations))


def patience(valid_count: int, evaluations: int, steps_between: float) -> int:
    """Evaluations without progress before stopping, of the run's `evaluations`."""
    return max(by_noise(valid_count, evaluations), least(evaluations, steps_between))


def plateau_patience(stop_after: int) -> int:
    """Evaluations without progress before the rate falls: a third of what ends a run, 3 to 10."""
    return min(max(stop_after // 3, LEAST_PLATEAU), MOST_PLATEAU)


def after_falls(schedule_patience: int) -> int:
    """Evaluations in which a plateau lowers the rate twice and sees what it does."""
    return 2 * (schedule_patience + 1) + 1


def after_restart(period_steps: int, steps_between: float) -> int:
    """Evaluations until a schedule that restarts is back where its rate was lowest."""
    return math.ceil(round(period_steps / max(steps_between, 1), 9))
