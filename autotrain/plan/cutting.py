"""The batch: how many samples an optimizer step takes, and how they are cut to fit."""

from __future__ import annotations

import math
from typing import NamedTuple

from autotrain.errors import DoesNotFitError, UsageError
from autotrain.plan import batch, buckets, memory, noise, race
from autotrain.plan.ledger import Ledger
from autotrain.plan.sizing import MOST_SAMPLES, Sizing
from autotrain.schema import Beside, Kind
from autotrain.units import bytes_text, count_text

_MICRO, _ACCUM, _TOTAL = "batch.micro_batch", "batch.accum_steps", "batch.global_batch"


_LIMITS = {
    "memory.budget_bytes": "more free memory, a smaller model or input, precision.dtype=bf16",
    "the recipe": f"--set {_MICRO}=...",
    _TOTAL: f"--set {_TOTAL}=...",
    "its speed": f"--set {_MICRO}=...",
}
_ROOT = "the power of two nearest to the square root of {} training samples, from 8 to 256"


class Cut(NamedTuple):
    """A global batch cut into micro-batches, and how many samples would have fitted."""

    micro: int
    accum: int
    fit: int


class Wanted(NamedTuple):
    """The global batch aimed at, each process's share of it, and what the rule would aim at."""

    target: int
    share: int
    world: int
    rule: int


def decide(ledger: Ledger, sizing: Sizing) -> None:
    """Settle micro_batch, accum_steps, world_size and global_batch.

    Raises DoesNotFitError where nothing fits, UsageError where the user's own do not multiply.
    """
    world = ledger.settle(
        "batch.world_size", 1, formula="one process trains", source="autotrain's rule",
        kind="fixed",
    )  # fmt: skip
    rule = min(batch.default_global_batch(sizing.train_count), sizing.train_count)
    target = (
        noise.wanted(ledger, sizing.model.noise, sizing.train_count)
        or ledger.given_batch()
        or buckets.samples_wanted(ledger, sizing)
        or rule
    )
    wanted = Wanted(target, math.ceil(target / world), world, rule)
    choice = buckets.choose(ledger, sizing, wanted.share)
    cut = _bucketed(ledger, wanted, choice) or _cut(ledger, sizing, wanted)
    total = cut.micro * cut.accum * world
    if ledger.by_user(_TOTAL) and target != total:
        raise UsageError(
            f"{_TOTAL}: {target} is not {_MICRO} {cut.micro} x {_ACCUM} {cut.accum} x "
            f"batch.world_size {world} = {total}",
            hint="leave one of them out; the others follow",
        )
    if choice.parts:
        choice = choice._replace(parts=(*choice.parts[:-1], (choice.parts[-1][0], cut.micro)))
    _settle_micro(ledger, sizing, cut, wanted, choice)
    _settle_accum(ledger, cut, wanted, choice)
    _settle_total(ledger, sizing, cut, wanted)
    noise.record(ledger, sizing.model.noise, sizing.train_count)
    buckets.settle(ledger, sizing, choice, total)


def _bucketed(ledger: Ledger, wanted: Wanted, choice: buckets.Choice) -> Cut | None:
    """With buckets: the longest samples' micro_batch, and the batch cut as if all were so long."""
    if not choice.parts:
        return None
    most = choice.parts[-1][1]
    if ledger.fixed(buckets.BUCKETS):
        return Cut(most, math.ceil(wanted.share / most), choice.fit)
    return _within(ledger, wanted, most, choice.fit)


def _cut(ledger: Ledger, sizing: Sizing, wanted: Wanted) -> Cut:
    """Under what the user and the recipe fixed. Accumulating holds gradients: less fits then."""
    if ledger.by_user(_MICRO):
        return _around_users_micro(ledger, sizing, wanted)
    whole = sizing.fit(accum_steps=1)
    if whole == 0:
        raise _too_large(sizing, 1, 1)
    if ledger.by_user(_ACCUM):
        return _around_users_accum(ledger, sizing, wanted)
    most = min(_recipes_micro(ledger, wanted), _fastest_micro(sizing, wanted))
    if sizing.model.mixes:
        micro = min(whole, most, wanted.share)
        if ledger.by_user(_TOTAL) and micro < wanted.share:
            raise _too_large(sizing, wanted.share, 1, "the loss ties samples together, so ")
        return Cut(micro, 1, whole)
    cut = _within(ledger, wanted, min(whole, most), whole)
    if cut.accum == 1:
        return cut
    # Rarely more fits with them held, where the allocator is lucky: that is no cut for one part.
    parts = min(sizing.fit(accum_steps=2), whole)
    if parts == 0:
        raise _too_large(sizing, 1, 2)
    return _within(ledger, wanted, min(parts, most), parts)


def _within(ledger: Ledger, wanted: Wanted, most: int, fit: int) -> Cut:
    """Micro-batches of up to `most`; a global batch that the user fixed is met exactly."""
    if ledger.by_user(_TOTAL):
        micro = batch.exact_cut(wanted.share, most)
        return Cut(micro, wanted.share // micro, fit)
    return Cut(*batch.cut(wanted.share, most), fit)


def _around_users_micro(ledger: Ledger, sizing: Sizing, wanted: Wanted) -> Cut:
    """The user's micro_batch holds, over the budget too, but not over what the device has."""
    micro: int = ledger.fixed(_MICRO)
    accum = math.ceil(wanted.share / micro)
    if sizing.model.mixes and not ledger.by_user(_TOTAL):
        accum = 1
    if ledger.by_user(_ACCUM):
        accum = ledger.fixed(_ACCUM)
    peak, has = sizing.device_peak(sizing.setup(micro, accum)), sizing.device.total_bytes
    if peak.low > has:
        raise DoesNotFitError(
            f"{_MICRO} {micro} needs at least {bytes_text(peak.low)}; "
            f"{sizing.device.name} has {bytes_text(has)}"
        )
    return Cut(micro, accum, sizing.fit(min(accum, 2)))


def _around_users_accum(ledger: Ledger, sizing: Sizing, wanted: Wanted) -> Cut:
    accum: int = ledger.fixed(_ACCUM)
    fit, micro = sizing.fit(min(accum, 2)), math.ceil(wanted.share / accum)
    if fit == 0 or (ledger.by_user(_TOTAL) and fit < micro):
        raise _too_large(sizing, micro if fit else 1, accum)
    return Cut(min(fit, micro), accum, fit)


def _recipes_micro(ledger: Ledger, wanted: Wanted) -> int:
    """The most that a recipe takes at once: its micro_batch, or its share of accum_steps."""
    micro, accum = ledger.fixed(_MICRO), ledger.fixed(_ACCUM)
    return micro or (math.ceil(wanted.share / accum) if accum else MOST_SAMPLES)


def _fastest_micro(sizing: Sizing, wanted: Wanted) -> int:
    """What a race found faster than the whole batch at once; else no limit."""
    found = race.preferred(sizing.model.race)
    held = sizing.model.race
    if found is None or held is None or held.micro_batch != wanted.share:
        return MOST_SAMPLES
    return found[0]


def _too_large(sizing: Sizing, micro: int, accum: int, why: str = "") -> DoesNotFitError:
    needed = sizing.device_peak(sizing.setup(micro, accum))
    budget = sizing.budget()
    what = "one sample needs" if micro == 1 else f"{micro} samples at once need"
    held = ", with the gradients held while accumulating" if accum > 1 else ""
    held += _loading(sizing)
    return DoesNotFitError(
        f"{why}{what} {bytes_text(needed.expected)} (up to {bytes_text(needed.high)}){held}; "
        f"the budget on {sizing.device.name} is {bytes_text(budget)}"
    )


def _settle_micro(
    ledger: Ledger, sizing: Sizing, cut: Cut, wanted: Wanted, choice: buckets.Choice
) -> None:
    accum = max(cut.accum, 2) if choice.parts else cut.accum
    high = sizing.device_peak(sizing.setup(cut.micro, accum)).high
    budget = sizing.budget()
    short = cut.fit < wanted.share
    fits = count_text(cut.fit) if cut.fit < MOST_SAMPLES else "any number"
    kind: Kind = "rule"
    source = "a traced training step; the high end of the prediction must fit the budget"
    limit = "memory.budget_bytes" if short else _TOTAL
    given = ledger.given.get(_MICRO)
    whose = ""
    if given is not None and given.kind != "user":
        if given.value == cut.micro:
            kind, source = "fixed", given.source
            limit = "the recipe" if cut.micro < wanted.share else _TOTAL
        whose = f"the recipe takes {given.value} at once; "
    if choice.parts:
        whose = f"of the longest samples; shorter ones up to {choice.parts[0][1]} (batch.buckets): "
    whose += _unevenly(ledger, cut, wanted)
    faster = race.preferred(sizing.model.race)
    if faster is not None and cut.micro == faster[0] < wanted.share and not ledger.by_user(_MICRO):
        kind, limit, whose = "measured", "its speed", f"{faster[1]}; "
    ledger.drop(_MICRO)
    ledger.settle(
        _MICRO,
        cut.micro,
        formula=f"{whose}training on {cut.micro} at once{_loading(sizing)} takes up to "
        f"{bytes_text(high)} of the budget of {bytes_text(budget)}, {fits} would fit "
        f"({_each(sizing, cut.micro, accum)}); a step needs {wanted.share}",
        source=source,
        kind=kind,
        limited_by=limit,
        would_change=_LIMITS[limit],
        beside=(_input_rule(sizing),),
    )


def _loading(sizing: Sizing) -> str:
    """Workers that take of the memory too."""
    workers = sizing.given_workers()
    return f", with {workers} loader workers of {bytes_text(sizing.worker_bytes())}," * bool(
        workers
    )


def _unevenly(ledger: Ledger, cut: Cut, wanted: Wanted) -> str:
    """What a batch that the user fixed costs where it cuts into far less than fits."""
    most = min(cut.fit, wanted.share)
    if not ledger.by_user(_TOTAL) or ledger.by_user(_MICRO) or 2 * cut.micro > most:
        return ""
    micro, accum = batch.cut(wanted.share, most)
    return (
        f"{wanted.share} cuts evenly into no more than {cut.micro} at once, "
        f"{micro * accum * wanted.world} would into {micro} x {accum}: "
        f"--set {_TOTAL}={micro * accum * wanted.world}; "
    )


def _each(sizing: Sizing, micro: int, accum: int) -> str:
    """What each part takes, and what one more sample takes."""
    *fixed, (last, rest) = sizing.parts(sizing.setup(micro, accum)).items()
    said = ", ".join(f"{name} {bytes_text(size)}" for name, size in fixed)
    return f"{said}, {last} {bytes_text(rest / micro)} a sample"


def _settle_accum(ledger: Ledger, cut: Cut, wanted: Wanted, choice: buckets.Choice) -> None:
    fewer = "; fewer, as shorter samples come more at once" if choice.parts else ""
    floor = batch.floor_accumulation_rule(wanted.target, cut.micro)
    ledger.drop(_ACCUM)
    ledger.settle(
        _ACCUM,
        cut.accum,
        formula=f"{wanted.target} samples wanted in a step / (micro_batch {cut.micro} x "
        f"world_size {wanted.world}), rounded up{fewer}",
        source="autotrain's rule; every sample weighs the same however the batch is cut",
        limited_by=_MICRO if cut.accum > 1 else "",
        would_change=f"--set {_MICRO}=... or {_TOTAL}=...",
        beside=(
            Beside(
                name="floor_accumulation_rule",
                value=floor,
                formula=f"max({wanted.target} // {cut.micro}, 1)",
                why_not="rounding down falls short of the batch wanted where it does not divide",
            ),
        ),
    )


def _settle_total(ledger: Ledger, sizing: Sizing, cut: Cut, wanted: Wanted) -> None:
    given, count = ledger.given.get(_TOTAL), sizing.train_count
    total = cut.micro * cut.accum * wanted.world
    source = "autotrain's rule, after McCandlish 2018, arXiv:1812.06162"
    wish = f"{wanted.target} wanted"
    if ledger.given_batch() is None:
        wish += f", {_ROOT.format(count)}"
    elif given is not None and given.kind != "user" and given.value != total:
        wish += " by the recipe"
        source = given.source
        ledger.drop(_TOTAL)
    parts = f"micro_batch {cut.micro} x accum_steps {cut.accum} x world_size {wanted.world}"
    held = _TOTAL in ledger.given
    ledger.settle(
        _TOTAL,
        wanted.rule if held else total,
        formula=_ROOT.format(count) if held else f"{parts}; {wish}",
        source=source,
        limited_by="the dataset" if wanted.target == count else "",
    )


def _input_rule(sizing: Sizing) -> Beside:
    total, sample = sizing.device.total_bytes, sizing.model.sample_bytes
    reserve = max(total - sizing.get("memory.budget_bytes"), 0)
    weights = sizing.model.parameter_bytes
    return Beside(
        name="input_bytes_rule",
        value=memory.input_bytes_rule(total, weights, reserve, sample),
        formula=f"({bytes_text(total)} - model {bytes_text(weights)} - reserve "
        f"{bytes_text(reserve)}) / {bytes_text(sample)} of input a sample",
        why_not="it counts the input and forgets activations, gradients and optimizer states",
    )
