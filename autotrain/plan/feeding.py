"""The loader that feeds the model, written down with reasons."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import Any, NamedTuple

from autotrain.plan import apart, due, keeping, overlap, ram, staying
from autotrain.plan.ledger import Ledger
from autotrain.plan.race import THREADS
from autotrain.plan.sizing import Sizing
from autotrain.schema import CUDA_LIKE, Reason
from autotrain.units import bytes_text, mean_text, seconds_text


def loader(ledger: Ledger, sizing: Sizing) -> None:
    """Decide how many processes load data, on which cores, and how they start."""
    most = _workers(ledger, sizing)
    staying.decide(ledger, sizing)
    _once(ledger, sizing)
    together = _Fed.of(ledger)
    given = ledger.fixed("loader.workers")
    able = range(most + 1) if given is None else range(given, given + 1)
    read_again = ledger.value("loader.keep") is None
    many = apart.decide(ledger, sizing, able) if read_again else None
    if many is not None:
        _workers(ledger, sizing, many)
        staying.decide(ledger, sizing)
    if many is not None or ledger.value("loader.workers"):
        _whole_run(ledger, sizing, together)
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


def _prefetch(ledger: Ledger, sizing: Sizing, wanted: int) -> None:
    """Decide how many micro-batches each worker has ready: fewer, where that is room for more of
    those `wanted` beside a GPU."""
    usual = ledger.settle(
        "loader.prefetch",
        ram.PREFETCH,
        formula="micro-batches that each worker holds ready",
        source="torch.utils.data.DataLoader's default",
        kind="fixed",
    )
    if sizing.device.kind == "cpu" or ledger.fixed("loader.prefetch") is not None:
        return
    few = _allowed_workers(sizing, wanted)
    if few == wanted:
        return
    ledger.values["loader"]["prefetch"] = 1
    more = _allowed_workers(sizing, wanted)
    if more == few:
        ledger.values["loader"]["prefetch"] = usual
        return
    ledger.settle(
        "loader.prefetch",
        1,
        formula=f"one micro-batch ready for each worker, not {usual}: the RAM has room for {more} "
        f"so, and for {few} else",
        source="autotrain's rule: a worker loads the next one while the last one waits",
        limited_by="memory",
    )


def _workers(ledger: Ledger, sizing: Sizing, given: int | None = None) -> int:
    """Decide how many processes load data; returns the most that cores and memory allow.

    `given`: as many as have cores of their own.
    """
    time, model = sizing.time, sizing.time.micro_seconds()
    most, fed = time.most_workers(), time.with_workers(model)
    wanted = overlap.best_workers(fed, model, most)
    _prefetch(ledger, sizing, wanted)
    allowed = _allowed_workers(sizing, most)
    rule = overlap.best_workers(fed, model, allowed) if given is None else given
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
    staying.decide(ledger, sizing)
    if chosen["keep"] is None or staying.gain(ledger, sizing, chosen["keep"], workers) <= 0:
        chosen["workers"] = workers
        staying.decide(ledger, sizing)
        return
    ledger.settle(
        "loader.workers",
        0,
        formula="samples are the same at each reading and stay in memory (loader.keep): read once, "
        f"the run is shorter than with {workers} workers that read them each time",
        source="samples timed on the machine that planned; two of them read again",
        kind="measured",
    )


class _Fed(NamedTuple):
    """What was decided, with its reasons."""

    loader: tuple[dict[str, Any], dict[str, Reason]]
    threads: tuple[Any, Reason]

    @classmethod
    def of(cls, ledger: Ledger) -> _Fed:
        loader = dict(ledger.values["loader"]), dict(ledger.because["loader"])
        threads = ledger.value(THREADS), ledger.because["device"]["threads"]
        return cls(loader, threads)

    def restore(self, ledger: Ledger) -> None:
        for all_of, own in zip((ledger.values, ledger.because), self.loader, strict=True):
            all_of["loader"] = dict(own)
        ledger.record(THREADS, *self.threads)


def _whole_run(ledger: Ledger, sizing: Sizing, together: _Fed) -> None:
    """Not what makes a step shorter and the whole run longer: workers hand over each batch of an
    evaluation too, which may take longer than the model's time for it, on fewer threads as well.

    `together`: where the model has all the threads.
    """
    chosen, seconds = _Fed.of(ledger), due.expected_seconds(ledger, sizing)
    if ledger.value(THREADS) != together.threads[0]:
        together.restore(ledger)
        all_threads = due.expected_seconds(ledger, sizing)
        if all_threads < seconds:
            chosen, seconds = together, all_threads
        chosen.restore(ledger)
    workers = ledger.value("loader.workers")
    if not workers or ledger.fixed("loader.workers") is not None:
        return
    ledger.record(THREADS, *together.threads)
    ledger.values["loader"]["workers"] = 0
    staying.decide(ledger, sizing)
    alone = due.expected_seconds(ledger, sizing)
    if alone >= seconds:
        chosen.restore(ledger)
        return
    many = "one worker" if workers == 1 else f"{workers} workers"
    ledger.settle(
        "loader.workers",
        0,
        formula=f"the run takes {seconds_text(alone)}, and {seconds_text(seconds)} with "
        f"{many}: its steps would be shorter, and its evaluations longer, for handing batches over",
        source="samples timed on the machine that planned",
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
    handover = seconds_text(overlap.HANDOVER_SECONDS)
    if time.cores() < 2:
        return f"{said}; the only core is left to training"
    if workers < wanted and not workers:
        where = "the budget" if sizing.device.kind == "cpu" else "the RAM"
        return f"{said}; for a worker of {bytes_text(sizing.worker_bytes())} {where} has no room"
    if workers:
        return f"{said}; {_together(fed, workers)}, so others load the next ones meanwhile"
    if loading.seconds < overlap.HANDOVER_SECONDS:
        return f"{said}; a worker would take {handover} to hand them over, which is no gain"
    least = f"less than {overlap.GAIN + overlap.GAIN_EACH:.0%} of the model's is too little for it"
    return f"{said}; {_together(fed, 1)}: {least}"


def _together(fed: Callable[[int], float], workers: int) -> str:
    many = "one worker" if workers == 1 else f"{workers} workers"
    return f"both take {seconds_text(fed(0))}, and {seconds_text(fed(workers))} with {many}"


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
