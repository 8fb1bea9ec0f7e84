"""What a person should know about a plan besides its settings, one sentence each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from autotrain.plan import choices, compute, execution, keeping, orders, ram, saving
from autotrain.plan.learning import ADAM_LIKE, EPS, SCHEDULE_USERS
from autotrain.plan.ledger import Ledger
from autotrain.plan.lengths import padding
from autotrain.plan.memory import KEEP_MOMENTUM
from autotrain.plan.sizing import Sizing
from autotrain.schema import DatasetProfile, ModelProfile, Recipe, Scalar
from autotrain.units import bytes_text, count_text

# From this share of padding on, a plan without buckets says so.
MUCH_PADDING = 0.25
# From this share of the free RAM on, it is said what a dataset keeps.
NOTED_SHARE = 0.02


def notes(dataset: DatasetProfile, model: ModelProfile, sizing: Sizing) -> tuple[str, ...]:
    """All of them."""
    ledger = sizing.ledger
    return (
        *_about_data(dataset),
        *_about_model(model, ledger),
        *_about_lengths(model, sizing),
        *_about_what_is_kept(sizing),
        *_about_recipes(sizing),
        *_about_rates(sizing),
        *_about_limits(ledger, sizing),
        *_about_other_gpus(ledger, sizing),
        *_about_sizes(ledger, sizing),
        *(f"{key} is set, and {why}" for key, why in _unused(ledger, model) if ledger.by_user(key)),
    )


def _about_rates(sizing: Sizing) -> Iterator[str]:
    if sizing.time.derived():
        dtype, rates = sizing.ledger.value("precision.dtype"), sizing.device.rates
        yield (
            f"{sizing.hardware.name} gives no rate for products in {dtype} on {sizing.device.name} "
            f"(devices.rates.matmul): {count_text(compute.product_rate(rates, dtype))}FLOP/s are "
            f"derived from {', '.join(rates.matmul)}, and times may be several times off"
        )


def _about_data(dataset: DatasetProfile) -> Iterator[str]:
    if dataset.faults:
        first = dataset.faults[0]
        count = len(dataset.faults)
        faults = "a fault" if count == 1 else f"{count} faults"
        yield f"{faults} in the data: {first.path}: {first.problem}"


def _about_model(model: ModelProfile, ledger: Ledger) -> Iterator[str]:
    accum = ledger.value("batch.accum_steps")
    if model.batch_norm and accum > 1:
        yield (
            "the model has BatchNorm, which sees one micro-batch at a time: accumulating "
            f"{accum} of them is not the same as one batch"
        )
    if model.batch_norm and ledger.value("batch.world_size") > 1:
        yield (
            "the model has BatchNorm: each process normalises by its own micro-batches, and the "
            "running statistics are process 0's (torch's SyncBatchNorm is for CUDA, and not used)"
        )
    if model.mixes and accum > 1:
        yield "the loss ties samples together: cutting its batch changes it"
    if model.traced == "concrete":
        yield "the model was measured on a small real batch: its step cannot be traced"


def _about_lengths(model: ModelProfile, sizing: Sizing) -> Iterator[str]:
    lengths, parts = model.lengths, sizing.buckets()
    if lengths is None:
        if model.uneven:
            yield (
                "samples differ in size, and the task gives no `length`: the plan is for the "
                "largest of some hundred that were looked at, and a larger one may not fit; with "
                "`length` it is for the longest there is, and shorter ones go together in larger "
                "micro-batches"
            )
        return
    if lengths.read < lengths.count:
        yield (
            f"{lengths.read:,} of {lengths.count:,} lengths were read: should a sample be longer "
            f"than {lengths.maximum:.4g}, it goes in a smaller micro-batch of its own"
        )
    sizes = sizing.count("batch.micro_batch"), sizing.count("batch.global_batch")
    wasted = orders.padding(lengths, sizing.train_count, *sizes)
    if not parts and wasted > MUCH_PADDING and not sizing.ledger.by_user("batch.buckets"):
        why = sizing.ledger.because["batch"]["buckets"].formula
        yield (
            f"about {100 * wasted:.2g} % of what is computed is padding, as samples differ in "
            f"length, though like ones come together; as many come at once of each: {why}"
        )
    if parts:
        mixed = ((lengths.maximum, round(sizing.time.micro_samples())),)
        wasted = padding(lengths, mixed)
        padded = 100 * padding(lengths, parts, sizing.train_count)
        yield (
            f"samples of like length share a micro-batch: about {padded:.2g} % of what is computed "
            f"is padding, {100 * wasted:.2g} % in random order"
        )


def _about_what_is_kept(sizing: Sizing) -> Iterator[str]:
    """Of a dataset that fills a dictionary as it is read."""
    workers = sizing.time.workers()
    cached = keeping.cached_bytes(sizing.model, workers)
    budget, on_cpu = int(sizing.get("memory.budget_bytes")), sizing.device.kind == "cpu"
    most = budget if on_cpu else sizing.hardware.ram_available_bytes
    if cached < NOTED_SHARE * most:
        return
    whose = f" in each of {workers} loader workers" if workers > 1 else ""
    said = f"the dataset keeps what it has read{whose}: about {bytes_text(cached)} once all was"
    if cached > keeping.SHARE * most:
        yield (
            f"{said}, of {bytes_text(most)} that may be used: the system may end the run for it, "
            "and not all of it is counted in what the run needs; keep less in the dataset"
        )
    else:
        yield said


def left_out(recipe: Recipe, options: Mapping[str, Scalar]) -> str:
    """Of a recipe whose options the task does not take."""
    said = ", ".join(f"{key} = {json.dumps(value)}" for key, value in options.items())
    one = "no such option" if len(options) == 1 else "no such options"
    return f"the recipe {recipe.name} also says {said}: the task takes {one}, and trains without"


def _about_recipes(sizing: Sizing) -> Iterator[str]:
    if sizing.ledger.left_out:
        yield left_out(sizing.ledger.recipes[-1], sizing.ledger.left_out)
    for recipe in sizing.ledger.recipes:
        most, count = recipe.most_samples, sizing.train_count
        if most is not None and count > most:
            yield (
                f"the recipe {recipe.name} is meant for up to {most} samples, and there are "
                f"{count:,} to train on: no setting takes a part of them, name a smaller folder"
            )


def _about_limits(ledger: Ledger, sizing: Sizing) -> Iterator[str]:
    device, dtype = sizing.device, ledger.value("precision.dtype")
    budget, own = sizing.get("memory.budget_bytes"), sizing.budget()
    setup = sizing.planned()
    high = sizing.device_peak(setup, sizing.time.workers()).plus(sizing.kept_bytes()).high
    if high > own:
        world = sizing.processes()
        each = f" for each of {world} processes, {bytes_text(budget)} in all" * (own < budget)
        yield (
            f"micro_batch {setup.micro_batch} may need {bytes_text(high)}, more than the budget of "
            f"{bytes_text(own)}{each}"
        )
    yield from ram.remarks(sizing)
    if budget > device.free_bytes:
        yield (
            f"memory.budget_bytes is {bytes_text(budget)}; {bytes_text(device.free_bytes)} are "
            f"free on {device.name}"
        )
    if device.rates.disturbed:
        yield (
            "other programs used this machine while it was timed, so times are a guess: plan again "
            "once they are gone"
        )
    if dtype not in device.native_dtypes:
        yield f"{device.name} does not compute {dtype} natively: it may be slow"
    yield from saving.remarks(ledger, sizing)


def _about_other_gpus(ledger: Ledger, sizing: Sizing) -> Iterator[str]:
    """Those that the run leaves alone, and processes for which the machine has none."""
    if sizing.device.kind in ("cpu", "mps"):
        return
    there, world = len(choices.reach(sizing.hardware, sizing.device)), sizing.processes()
    if there > world and not ledger.by_user("batch.world_size"):
        yield (
            f"{sizing.hardware.name} has {there} GPUs to train on, and {_so_many(world)}: "
            f"--set batch.world_size={there} plans for all of them, and `autotrain run` with "
            f"--nproc {there} trains on them; what they exchange is in no predicted time"
        )
    if world > there:
        yield (
            f"batch.world_size is {world}, and {sizing.hardware.name} has {there} "
            f"GPU{'s' if there > 1 else ''} for that: the rest is to be on other machines "
            "(`autotrain run` with --nnodes)"
        )


def _so_many(world: int) -> str:
    return "one process uses one" if world == 1 else f"{world} processes use one each"


def _about_sizes(ledger: Ledger, sizing: Sizing) -> Iterator[str]:
    """What was given and is more than there is of it."""
    for key, most, what, means in _sizes(sizing):
        value = ledger.fixed(key)
        if value is not None and value > most:
            yield f"{key} is {value:,}, and there are {most:,} {what}: {means}"


def _sizes(sizing: Sizing) -> Iterator[tuple[str, int, str, str]]:
    """(key, the most that has an effect, of what, what happens beyond)."""
    samples, cores = "samples to train on", sizing.hardware.cpu.cores
    steps, epochs = sizing.total_steps(), sizing.count("train.epochs")
    yield "batch.micro_batch", sizing.train_count, samples, "no micro-batch is so large"
    yield "batch.global_batch", sizing.train_count, samples, "a step takes them all"
    yield "device.threads", cores, "cores to use", "more threads than cores wait for one another"
    yield "loader.workers", cores, "cores to use", "workers and training take turns on them"
    low = "optimizer.lr is never reached"
    yield "schedule.warmup_steps", steps, "steps in the run", low
    for section, verb in (("checkpoint", "saved"), ("evaluate", "evaluated")):
        alone = f"by that it is {verb} at its end alone"
        yield f"{section}.every_epochs", epochs, "epochs in the run", alone
        yield f"{section}.every_steps", steps, "steps in the run", alone
    evaluations = sizing.time.occasions("evaluate")
    yield "early_stop.patience", evaluations, "evaluations in the run", "none ends it early"


def _unused(ledger: Ledger, model: ModelProfile) -> Iterator[tuple[str, str]]:
    """Settings that nothing will read, with the reason."""
    schedule, optimizer = ledger.value("schedule.name"), ledger.value("optimizer.name")
    for key, users in SCHEDULE_USERS.items():
        if schedule not in users:
            yield f"schedule.{key}", f"the {schedule} schedule does not use it"
    if optimizer not in KEEP_MOMENTUM:
        yield "optimizer.momentum", f"{optimizer} does not use it"
    if optimizer not in ADAM_LIKE:
        yield "optimizer.betas", f"{optimizer} does not use it"
    if optimizer not in EPS:
        yield "optimizer.eps", f"{optimizer} does not use it"
    if optimizer == "rprop":
        yield "optimizer.weight_decay", "rprop does not use it"
    if model.lengths is None or model.mixes:
        why = "its loss ties samples together" if model.mixes else "it gives no length"
        yield "batch.target_items", f"the task cannot be bucketed by length: {why}"
    if model.valid_count:
        yield "data.valid_share", "the task brings validation samples of its own"
    yield from execution.unused(ledger, model)
    if ledger.value("batch.world_size") == 1:
        yield "parallel.strategy", "one process trains"
    if ledger.value("parallel.strategy") == "ddp":
        yield "parallel.reduce", "whole models add up once a step"
    if not ledger.value("loader.workers"):
        yield "loader.prefetch", "no loader worker prefetches"
        yield "loader.start_method", "no loader worker starts"
