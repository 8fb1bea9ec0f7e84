"""The loader that feeds the model, written down with reasons."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

from autotrain.plan import apart, compute, due, keeping, learning, ram
from autotrain.plan.due import Times
from autotrain.plan.ledger import Ledger
from autotrain.plan.sizing import Sizing
from autotrain.schema import CUDA_LIKE
from autotrain.units import bytes_text, mean_text, seconds_text

# Samples stay in memory where they take no more than this share of what is free, where loading
# takes more than that share of the model's time, and reading one more than a copy of it.
KEPT_SHARE, KEPT_FROM, KEPT_SECONDS = 0.2, 0.05, 50e-6


def loader(ledger: Ledger, sizing: Sizing) -> None:
    """Decide how many processes load data, on which cores, and how they start."""
    most = _workers(ledger, sizing)
    _keep(ledger, sizing)
    _once(ledger, sizing)
    given = ledger.fixed("loader.workers")
    able = range(most + 1) if given is None else range(given, given + 1)
    read_again = ledger.value("loader.keep") is None
    many = apart.decide(ledger, sizing, able) if read_again else None
    if many is not None:
        _workers(ledger, sizing, many)
        _keep(ledger, sizing)
    ledger.settle(
        "loader.prefetch",
        2,
        formula="micro-batches that each worker holds ready",
        source="torch.utils.data.DataLoader's default",
        kind="fixed",
    )
    ledger.settle(
        "loader.pin_memory",
        sizing.device.kind in CUDA_LIKE,
        formula="page-locked batches copy to a GPU without a stop; useless on a CPU",
        source="CUDA programming guide",
    )
    ledger.settle(
        "loader.start_method",
        "fork" if sizing.hardware.system in ("linux", "wsl") else "spawn",
        formula=f"fork starts faster and shares memory; {sizing.hardware.system} decides",
        source="Python's multiprocessing",
        limited_by="the operating system",
    )


def _workers(ledger: Ledger, sizing: Sizing, given: int | None = None) -> int:
    """Decide how many processes load data; returns the most that cores and memory allow.

    `given`: as many as have cores of their own.
    """
    time, model = sizing.time, sizing.time.micro_seconds()
    most, fed = time.most_workers(), time.with_workers(model)
    allowed = _allowed_workers(sizing, most)
    wanted, rule = (compute.best_workers(fed, model, many) for many in (most, allowed))
    rule = rule if given is None else given
    ledger.settle(
        "loader.workers",
        rule,
        formula=_feeding(sizing, fed, rule, wanted),
        source="samples timed on the machine that planned, with their work and their waiting",
        kind="measured",
        limited_by=_limit(rule, wanted, most),
    )
    return allowed


def _once(ledger: Ledger, sizing: Sizing) -> None:
    """No workers on a CPU whose samples can stay in memory: known to be the same at each reading,
    they are read once, if the whole run is shorter for it."""
    chosen = ledger.values["loader"]
    workers, asked = chosen["workers"], ledger.fixed("loader.workers") is not None
    if sizing.device.kind != "cpu" or not sizing.model.steady or asked or not workers:
        return
    if chosen["keep"] is not None:
        return
    chosen["workers"] = 0
    _keep(ledger, sizing)
    if chosen["keep"] is None or _gain(ledger, sizing, chosen["keep"], workers) <= 0:
        chosen["workers"] = workers
        _keep(ledger, sizing)
        return
    ledger.settle(
        "loader.workers",
        0,
        formula="samples are the same at each reading and stay in memory (loader.keep): read once, "
        f"the run is shorter than with {workers} workers that read them each time",
        source="samples timed on the machine that planned; two of them read again",
        kind="measured",
    )


def _limit(workers: int, wanted: int, most: int) -> str:
    """What keeps the workers from being more; nothing where no more are wanted."""
    if workers < wanted:
        return "memory"
    return "cpu.cores" if 0 < workers == most else ""


def _feeding(sizing: Sizing, fed: Callable[[int], float], workers: int, wanted: int) -> str:
    """Whether the model would wait for data, with the numbers that say so."""
    time, loading = sizing.time, sizing.time.loading()
    waits = f", {seconds_text(loading.waiting)} of it waiting," if loading.waits else ""
    said = (
        f"{mean_text(time.micro_samples())} samples load in {seconds_text(loading.seconds)}{waits} "
        f"and the model takes {seconds_text(time.micro_seconds())} for them"
    )
    handover = seconds_text(compute.HANDOVER_SECONDS)
    if time.cores() < 2:
        return f"{said}; the only core is left to training"
    if workers < wanted and not workers:
        where = "the budget" if sizing.device.kind == "cpu" else "the RAM"
        return f"{said}; for a worker of {bytes_text(sizing.worker_bytes())} {where} has no room"
    if workers:
        return f"{said}; {_together(fed, workers)}, so others load the next ones meanwhile"
    if loading.seconds < compute.HANDOVER_SECONDS:
        return f"{said}; a worker would take {handover} to hand them over, which is no gain"
    least = f"less than {compute.GAIN + compute.GAIN_EACH:.0%} of the model's is too little for it"
    return f"{said}; {_together(fed, 1)}: {least}"


def _together(fed: Callable[[int], float], workers: int) -> str:
    many = "one worker" if workers == 1 else f"{workers} workers"
    return f"both take {seconds_text(fed(0))}, and {seconds_text(fed(workers))} with {many}"


def _keep(ledger: Ledger, sizing: Sizing) -> None:
    """Decide whether samples stay in memory: where reading them is felt and there is room."""
    size, model = sizing.sample_bytes(), sizing.time.micro_seconds()
    loading, workers = sizing.time.loading_seconds(), sizing.time.workers()
    each = loading / sizing.time.micro_samples() - compute.SAMPLE_SECONDS
    # On a CPU a worker that hides the reading takes its core from the model.
    on_cpu = sizing.device.kind == "cpu"
    felt = loading if on_cpu else sizing.time.fed_seconds(model) - model
    part = f"under {KEPT_FROM:.0%} of the model's time"
    quick = f"reading a sample takes {seconds_text(max(each, 0.0))}, no more than a copy would"
    (room, of_room), (ram, of_ram) = _room_on_device(sizing), _room_in_ram(sizing)
    # That core is in no prediction; workers that were asked for have theirs anyhow.
    seen = not on_cpu or ledger.fixed("loader.workers") is not None
    there = {
        "they do not stack, or two readings of one differ": not sizing.model.stacks,
        f"reading them is felt for {part} ({_part(felt, model)})": felt <= KEPT_FROM * model,
        f"{bytes_text(size)} of samples are more than {of_room}": size > room,
        "reading all of them first takes as long as it saves": seen
        and _gain(ledger, sizing, "device", workers) <= 0,
    }
    here = {
        f"loading takes {part} ({_part(loading, model)})": loading <= KEPT_FROM * model,
        quick: each <= KEPT_SECONDS,
        f"each of {workers} workers would keep its own": workers > 1,
        f"{bytes_text(size)} of samples are more than {of_ram}": size > ram,
    }
    if not any(there.values()):
        value = "device"
        said = (
            f"{bytes_text(size)} of samples, which stack and read alike twice, are within "
            f"{of_room}; reading them again would be felt for {_part(felt, model)} of the model's"
        )
    elif not any(here.values()):
        value = "ram"
        said = (
            f"{bytes_text(size)} of samples are within {of_ram}; loading them again would take "
            f"{_part(loading, model)} of the model's; not stacked on the device: {_so(there)}"
        )
    else:
        value = None
        said = f"they are read each time: {_so(here)}; not stacked on the device: {_so(there)}"
    ledger.settle(
        "loader.keep",
        value,
        formula=said,
        source="our choice; a run keeps only what two readings gave alike without random numbers",
        would_change="--set loader.keep=ram, device or off",
    )


def _gain(ledger: Ledger, sizing: Sizing, keep: str, workers: int) -> float:
    """Seconds of the whole run that keeping samples saves, with the workers in force, over so many
    that read them each time; negative: costs."""
    chosen = ledger.values["loader"]
    epochs = ledger.fixed("train.epochs") or learning.default_epochs(sizing.steps_per_epoch())
    before, took = {key: chosen.get(key) for key in ("keep", "workers")}, list[float]()
    for tried in ({"keep": None, "workers": workers}, before | {"keep": keep}):
        chosen.update(tried)
        took.append(due.run_seconds(ledger, Times.of(sizing), epochs).expected)
    chosen.update(before)
    return took[0] - took[1]


def _part(seconds: float, model: float) -> str:
    return f"{seconds_text(seconds)} to {seconds_text(model)}"


def _so(reasons: dict[str, bool]) -> str:
    return "; ".join(why for why, so in reasons.items() if so)


def _room_in_ram(sizing: Sizing) -> tuple[float, str]:
    """Bytes that samples may take there, and what that is."""
    room = KEPT_SHARE * sizing.hardware.ram_available_bytes
    if sizing.device.kind != "cpu":
        left = max(ram.room(sizing, sizing.time.workers()), 0.0)
        if left < room:
            return left, f"{bytes_text(left)} of RAM that the run leaves"
        return room, f"a fifth of the free RAM, {bytes_text(room)}"
    # There they count in the peak that is predicted, and not every set can be kept.
    room = min(room, 0.1 * sizing.device_peak(sizing.planned(), 0).expected)
    return room, f"{bytes_text(room)}, what the predicted peak does not notice"


def _room_on_device(sizing: Sizing) -> tuple[float, str]:
    """Bytes that samples may take there, and what that is."""
    if sizing.device.kind == "cpu":
        return _room_in_ram(sizing)
    room = sizing.budget() - sizing.device_peak(sizing.planned(), 0).high
    return room, f"{bytes_text(max(room, 0.0))}, what the step leaves of the budget"


def _allowed_workers(sizing: Sizing, most: int) -> int:
    """How many the memory allows, of up to so many, with what each of them keeps: of a CPU's
    budget, or of the RAM beside a GPU.
    """
    fits = _fits_budget if sizing.device.kind == "cpu" else _fits_ram

    def allowed(workers: int) -> bool:
        return (workers == 1 or _counted(sizing, workers)) and fits(sizing, workers)

    return bisect_left(range(1, most + 1), True, key=lambda workers: not allowed(workers))


def _counted(sizing: Sizing, workers: int) -> bool:
    """Whether all that the dataset keeps in each is counted: what is not is not asked for twice."""
    free = sizing.hardware.ram_available_bytes
    return keeping.cached_bytes(sizing.model, workers) <= keeping.SHARE * free


def _fits_budget(sizing: Sizing, workers: int) -> bool:
    kept = sizing.kept_bytes() + keeping.in_ram(sizing, workers) - keeping.in_ram(sizing, 0)
    return sizing.device_peak(sizing.planned(), workers).high + kept <= sizing.budget()


def _fits_ram(sizing: Sizing, workers: int) -> bool:
    by_rule = 0.5 * sizing.hardware.ram_available_bytes / ram.local(sizing)
    return workers * sizing.worker_bytes() <= by_rule and ram.room(sizing, workers) >= 0
