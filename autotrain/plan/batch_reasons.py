"""Why the batch is as large as it is, and cut as it is: recorded with every number filled in."""

from __future__ import annotations

from autotrain.plan import batch, buckets, memory, race
from autotrain.plan.batch import Cut, Wanted
from autotrain.plan.fitting import MOST_SAMPLES
from autotrain.plan.ledger import Ledger
from autotrain.plan.sizing import Sizing
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


def record(
    ledger: Ledger, sizing: Sizing, cut: Cut, wanted: Wanted, choice: buckets.Choice
) -> None:
    """Settle micro_batch, accum_steps and global_batch as they were cut."""
    _micro(ledger, sizing, cut, wanted, choice)
    _accum(ledger, cut, wanted, choice)
    _total(ledger, sizing, cut, wanted)


def _micro(
    ledger: Ledger, sizing: Sizing, cut: Cut, wanted: Wanted, choice: buckets.Choice
) -> None:
    accum = max(cut.accum, 2) if choice.parts else cut.accum
    high = sizing.device_peak(sizing.setup(cut.micro, accum)).high
    budget = sizing.budget()
    whole = ledger.by_user(_ACCUM) and cut.micro * cut.accum >= wanted.share
    short = cut.fit < wanted.share and not whole
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
    whose = f"{whose}{_plainly(cut, wanted)}; {_unevenly(ledger, cut, wanted)}"
    faster = race.preferred(sizing.model.race, race.way_in_force(ledger))
    if faster is not None and cut.micro == faster[0] < wanted.share and not ledger.by_user(_MICRO):
        kind, limit, whose = "measured", "its speed", f"{faster[1]}; "
    ledger.drop(_MICRO)
    ledger.settle(
        _MICRO,
        cut.micro,
        formula=f"{whose}training on {cut.micro} at once{loading(sizing)} takes up to "
        f"{bytes_text(high)} of the budget of {bytes_text(budget)}, {fits} would fit "
        f"({_each(sizing, cut.micro, accum)}); a step needs {wanted.share}",
        source=source,
        kind=kind,
        limited_by=limit,
        would_change=_LIMITS[limit],
        beside=(_input_rule(sizing),),
    )


def _plainly(cut: Cut, wanted: Wanted) -> str:
    """The choice in one sentence, for someone who has never trained a model."""
    step = f"the model is to learn from {wanted.share} samples in each step"
    if cut.micro == wanted.most < min(cut.fit, wanted.share):
        return (
            f"{step}. Memory has room for {count_text(cut.fit)} at once, and they come {cut.micro} "
            "at a time: no more than with a little more memory, which allows a faster way to run"
        )
    if cut.fit < wanted.share:
        parts = f"in {cut.accum} parts of {cut.micro}" if cut.accum > 1 else f"{cut.micro} at once"
        return f"{step}, and memory has room for {cut.fit} at once, so they come {parts}"
    if cut.accum > 1:
        return f"{step}; memory has room for all of them, but they come {cut.micro} at a time"
    return f"{step}, and memory has room for all of them at once"


def loading(sizing: Sizing) -> str:
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


def _accum(ledger: Ledger, cut: Cut, wanted: Wanted, choice: buckets.Choice) -> None:
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


def _total(ledger: Ledger, sizing: Sizing, cut: Cut, wanted: Wanted) -> None:
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
