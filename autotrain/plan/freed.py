"""Whether malloc keeps what a step frees, for the next one, or gives it back at once.

Kept, a step need not ask the system for the same pages again: 14 % faster. But where activations
are computed again, much is freed between little that stays, and what is kept are holes: the memory
that the user saved by it is gone.
"""

from __future__ import annotations

from autotrain.plan.ledger import Ledger
from autotrain.schema import ModelProfile


def decide(ledger: Ledger, model: ModelProfile) -> None:
    """Settle `device.keep_freed`."""
    again = model.recomputes and ledger.values["device"]["kind"] == "cpu"
    ledger.settle(
        "device.keep_freed",
        False if again else None,
        formula="the model computes activations again: what it frees between would stay, as holes"
        if again
        else "kept, unless model.activation_checkpointing is on; on a GPU the allocator's business",
        source="measured: docs/measurements/2026-11-28-step-time.md",
        would_change=f"--set device.keep_freed={'true' if again else 'false'}",
    )
