"""A plan, or what was probed for it, on one screen."""

from __future__ import annotations

import shlex

from autotrain import planfile
from autotrain.heldout import held_out
from autotrain.report.text import (
    LABEL,
    clean,
    interval,
    labelled,
    literal,
    page_width,
    percent,
    plural,
    shorten,
)
from autotrain.schema import (
    DatasetProfile,
    Device,
    HardwareProfile,
    ModelProfile,
    Plan,
    Reason,
    whole,
)
from autotrain.units import bytes_text, count_text, money_text, seconds_text

FAULTS_SHOWN = 5


def plan_summary(
    plan: Plan,
    hardware: HardwareProfile,
    dataset: DatasetProfile,
    model: ModelProfile,
    path: str = "plan.toml",
) -> str:
    """What will run, on what, with which settings and why, what it takes, and what to type next.

    `path` is where the plan was written.
    """
    blocks = [
        [
            _machine(plan, hardware),
            labelled("data", _data(dataset, " (autotrain probe names them)")),
            _model(model, plan.data.valid_share),
        ],
        *(_stages(plan) if plan.stage else (_settings(plan), _predictions(plan))),
        _bullets("notes", _notes(plan)),
        [
            literal("next", f"autotrain run {shlex.quote(path)}{_processes(plan)}"),
            literal("", f"autotrain explain {shlex.quote(path)} batch.micro_batch"),
        ],
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _processes(plan: Plan) -> str:
    world = plan.batch.world_size
    return f" --nproc {world}" if world > 1 else ""


def probe_text(hardware: HardwareProfile, dataset: DatasetProfile | None = None) -> str:
    """The machine and, where one was looked into, the data."""
    blocks = [_machine_lines(hardware)]
    if dataset is not None:
        faults = [f"{fault.path}: {fault.problem}" for fault in dataset.faults[:FAULTS_SHOWN]]
        if len(dataset.faults) > FAULTS_SHOWN:
            faults.append(f"and {len(dataset.faults) - FAULTS_SHOWN:,} more")
        blocks.append([labelled("data", _data(dataset)), *_bullets("faults", faults)])
    root = shlex.quote(dataset.root) if dataset is not None and dataset.root else "DATA"
    blocks.append([literal("next", f"autotrain plan {root}")])
    return "\n\n".join("\n".join(block) for block in blocks)


def _stages(plan: Plan) -> list[list[str]]:
    """Every stage as a plan by itself, then all together."""
    blocks: list[list[str]] = []
    before, parts = "", planfile.stages(plan)
    for number, (stage, own) in enumerate(parts, start=1):
        begins = f"begins with the {stage.weights} weights of {before}"
        taken = begins if before and stage.weights != "none" else "begins anew"
        count = own.inputs.parameters
        size = f"; {count_text(count)} parameters" if count is not None else ""
        head = labelled(f"stage {number}", f"{stage.name}: {taken}{size}")
        blocks += [[head, *_settings(own)], _predictions(own)]
        before = stage.name
    run = whole([own.predicted.run_seconds for _, own in parts])
    said = f"about {seconds_text(run.expected)} ({interval('seconds', run)})"
    spent = [_cost(own) for _, own in parts]
    if all(cost is not None for cost in spent):
        low, cost, high = (money_text(sum(part)) for part in zip(*filter(None, spent), strict=True))
        said += f", about {cost} ({low} to {high})"
    return [*blocks, [labelled("in all", f"{plural(len(parts), 'stage')}: {said}")]]


def _notes(plan: Plan) -> list[str]:
    """The plan's, and by its name what a stage's says besides."""
    others = (
        f"stage {stage.name}: {note}"
        for stage, own in planfile.stages(plan)
        for note in own.notes
        if note not in plan.notes
    )
    return [*plan.notes, *others]


def _machine(plan: Plan, hardware: HardwareProfile) -> str:
    device = hardware.device(plan.device.kind, plan.device.index)
    where = "the CPU" if plan.device.kind == "cpu" else f"{plan.device.kind}:{plan.device.index}"
    if device is not None and plan.device.kind != "cpu":
        where += f", {device.name} with {_free(device.free_bytes, device.total_bytes)}"
    ram = _free(hardware.ram_available_bytes, hardware.ram_total_bytes)
    cores = plural(hardware.cpu.cores, "core")
    return labelled(
        "machine", f"{hardware.name}: {cores} of {hardware.cpu.name}, RAM {ram}; trains on {where}"
    )


def _free(free: int, total: int) -> str:
    return f"{bytes_text(free)} free of {bytes_text(total)}"


def _data(dataset: DatasetProfile, where: str = "") -> str:
    parts = [plural(dataset.count, "sample")]
    if dataset.classes:
        parts.append(f"{len(dataset.classes):,} classes")
    if dataset.length is not None:
        length = dataset.length
        parts.append(f"{length.p50:.3g} {length.unit} typically, {length.maximum:.3g} at most")
    if dataset.bytes:
        parts.append(bytes_text(dataset.bytes))
    took = f", taken for {dataset.took_for}" if dataset.took_for else ""
    if dataset.faults:
        parts.append(f"{plural(len(dataset.faults), 'fault')}{where}")
    return f"{dataset.root or dataset.kind}{took}: {', '.join(parts)}"


def _model(model: ModelProfile, share: float | None) -> str:
    valid = model.valid_count or (held_out(model.train_count, share) if share else 0)
    train = model.train_count if model.valid_count else model.train_count - valid
    return labelled(
        "model",
        f"{model.name}: {count_text(model.parameters)} parameters "
        f"({bytes_text(model.parameter_bytes)}), {train:,} samples to train on, "
        f"{valid:,} to validate on",
    )


def _settings(plan: Plan) -> list[str]:
    """One line each: the setting, and a short why in a column of its own."""
    optimizer, warmup = plan.optimizer, plan.schedule.warmup_steps
    schedule = plan.schedule.name + (f", {warmup:,} warm-up steps" if warmup else "")
    patience = plan.early_stop.patience
    stop = f", stop after {patience} without progress" if patience else ""
    every = "every_epochs" if plan.checkpoint.every_epochs else "every_steps"
    lines = [
        ("batch", _batch(plan), "batch.micro_batch"),
        ("precision", plan.precision.dtype, "precision.dtype"),
        ("optimizer", f"{optimizer.name}, lr {optimizer.lr:.3g}", "optimizer.lr"),
        ("schedule", schedule, "schedule.name"),
        ("length", plural(plan.train.epochs, "epoch") + stop, "train.epochs"),
        ("checkpoints", _checkpoints(plan), f"checkpoint.{every}"),
    ]
    column = max(len(text) for _, text, _ in lines)
    room = max(page_width() - LABEL - column - 2, 20)
    return [
        literal(label, f"{text:<{column}}  {shorten(_why(plan, key), room)}")
        for label, text, key in lines
    ]


def _batch(plan: Plan) -> str:
    batch = plan.batch
    if batch.buckets is not None and len(batch.buckets) > 1:
        most = batch.buckets[0][1]
        return f"{batch.micro_batch} to {most} at once by length, {batch.global_batch} a step"
    shared = ", the model divided among them" if plan.parallel.strategy == "shard" else ""
    ranks = f" x {batch.world_size} processes{shared}" if batch.world_size > 1 else ""
    return f"{batch.micro_batch} at once x {batch.accum_steps}{ranks} = {batch.global_batch} a step"


def _checkpoints(plan: Plan) -> str:
    often = plan.checkpoint
    every = [plural(often.every_epochs, "epoch")] if often.every_epochs else []
    every += [plural(often.every_steps, "step")] if often.every_steps else []
    size = bytes_text(plan.predicted.checkpoint_bytes.expected)
    return f"every {' and '.join(every) or 'run, at its end'}, {often.keep} kept, {size} each"


def _why(plan: Plan, key: str) -> str:
    section, _, name = key.partition(".")
    reason = plan.because.get(section, {}).get(name)
    return why(reason) if reason is not None else ""


def why(reason: Reason) -> str:
    """The shortest form of a reason: what limits the value, else where it comes from."""
    if reason.kind == "user":
        return "you set it"
    if reason.limited_by:
        return f"limit: {reason.limited_by}"
    return f"measured: {reason.formula}" if reason.kind == "measured" else reason.source


def _predictions(plan: Plan) -> list[str]:
    predicted, memory = plan.predicted, plan.memory
    step, run = predicted.step_seconds, predicted.run_seconds
    return [
        labelled(
            "memory",
            f"needs {interval('bytes', predicted.device_peak_bytes)} of the "
            f"{bytes_text(memory.budget_bytes)} it may use "
            f"({percent(memory.share)} of what there is)",
        ),
        labelled(
            "time",
            f"about {seconds_text(step.expected)} a step ({interval('seconds', step)}), "
            f"{seconds_text(run.expected)} in all ({interval('seconds', run)})",
        ),
        *_limit(plan),
    ]


def _limit(plan: Plan) -> list[str]:
    """What the run costs, where a price is known, and what a limit of time or money led to."""
    train, spent = plan.train, _cost(plan)
    lines = []
    if spent is not None and train.price_per_hour is not None:
        low, cost, high = map(money_text, spent)
        said = f"about {cost} ({low} to {high}) at {money_text(train.price_per_hour)} an hour"
        lines.append(labelled("cost", said))
    for key in ("within_seconds", "spend_dollars"):
        reason = plan.because.get("train", {}).get(key)
        if reason is not None and reason.value is not None:
            lines.append(labelled("limit", reason.formula))
    return lines


def _cost(plan: Plan) -> tuple[float, float, float] | None:
    """Dollars that the run takes at least, about, and at most, where a price is known."""
    price, run = plan.train.price_per_hour, plan.predicted.run_seconds
    if price is None:
        return None
    low, expected, high = (s * price / 3600 for s in (run.low, run.expected, run.high))
    return low, expected, high


def _bullets(label: str, items: tuple[str, ...] | list[str]) -> list[str]:
    return [labelled(label if i == 0 else "", item) for i, item in enumerate(items)]


def _machine_lines(hardware: HardwareProfile) -> list[str]:
    cpu, disk = hardware.cpu, hardware.disk
    features = f"; {', '.join(cpu.features)}" if cpu.features else ""
    speed = f", writes {bytes_text(disk.write_bandwidth)}/s" if disk.write_bandwidth else ""
    description = f": {hardware.description}" if hardware.description else ""
    lines = [
        labelled("machine", f"{hardware.name} ({hardware.system}){description}"),
        labelled("cpu", f"{cpu.name}, {cpu.cores} of {cpu.logical} cores usable{features}"),
        labelled("ram", _free(hardware.ram_available_bytes, hardware.ram_total_bytes)),
        labelled("disk", f"{disk.path}: {_free(disk.free_bytes, disk.total_bytes)}{speed}"),
    ]
    for device in hardware.devices:
        lines += _device(device)
    versions = ", ".join(f"{name} {version}" for name, version in hardware.versions.items())
    return [*lines, labelled("versions", versions)] if versions else lines


def _device(device: Device) -> list[str]:
    label = device.kind if device.kind == "cpu" else f"{device.kind}:{device.index}"
    facts = []
    if device.kind != "cpu":
        facts.append(f"{device.name}, {_free(device.free_bytes, device.total_bytes)}")
    if device.compute_capability:
        facts.append(f"compute capability {device.compute_capability}")
    rates = device.rates
    speeds = [f"{dtype} {count_text(rate)}FLOP/s" for dtype, rate in rates.matmul.items()]
    facts.append(f"{', '.join(speeds)}, memory {bytes_text(rates.bandwidth)}/s ({rates.source})")
    shown = "speed" if device.kind == "cpu" else label
    others = ", ".join(
        f"{clean(n.name)} (pid {n.pid}, {bytes_text(n.used_bytes)})" for n in device.neighbours
    )
    lines = [labelled(shown, "; ".join(facts))]
    return [*lines, labelled("", f"also used by {others}")] if others else lines
