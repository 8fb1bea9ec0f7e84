"""The batch: how many samples an optimizer step takes, and how they are cut to fit."""

from __future__ import annotations

import math

from autotrain.errors import DoesNotFitError, UsageError
from autotrain.plan import batch, batch_reasons, buckets, fitting, noise, race
from autotrain.plan.batch import Cut, Wanted
from autotrain.plan.fitting import MOST_SAMPLES
from autotrain.plan.ledger import Ledger
from autotrain.plan.sizing import Sizing
from autotrain.schema import ModelProfile, Reason
from autotrain.units import bytes_text

_MICRO, _ACCUM, _TOTAL = "batch.micro_batch", "batch.accum_steps", "batch.global_batch"


def decide(ledger: Ledger, sizing: Sizing, most: int = MOST_SAMPLES) -> None:
    """Settle micro_batch, accum_steps, world_size and global_batch. `most`: no more at once.

    Raises DoesNotFitError where nothing fits, UsageError where the user's own do not multiply.
    """
    world = ledger.settle(
        "batch.world_size", 1, formula="one process trains", source="autotrain's rule",
        kind="fixed",
    )  # fmt: skip
    rule = batch.default_global_batch(sizing.train_count)
    target = (
        noise.wanted(ledger, sizing.model.noise, sizing.train_count)
        or ledger.given_batch()
        or buckets.samples_wanted(ledger, sizing)
        or rule
    )
    share = math.ceil(target / world)
    choice = buckets.choose(ledger, sizing, share)
    wanted = Wanted(target, share, world, rule, min(most, choice.most))
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
    batch_reasons.record(ledger, sizing, cut, wanted, choice)
    noise.record(ledger, sizing.model.noise, sizing.train_count)
    buckets.settle(ledger, sizing, choice, total)


def enough(model: ModelProfile, *, accum_given: bool) -> int:
    """Samples at once that count as a fit: for fewer, activations are computed again.

    One; two where batch norm learns from those that come together; all of a step where it takes
    fewer otherwise. With more of them at once, the plan of a device with a little more memory,
    which need not compute them again, would take fewer.
    """
    if model.mixes or accum_given:
        return MOST_SAMPLES
    return 2 if model.batch_norm else 1


def short(model: ModelProfile, because: dict[str, dict[str, Reason]]) -> bool:
    """Whether memory allows fewer at once than count as a fit. `because`: a plan's reasons."""
    micro, accum = because["batch"]["micro_batch"], because["batch"]["accum_steps"]
    limited = micro.limited_by == "memory.budget_bytes"
    return limited and micro.value < enough(model, accum_given=accum.kind == "user")


def _bucketed(ledger: Ledger, wanted: Wanted, choice: buckets.Choice) -> Cut | None:
    """With buckets: the longest samples' micro_batch, and the batch cut as if all were so long."""
    if not choice.parts:
        return None
    longest = choice.parts[-1][1]
    if ledger.fixed(buckets.BUCKETS):
        return Cut(longest, math.ceil(wanted.share / longest), choice.fit)
    return _within(ledger, wanted, min(longest, wanted.most), choice.fit)


def _cut(ledger: Ledger, sizing: Sizing, wanted: Wanted) -> Cut:
    """Under what the user and the recipe fixed. Accumulating holds gradients: less fits then."""
    if ledger.by_user(_MICRO):
        return _around_users_micro(ledger, sizing, wanted)
    whole = fitting.largest(sizing, 1)
    if whole == 0:
        raise _too_large(sizing, 1, 1)
    if ledger.by_user(_ACCUM):
        return _around_users_accum(ledger, sizing, wanted)
    most = min(wanted.most, _recipes_micro(ledger, wanted), _fastest_micro(sizing, wanted))
    if sizing.model.mixes:
        micro = min(whole, most, wanted.share)
        if ledger.by_user(_TOTAL) and micro < wanted.share:
            raise _too_large(sizing, wanted.share, 1, "the loss ties samples together, so ")
        return Cut(micro, 1, whole)
    cut = _within(ledger, wanted, min(whole, most), whole)
    if cut.accum == 1:
        return cut
    # Rarely more fits with them held, where the allocator is lucky: that is no cut for one part.
    parts = min(fitting.largest(sizing, 2), whole)
    if parts == 0 and whole >= wanted.share:  # the only way in which it fits
        return Cut(wanted.share, 1, whole)
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
    peak, has = sizing.device_peak(sizing.setup(micro, accum)), sizing.has()
    if peak.low > has:
        shared = has < sizing.device.total_bytes
        each = f" for each of {sizing.processes()} processes" if shared else ""
        raise DoesNotFitError(
            f"{_MICRO} {micro} needs at least {bytes_text(peak.low)}; "
            f"{sizing.device.name} has {bytes_text(has)}{each}"
        )
    return Cut(micro, accum, fitting.largest(sizing, min(accum, 2)))


def _around_users_accum(ledger: Ledger, sizing: Sizing, wanted: Wanted) -> Cut:
    accum: int = ledger.fixed(_ACCUM)
    fit, micro = fitting.largest(sizing, min(accum, 2)), math.ceil(wanted.share / accum)
    if fit == 0 or (ledger.by_user(_TOTAL) and fit < micro):
        raise _too_large(sizing, micro if fit else 1, accum)
    return Cut(min(fit, micro), accum, fit)


def _recipes_micro(ledger: Ledger, wanted: Wanted) -> int:
    """The most that a recipe takes at once: its micro_batch, or its share of accum_steps."""
    micro, accum = ledger.fixed(_MICRO), ledger.fixed(_ACCUM)
    return micro or (math.ceil(wanted.share / accum) if accum else MOST_SAMPLES)


def _fastest_micro(sizing: Sizing, wanted: Wanted) -> int:
    """What a race found faster than the whole batch at once; else no limit."""
    held = sizing.model.race
    found = race.preferred(held, race.way_in_force(sizing.ledger))
    if found is None or held is None or held.micro_batch != wanted.share:
        return MOST_SAMPLES
    return found[0]


def _too_large(sizing: Sizing, micro: int, accum: int, why: str = "") -> DoesNotFitError:
    needed = sizing.device_peak(sizing.setup(micro, accum))
    budget = sizing.budget()
    what = "one sample needs" if micro == 1 else f"{micro} samples at once need"
    held = ", with the gradients held while accumulating" if accum > 1 else ""
    held += batch_reasons.loading(sizing)
    return DoesNotFitError(
        f"{why}{what} {bytes_text(needed.expected)} (up to {bytes_text(needed.high)}){held}; "
        f"the budget on {sizing.device.name} is {bytes_text(budget)}"
    )
