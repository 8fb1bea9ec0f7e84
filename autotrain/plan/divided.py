"""A model divided among processes: what each takes of memory, and when it is divided.

Each keeps its part of parameters, gradients and states. While a block computes, its parameters are
whole; torch gathers the next block's meanwhile, and adds the last one's gradients up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from autotrain.errors import UsageError
from autotrain.plan import memory
from autotrain.plan.memory import affine
from autotrain.schema import ModelProfile, Prediction
from autotrain.units import bytes_text

if TYPE_CHECKING:
    from autotrain.plan.ledger import Ledger
    from autotrain.plan.sizing import Sizing

STRATEGY, REDUCE = "parallel.strategy", "parallel.reduce"
SOURCE = "Rajbhandari 2020, arXiv:1910.02054 (ZeRO); torch's fully_shard"


class Way(NamedTuple):
    """How processes share a model, and whether its activations are computed again."""

    strategy: str = "ddp"
    reduce: str = "last"
    again: bool = False


WHOLE = Way()
# In this order: each exchanges or computes more than the one before, and takes less memory.
WAYS = (
    WHOLE,
    Way(again=True),
    Way("shard"),
    Way("shard", "each"),
    Way("shard", "each", again=True),
)


def ways(ledger: Ledger) -> list[Way]:
    """Those to try, in order; what the user or a recipe fixed is not tried otherwise."""
    if int(ledger.fixed("batch.world_size") or 1) == 1:
        return [way for way in WAYS if way.strategy == "ddp"]
    fixed = {"strategy": ledger.fixed(STRATEGY), "reduce": ledger.fixed(REDUCE)}
    if fixed["strategy"] is None and _undividable(ledger):
        fixed["strategy"] = "ddp"
    known = {name: value for name, value in fixed.items() if value is not None}
    found = [way for way in WAYS if way._replace(**known) == way]
    return found or [Way(**known), Way(**known, again=True)]


def decide(ledger: Ledger, way: Way) -> None:
    """Settle the section `parallel`. Raises UsageError where what was set cannot be divided."""
    several = int(ledger.fixed("batch.world_size") or 1) > 1
    whole = "each process keeps all of the model: that needs the fewest exchanges"
    rule = "autotrain divides a model that does not fit whole" if ledger.fixed(STRATEGY) else whole
    strategy = ledger.settle(
        STRATEGY,
        None if ledger.fixed(STRATEGY) else way.strategy,
        formula=rule if several else "one process trains",
        source="Li 2020, arXiv:2006.15704 (torch's DDP)",
        would_change="--set parallel.strategy=shard",
    )
    reduce = ledger.settle(
        REDUCE,
        way.reduce,
        formula="gradients are added up once a step"
        if way.reduce == "last"
        else "after each micro-batch: so nobody keeps all gradients between two of them",
        source=SOURCE if strategy == "shard" else "torch's DDP",
    )
    if strategy == "ddp" and several and reduce == "each":
        raise UsageError(
            f"{REDUCE}: each is for {STRATEGY} = shard", hint="leave it out, or set both"
        )
    if strategy == "shard" and several and (why := _undividable(ledger)):
        raise UsageError(f"{STRATEGY}: shard does not go with {why}", hint=f"leave {why} out")


def _undividable(ledger: Ledger) -> str:
    """What of how the model is to be run does not go with its division."""
    if ledger.fixed("model.compile"):
        return "model.compile"
    channels_last = ledger.fixed("model.memory_format") == "channels_last"
    return "model.memory_format = channels_last" if channels_last else ""


def tensor_peak_bytes(model: ModelProfile, setup: memory.Setup) -> int:
    """Most bytes of tensors alive at once in one of `setup.world` processes."""
    parts = held(model, setup)
    return round(sum(parts.values()) + max(peaks(model, setup).values()))


def held(model: ModelProfile, setup: memory.Setup) -> dict[str, float]:
    """What each process keeps between steps, in bytes."""
    state = memory.optimizer_state_bytes(
        setup.optimizer, model.trainable_bytes, 0, setup.momentum
    )  # counters are whole
    counters = memory.optimizer_state_bytes(setup.optimizer, 0, model.tensors, setup.momentum)
    average = memory.average_bytes(model) - model.statistics_bytes if setup.ema else 0
    return {
        "weights": model.parameter_bytes / setup.world + model.buffer_bytes,
        "optimizer": state / setup.world + counters,
        "averaged weights": average / setup.world + (model.statistics_bytes if setup.ema else 0),
    }


def peaks(model: ModelProfile, setup: memory.Setup) -> dict[str, float]:
    """What comes on top in a pass, in an evaluation, in the update, in bytes."""
    traces, world = model.at(setup.dtype), setup.world
    resident = model.parameter_bytes + model.buffer_bytes
    later = affine(traces, lambda t: t.accumulate_peak_bytes, setup.micro_batch)
    activations = max(later - model.trainable_bytes - resident, 0.0)
    evaluate = affine(traces, lambda t: t.evaluate_peak_bytes, setup.micro_batch)
    batch = affine(traces, lambda t: t.batch_bytes, setup.micro_batch)
    temporaries = memory.optimizer_step_bytes(
        setup.optimizer, setup.implementation, model, decays=setup.decays, groups=setup.groups
    )
    block, outside = whole(model)
    # Of a single micro-batch gradients come as activations go.
    most = sum if setup.accum_steps > 1 else max
    return {
        "pass": most((activations, gradients(model, setup))) + gathered(model, setup),
        "evaluation": evaluate - model.buffer_bytes + max(block, outside),
        "update": batch + (model.trainable_bytes + temporaries) / world,
    }


def whole(model: ModelProfile) -> tuple[int, int]:
    """Parameters of the largest block, and outside of blocks; all where nobody looked."""
    if model.block_bytes is None or model.outside_bytes is None:
        return 0, model.parameter_bytes
    return model.block_bytes, model.outside_bytes


def gradients(model: ModelProfile, setup: memory.Setup) -> float:
    """Kept through a pass: a part, or all where they wait for the last micro-batch."""
    waits = setup.shard == "last" and setup.accum_steps > 1
    return model.trainable_bytes if waits else model.trainable_bytes / setup.world


def gathered(model: ModelProfile, setup: memory.Setup) -> float:
    """Whole for a while. Outside of blocks parameters and gradients, through the backward pass.

    Of blocks four: parameters and gradients of one, the next one's as they arrive, the gradients
    of the last as they leave.
    """
    block, outside = whole(model)
    waits = setup.shard == "last" and setup.accum_steps > 1
    return outside + 3 * block if waits else 2 * outside + 4 * block


def interval(peak: int) -> Prediction:
    """What 23 cells of six models measured, from -13 to +17 %: docs/formulas.md."""
    return Prediction(low=0.85 * peak, expected=peak, high=1.2 * peak)


def explain(sizing: Sizing) -> None:
    """Say of a division that was chosen what it saves."""
    ledger, setup = sizing.ledger, sizing.planned()
    without = sizing.device_peak(setup._replace(shard="", several=True, world=1))
    within, world = sizing.device_peak(setup), setup.world
    what = "one sample needs" if setup.micro_batch == 1 else f"{setup.micro_batch} samples need"
    ledger.settle(
        STRATEGY,
        "shard",
        formula=f"with the whole model in each process, {what} {bytes_text(without.expected)} (up "
        f"to {bytes_text(without.high)}) of the budget of {bytes_text(sizing.budget())}; with its "
        f"parameters, gradients and optimizer states divided by {world}, "
        f"{bytes_text(within.expected)} (up to {bytes_text(within.high)}); each micro-batch "
        "brings all parameters to each process twice",
        source=SOURCE,
        limited_by="memory.budget_bytes",
        would_change="more free memory, a smaller model or input",
    )
