"""How the model is run: its memory format, compiled or not, activations kept or recomputed."""

from __future__ import annotations

from autotrain.plan.ledger import Ledger


def decide(ledger: Ledger) -> None:
    """Settle the section `model`."""
    ledger.settle(
        "model.memory_format",
        "contiguous",
        formula="torch's own order of a tensor's dimensions",
        source="autotrain's rule",
    )
    ledger.settle(
        "model.compile",
        False,
        formula="compiling costs a minute or more, and is not always faster",
        source="autotrain's rule",
    )
    ledger.settle(
        "model.activation_checkpointing",
        False,
        formula="activations are kept: computing them again costs a third more",
        source="Chen 2016, arXiv:1604.06174",
    )
