"""What a run may mend by itself, and when it gives up."""

from __future__ import annotations

from autotrain.plan.ledger import Ledger
from autotrain.plan.sizing import Sizing
from autotrain.units import seconds_text

# Losses of ordinary training scatter with heavy tails; ten robust deviations they do not reach.
SPIKE_SCORE = 10.0
ROLLBACKS = 3
BAD_SAMPLES = 0.01
# A worker that stays away for so many times as long as a micro-batch takes to load, and for a
# minute at least (a disk that wakes up, a network that comes back), is not slow but stuck.
PATIENCE, LEAST_SECONDS = 50.0, 60.0


def decide(ledger: Ledger, sizing: Sizing) -> None:
    """Settle what counts as a fault, and how much of it is borne."""
    loading, workers = sizing.time.loading_seconds(), ledger.value("loader.workers")
    timeout = round(max(LEAST_SECONDS, PATIENCE * loading), 1)
    ledger.settle(
        "loader.timeout_seconds",
        timeout if workers else None,
        formula=f"max({LEAST_SECONDS:.0f} s, {PATIENCE:.0f} x {seconds_text(loading)} that a "
        "micro-batch loads)" if workers else "no workers that could hang",
        source="our choice: a worker that stays away for longer is stuck, and is started again",
    )  # fmt: skip
    ledger.settle(
        "heal.spike_score",
        SPIKE_SCORE,
        formula="loss > median + max(score x 1.4826 x MAD, 5 x (highest - median), |median|) of "
        "the last 128 steps",
        source="Iglewicz and Hoaglin 1993 on the median absolute deviation; our score",
        kind="fixed",
    )
    ledger.settle(
        "heal.rollbacks",
        ROLLBACKS,
        formula="back to the last good checkpoint and on behind what went wrong, at most so often",
        source="as for PaLM (Chowdhery et al. 2022, 5.1), which went back and passed over the data",
        kind="fixed",
    )
    ledger.settle(
        "heal.bad_samples",
        BAD_SAMPLES,
        formula="more unreadable samples than this share stop the run, with their names",
        source="our choice: a few broken files are ordinary, many are a fault of the data",
        kind="fixed",
    )
    ledger.settle(
        "batch.split",
        None,
        formula="micro-batches are taken whole; a run that ran out of memory parts them",
        source="run/healing/heal.py",
    )
