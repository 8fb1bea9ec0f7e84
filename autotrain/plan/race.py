"""Which way of running the model a race found fastest, and what else may enter one."""

from __future__ import annotations

from typing import Any

from autotrain.plan.ledger import Ledger
from autotrain.schema import (
    Device,
    Dtype,
    MemoryFormat,
    ModelProfile,
    Plan,
    Race,
    Raced,
    Variant,
    clear_winner,
)
from autotrain.units import seconds_text

# The plain way is left only for one that is faster by more than what a race cannot tell apart.
MARGIN, NEAR = 0.03, 0.02
DTYPE, FORMAT, THREADS = "precision.dtype", "model.memory_format", "device.threads"


def variants(
    plan: Plan, model: ModelProfile, device: Device, fixed: frozenset[str]
) -> list[Variant]:
    """What may compete: the plan's own way first, then others that the user left open.

    On a CPU, each with each: bf16 where the CPU computes it natively, channels_last where the
    model convolves pictures, half of the threads and one where there are more. On a GPU:
    channels_last with the format it computes fast in.
    """
    own = Variant(plan.precision.dtype, plan.model.memory_format, plan.device.threads)
    on_cpu = device.kind == "cpu"
    dtypes: list[Dtype] = [own.dtype]
    if on_cpu and DTYPE not in fixed and own.dtype == "fp32" and "bf16" in device.native_dtypes:
        dtypes.append("bf16")
    formats: list[MemoryFormat] = [own.memory_format]
    if FORMAT not in fixed and model.convolutions and own.memory_format == "contiguous":
        formats.append("channels_last")
    threads = {own.threads}
    if on_cpu and THREADS not in fixed:
        threads |= {1, max(own.threads // 2, 1)}
    return [
        Variant(d, f, many)
        for many in sorted(threads, reverse=True)
        for d in dtypes
        for f in formats
    ]


def cuts(plan: Plan, model: ModelProfile, fixed: frozenset[str]) -> tuple[int, ...]:
    """Smaller micro-batches that may be faster: halves and quarters, where nothing else changes.

    Not where batch norm would see fewer samples, or the loss ties them together.
    """
    whole, given = plan.batch.micro_batch, {"batch.micro_batch", "batch.accum_steps"} & fixed
    if model.batch_norm or model.mixes or plan.batch.buckets or given or plan.batch.accum_steps > 1:
        return ()
    parts = (part for part in (2, 4) if whole % part == 0)
    return tuple(whole // part for part in parts)


def preferred(race: Race | None) -> tuple[int, str] | None:
    """The micro_batch that is clearly faster than the whole, and why; None where none is.

    The smallest of those within NEAR of the fastest.
    """
    if race is None or len(race.cuts) < 2:
        return None
    (whole, plain), *_ = race.cuts
    best = min(took for _, took in race.cuts)
    if best > (1 - MARGIN) * plain:
        return None
    size, took = min(cut for cut in race.cuts if cut[1] <= (1 + NEAR) * best)
    return size, (
        f"{whole} samples took {seconds_text(plain)} at once and {seconds_text(took)} in parts of "
        f"{size} (a race)"
    )


def answers(race: Race, plan: Plan, ways: list[Variant]) -> bool:
    """Whether a race that was held says enough of this plan: the same ways, at the same size."""
    tried = {raced.variant for raced in race.runs}
    return race.micro_batch == plan.batch.micro_batch and tried >= set(ways[:1])


def winner(race: Race, fixed: dict[str, Any]) -> Raced | None:
    """The fastest of those that agree with what is fixed; the plain one within MARGIN of it."""

    def agrees(variant: Variant) -> bool:
        dtype, memory_format, threads = (fixed.get(k) for k in (DTYPE, FORMAT, THREADS))
        return (
            dtype in (None, variant.dtype)
            and memory_format in (None, variant.memory_format)
            and threads in (None, variant.threads)
        )

    able = [raced for raced in race.runs if agrees(raced.variant)]
    if not able:
        return None
    return clear_winner(able, race.accum_steps, MARGIN)


def found(race: Race | None, ledger: Ledger) -> dict[str, tuple[Any, str]]:
    """What a race decided: settings, each with its value and why."""
    keys = (DTYPE, FORMAT, THREADS)
    if race is None or len(race.runs) < 2:
        return {}
    fixed = {key: ledger.fixed(key) for key in keys if ledger.fixed(key) is not None}
    best = winner(race, fixed)
    if best is None:
        return {}
    values = dict(zip(keys, best.variant[:3], strict=True))
    return {key: (values[key], said(race, best, n)) for n, key in enumerate(keys)}


def said(race: Race, best: Raced, place: int) -> str:
    """What the winner took, and what those did that differ from it in this one setting alone."""
    chosen, alike = best.variant[place], _without(best.variant, place)
    own = best.step_seconds(race.accum_steps)
    others = {
        raced.variant[place]: raced.step_seconds(race.accum_steps)
        for raced in race.runs
        if _without(raced.variant, place) == alike and raced.variant[place] != chosen
    }
    rest = f"({', '.join(alike)})"
    first = f"{chosen} took {seconds_text(own)} a step at micro_batch {race.micro_batch} {rest}"
    if not others:
        return f"{first}; nothing else was tried with these"
    shown = ", ".join(f"{value} {seconds_text(took)}" for value, took in others.items())
    near = f"; less than {MARGIN:.0%} faster does not count" if min(others.values()) < own else ""
    return f"{first}, {shown}{near}"


def _without(variant: Variant, place: int) -> tuple[str, ...]:
    """A way's other settings, as a person reads them."""
    threads = f"{variant.threads} thread{'' if variant.threads == 1 else 's'}"
    words = (variant.dtype, variant.memory_format, threads)
    return tuple(word for n, word in enumerate(words) if n != place)
