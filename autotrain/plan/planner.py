"""Profiles and a goal in, a plan out: every setting decided in order, each with its reason.

Pure arithmetic: no torch, no I/O, milliseconds. The order matters, because later settings
are computed from the values in force of earlier ones.
"""

from __future__ import annotations

import hashlib
import json

from autotrain.errors import AutotrainError, DoesNotFitError
from autotrain.plan import (
    batch,
    buckets,
    choices,
    cutting,
    divided,
    execution,
    feeding,
    freed,
    grouping,
    healing,
    inversion,
    kernels,
    optimizing,
    outlook,
    pace,
    race,
    ram,
    remedies,
    saving,
)
from autotrain.plan.divided import WHOLE, Way
from autotrain.plan.fitting import MOST_SAMPLES
from autotrain.plan.inversion import Choice, Limit
from autotrain.plan.ledger import Ledger
from autotrain.plan.notes import notes
from autotrain.plan.sizing import Sizing
from autotrain.plan.stale import inputs_of
from autotrain.schema import (
    DatasetProfile,
    Device,
    Dtype,
    Goal,
    HardwareProfile,
    InputsSection,
    ModelProfile,
    ModelSection,
    Plan,
    Race,
)


def make_plan(
    hardware: HardwareProfile,
    dataset: DatasetProfile,
    model: ModelProfile,
    goal: Goal,
    *,
    version: str,
) -> Plan:
    """Decide every setting. `model.traces` must hold the dtype in force (`dtype_in_force`).

    Raises DoesNotFitError where not even one sample fits, or the disk cannot hold a run;
    UsageError where what the user set does not go together.
    """
    sizing = _sized_or_hint(hardware, model, goal)
    ledger = sizing.ledger
    _feed(sizing)
    healing.decide(ledger, sizing)
    limit = inversion.limit(ledger, sizing)
    choice = _chosen_or_hint(limit, sizing, goal) if limit is not None else None
    pace.decide(ledger, sizing)
    if limit is not None and choice is not None:
        inversion.record(ledger, limit, choice)
    outlook.predictions(ledger, sizing)
    saving.room_on_disk(sizing)
    inputs = InputsSection(
        hardware=machine_digest(hardware),
        dataset=dataset.fingerprint,
        model=model_digest(model),
        **inputs_of(hardware, sizing.device, dataset, model),
    )
    return Plan.model_validate(
        {
            "made_by": f"autotrain {version}",
            "recipe": goal.recipes[-1].name if goal.recipes else "rules",
            **ledger.values,
            "inputs": inputs,
            "notes": notes(dataset, model, sizing),
            "because": ledger.because,
        }
    )


def shortest_run(hardware: HardwareProfile, model: ModelProfile, goal: Goal) -> float:
    """Expected seconds of a run of one epoch, or of as many as the user set."""
    sizing = _sized_or_hint(hardware, model, goal)
    _feed(sizing)
    return inversion.shortest(sizing)


def dtype_in_force(hardware: HardwareProfile, goal: Goal, held: Race | None = None) -> Dtype:
    """The precision whose traces a plan needs: its own; tf32 allocates as fp32 does."""
    device = choices.choose_device(hardware, goal)
    ledger = Ledger(goal, 0, device.kind)
    ledger.raced = race.found(held, ledger)
    dtype: Dtype = choices.precision(ledger, device)
    return "fp32" if dtype == "tf32" else dtype


def freeze_in_force(hardware: HardwareProfile, goal: Goal, count: int) -> tuple[str, ...]:
    """The patterns by which parameters are frozen in the traces that a plan needs."""
    device = choices.choose_device(hardware, goal)
    return grouping.freeze_in_force(Ledger(goal, count, device.kind))


def form_in_force(hardware: HardwareProfile, goal: Goal, held: Race | None = None) -> ModelSection:
    """How the model is run in the traces that a plan needs first."""
    device = choices.choose_device(hardware, goal)
    ledger = Ledger(goal, 0, device.kind)
    ledger.raced = race.found(held, ledger)
    return execution.in_force(ledger)


def size_in_question(hardware: HardwareProfile, model: ModelProfile, goal: Goal) -> int:
    """The micro_batch of a plan for which memory is no limit: a first trace may as well be it."""
    device = choices.choose_device(hardware, goal)
    ledger = Ledger(goal, model.train_count + model.valid_count, device.kind)
    rule = batch.default_global_batch(model.train_count)
    micro: int | None = ledger.fixed("batch.micro_batch")
    return micro or ledger.given_batch() or rule


def lengths_in_question(
    hardware: HardwareProfile, model: ModelProfile, goal: Goal
) -> tuple[float, ...]:
    """The lengths below the longest at which a plan with buckets needs traces; often none."""
    device = choices.choose_device(hardware, goal)
    ledger = Ledger(goal, model.train_count + model.valid_count, device.kind)
    return buckets.lengths_to_trace(ledger, model, on_cpu=device.kind == "cpu")


def machine_digest(hardware: HardwareProfile) -> str:
    """SHA-256 of what stays the same while a machine is in use.

    System, CPU and cores, RAM, and every device's kind, name and memory; not what is free,
    what was calibrated, or which versions are installed.
    """
    devices = [[d.kind, d.index, d.name, d.total_bytes] for d in hardware.devices]
    cpu = hardware.cpu
    stable = [hardware.system, cpu.name, cpu.cores, hardware.ram_total_bytes, devices]
    return _sha256(stable)


def model_digest(model: ModelProfile) -> str:
    """SHA-256 of the model's own sizes; not of traces, trials, lengths, or loading's speed."""
    passing = {
        "traces", "traced", "loaded_bytes", "follows", "kept_bytes", "kept_most", "cached_bytes",
        "form", "trials", "range_test", "noise", "race", "replays", "lengths", "sample_seconds",
        "waiting_seconds", "sample_bytes", "valid_sorted", "steady", "stacks", "uneven", "sizes",
        "statistics_bytes", "trainable_dims", "trainable_depths", "block_bytes", "outside_bytes",
        "peak_before",
    }  # fmt: skip
    sizes = model.model_dump(exclude=passing)
    return _sha256(sizes)


def _sha256(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sized_or_hint(hardware: HardwareProfile, model: ModelProfile, goal: Goal) -> Sizing:
    """The batch decided; or DoesNotFitError with what would make it fit."""
    device = choices.choose_device(hardware, goal)

    def fits(goal: Goal, device: Device) -> bool:
        try:
            if dtype_in_force(hardware, goal, model.race) not in {t.dtype for t in model.traces}:
                return False
            _fitted(hardware, device, model, goal)
        except AutotrainError:
            return False
        return True

    try:
        return _fitted(hardware, device, model, goal)
    except DoesNotFitError as error:
        hint = remedies.hint(goal, device, model, fits)
        raise DoesNotFitError(error.message, hint) from None


def _fitted(hardware: HardwareProfile, device: Device, model: ModelProfile, goal: Goal) -> Sizing:
    """The batch decided, in the first way in which enough at once fit, else the most.

    What the user fixed may fit in none: then in the first that there is. Raises the first one's
    DoesNotFitError where there is none.
    """
    few, over = list[tuple[Sizing, Way]](), list[Sizing]()
    failed: DoesNotFitError | None = None
    first, *others = divided.ways(Ledger(goal, 0, device.kind))
    for way in (first, *others):
        try:
            sizing = _sized(hardware, device, model, goal, way)
        except DoesNotFitError as error:
            failed = failed or error
            continue
        if way.again and not sizing.model.form.activation_checkpointing:
            continue
        if execution.over(sizing):
            over.append(sizing)
        elif cutting.short(sizing.model, sizing.ledger.because):
            few.append((sizing, way))
        else:
            return _explained(sizing, model, way, first)
    if few:
        sizing, way = max(few, key=lambda found: found[0].count("batch.micro_batch"))
        return _explained(sizing, model, way, first)
    if not over:
        assert failed is not None
        raise failed
    return over[0]


def _explained(sizing: Sizing, model: ModelProfile, way: Way, first: Way) -> Sizing:
    """With what was chosen because the first way does not fit."""
    if way.again and not first.again:
        execution.explain(sizing, model)
    if way.strategy != first.strategy:
        divided.explain(sizing)
    return sizing


def _sized(
    hardware: HardwareProfile, device: Device, model: ModelProfile, goal: Goal, way: Way = WHOLE
) -> Sizing:
    """All that the batch depends on, and the batch."""
    ledger = Ledger(goal, model.train_count + model.valid_count, device.kind)
    if way.strategy == "ddp":  # a race is between ways to run the whole model
        ledger.raced = race.found(model.race, ledger)
    choices.identity(ledger, goal)
    choices.machine(ledger, hardware, device)
    train_count, valid_count = choices.data(ledger, model)
    optimizing.choose(ledger, device, model)
    divided.decide(ledger, way)
    form = execution.decide(ledger, again=way.again)
    dtype = choices.precision(ledger, device)
    model = execution.traced_as(model, form, dtype)
    assert model.at(dtype), f"the model was not traced in {dtype}"
    kernels.decide(ledger, model, dtype)
    freed.decide(ledger, model)
    grouping.decide(ledger, model)
    model = grouping.in_order(ledger, model)
    groups = grouping.groups(ledger, model)
    sizing = Sizing(ledger, hardware, device, model, train_count, valid_count, groups)
    enough = cutting.enough(model, accum_given=ledger.by_user("batch.accum_steps"))
    alone = way.again and way.strategy == "ddp"
    cutting.decide(ledger, sizing, enough if alone else MOST_SAMPLES)
    ram.check(sizing)
    return sizing


def _feed(sizing: Sizing) -> None:
    """How samples reach the model, and what stays of the code that each of their sizes needs."""
    feeding.loader(sizing.ledger, sizing)
    kernels.keep_all(sizing.ledger, sizing, sizing.time.workers())


def _chosen_or_hint(limit: Limit, sizing: Sizing, goal: Goal) -> Choice:
    """The epochs within the limit, in force; or DoesNotFitError with what would make one fit."""
    hardware, model = sizing.hardware, sizing.model

    def within(goal: Goal) -> bool:
        try:
            if dtype_in_force(hardware, goal, model.race) not in {t.dtype for t in model.traces}:
                return False
            other = _fitted(hardware, choices.choose_device(hardware, goal), model, goal)
            _feed(other)
            less = inversion.limit(other.ledger, other)
            return less is None or inversion.choose(less, other).epochs > 0
        except AutotrainError:
            return False

    try:
        choice = inversion.choose(limit, sizing)
    except DoesNotFitError as error:
        hint = inversion.hint(error.hint, goal, model, within)
        raise DoesNotFitError(error.message, hint) from None
    if choice.epochs < choice.usual:
        inversion.shorten(sizing.ledger, choice.epochs, choice.usual)
    return choice
