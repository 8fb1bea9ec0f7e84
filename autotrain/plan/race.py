"""Which way of running the model a race found fastest, and what else may enter one."""

from __future__ import annotations

from collections.abc import Sequence
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
    RacedCut,
    Variant,
    clear_winner,
)
from autotrain.units import seconds_text

# A plainer way is left only for one that is faster by more than what a race cannot tell apart.
MARGIN, NEAR = 0.05, 0.02
# The fastest of another memory format may be the fastest of all in smaller parts, if it took so
# many times as long as the winner at most.
LEADERS = 1.25
DTYPE, FORMAT, THREADS = "precision.dtype", "model.memory_format", "device.threads"
_SIZES = ("batch.micro_batch", "batch.accum_steps")


def variants(
    plan: Plan, model: ModelProfile, device: Device, fixed: frozenset[str], cores: int = 0
) -> list[Variant]:
    """What may compete: the plan's own way first, then others that the user left open.

    On a CPU, each with each: bf16 where the CPU computes it natively, channels_last where the
    model convolves pictures, half of the threads and one where there are more, and all `cores`
    where the plan leaves some to its loader. On a GPU: channels_last with the format it computes
    fast in.
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
        most = max(own.threads, cores)
        threads |= {1, max(most // 2, 1), most}
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
    whole, given = plan.batch.micro_batch, {*_SIZES} & fixed
    if model.batch_norm or model.mixes or plan.batch.buckets or given or plan.batch.accum_steps > 1:
        return ()
    parts = (part for part in (2, 4) if whole % part == 0)
    return tuple(whole // part for part in parts)


def preferred(race: Race | None, way: Variant) -> tuple[int, str] | None:
    """The micro_batch in which a way to run the model is clearly faster than the winner was on
    the whole at once, and why; None where none is. The smallest of those within NEAR of its best.
    """
    cut = None if race is None else _faster(race, [c for c in race.cuts if c.variant == way])
    if race is None or cut is None:
        return None
    return cut.micro_batch, _in_parts(race, cut)


def way_in_force(ledger: Ledger) -> Variant:
    """The way to run the model that was decided."""
    return Variant(*(ledger.value(key) for key in (DTYPE, FORMAT, THREADS)))


def _faster(race: Race, cuts: Sequence[RacedCut]) -> RacedCut | None:
    """Which of these parts of the whole is clearly faster than all of it was; None where none is.

    The smallest size of those within NEAR of the best, and the faster of two of that size.
    """
    if len(race.cuts) < 2 or not cuts:
        return None
    best = min(cut.seconds for cut in cuts)
    if best > (1 - MARGIN) * race.cuts[0].seconds:
        return None
    near = [cut for cut in cuts if cut.seconds <= (1 + NEAR) * best]
    return min(near, key=lambda cut: (cut.micro_batch, cut.seconds))


def _in_parts(race: Race, cut: RacedCut) -> str:
    """What made a cut win, for a person."""
    whole = race.cuts[0]
    alike = cut.variant == whole.variant
    first, other = (
        "" if alike else f" ({', '.join(_words(each.variant))})" for each in (whole, cut)
    )
    return (
        f"{whole.micro_batch} samples took {seconds_text(whole.seconds)} at once{first} and "
        f"{seconds_text(cut.seconds)} in parts of {cut.micro_batch}{other} (a race)"
    )


def foremost(ways: list[Variant], many: int) -> list[Variant]:
    """So many of the ways, the plan's own first, then those that promise most: another precision,
    another memory format, fewer threads."""
    own = ways[0]

    def unlike(way: Variant) -> tuple[bool, ...]:
        return (
            way.threads != own.threads,
            way.memory_format != own.memory_format,
            way.dtype == own.dtype,
        )

    return [own, *sorted((way for way in ways if way != own), key=unlike)][:many]


def answers(race: Race, plan: Plan, ways: list[Variant], sizes: tuple[int, ...]) -> bool:
    """Whether a race that was held says enough of this plan: all its ways and sizes were in it."""
    wide = {*race.entered} >= {*ways} and {*race.sizes} >= {*sizes}
    return wide and race.micro_batch == plan.batch.micro_batch


def winner(race: Race, fixed: dict[str, Any]) -> Raced | None:
    """The fastest of those that agree with what is fixed; within MARGIN of it, the plainest."""
    able = [raced for raced in race.runs if _agrees(raced.variant, fixed)]
    return clear_winner(able, race.accum_steps, MARGIN) if able else None


def in_parts(race: Race, fixed: dict[str, Any]) -> RacedCut | None:
    """Who is clearly faster in smaller micro-batches than the winner is on all samples at once.

    None where nobody is, where the size is fixed, and where what is fixed makes another one win.
    """
    best = winner(race, fixed)
    sized = any(fixed.get(key) is not None for key in _SIZES)
    if sized or best is None or not race.cuts or race.cuts[0].variant != best.variant:
        return None
    return _faster(race, [cut for cut in race.cuts if _agrees(cut.variant, fixed)])


def _agrees(variant: Variant, fixed: dict[str, Any]) -> bool:
    wanted = (fixed.get(key) for key in (DTYPE, FORMAT, THREADS))
    return all(want in (None, own) for want, own in zip(wanted, variant, strict=True))


def found(race: Race | None, ledger: Ledger) -> dict[str, tuple[Any, str]]:
    """What a race decided: settings, each with its value and why."""
    keys = (DTYPE, FORMAT, THREADS)
    if race is None or len(race.runs) < 2:
        return {}
    fixed = {key: ledger.fixed(key) for key in (*keys, *_SIZES)}
    best = winner(race, fixed)
    if best is None:
        return {}
    cut = in_parts(race, fixed)
    if cut is not None and cut.variant != best.variant:
        return {k: (v, _in_parts(race, cut)) for k, v in zip(keys, cut.variant, strict=True)}
    return {key: (best.variant[n], said(race, best, n)) for n, key in enumerate(keys)}


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
    return f"{first}, {shown}{near}{_tolls_said(race)}"


def _tolls_said(race: Race) -> str:
    """What of these figures was reckoned and not taken."""
    owed = {dtype: seconds for dtype, seconds in race.tolls.items() if seconds}
    if not owed:
        return ""
    shown = ", ".join(f"{dtype} {seconds_text(seconds)}" for dtype, seconds in owed.items())
    return f"; of each micro-batch this is reckoned, for code made anew for each size: {shown}"


def _without(variant: Variant, place: int) -> tuple[str, ...]:
    """A way's other settings, as a person reads them."""
    return tuple(word for n, word in enumerate(_words(variant)) if n != place)


def _words(variant: Variant) -> tuple[str, str, str]:
    threads = f"{variant.threads} thread{'' if variant.threads == 1 else 's'}"
    return variant.dtype, variant.memory_format, threads
