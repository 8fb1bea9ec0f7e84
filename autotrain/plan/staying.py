"""Whether samples stay in memory once they were read, written down with reasons."""

from __future__ import annotations

from autotrain.plan import due, overlap, ram
from autotrain.plan.ledger import Ledger
from autotrain.plan.sizing import Sizing
from autotrain.units import bytes_text, seconds_text

# Samples stay in memory where they take no more than this share of what is free, where loading
# takes more than that share of the model's time, and reading one more than a copy of it.
KEPT_SHARE, KEPT_FROM, KEPT_SECONDS = 0.2, 0.05, 50e-6


def decide(ledger: Ledger, sizing: Sizing) -> None:
    """Decide whether samples stay in memory: where reading them is felt and there is room."""
    size, model = sizing.sample_bytes(), sizing.time.micro_seconds()
    loading, workers = sizing.time.loading_seconds(), sizing.time.workers()
    each = loading / sizing.time.micro_samples() - overlap.SAMPLE_SECONDS
    # On a CPU a worker that hides the reading takes its core from the model.
    on_cpu = sizing.device.kind == "cpu"
    felt = loading if on_cpu else sizing.time.fed_seconds(model) - model
    part = f"under {KEPT_FROM:.0%} of the model's time"
    quick = f"reading a sample takes {seconds_text(max(each, 0.0))}, no more than a copy would"
    (room, of_room), (left, of_ram) = _room_on_device(sizing), _room_in_ram(sizing)
    # That core is in no prediction; workers that were asked for have theirs anyhow.
    seen = not on_cpu or ledger.fixed("loader.workers") is not None
    there = {
        "they do not stack, or two readings of one differ": not sizing.model.stacks,
        f"reading them is felt for {part} ({_part(felt, model)})": felt <= KEPT_FROM * model,
        f"{bytes_text(size)} of samples are more than {of_room}": size > room,
        "reading all of them first takes as long as it saves": seen
        and gain(ledger, sizing, "device", workers) <= 0,
    }
    here = {
        f"loading takes {part} ({_part(loading, model)})": loading <= KEPT_FROM * model,
        quick: each <= KEPT_SECONDS,
        f"each of {workers} workers would keep its own": workers > 1,
        f"{bytes_text(size)} of samples are more than {of_ram}": size > left,
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


def gain(ledger: Ledger, sizing: Sizing, keep: str, workers: int) -> float:
    """Seconds of the whole run that keeping samples saves, with the workers in force, over so many
    that read them each time; negative: costs."""
    chosen = ledger.values["loader"]
    before, took = {key: chosen.get(key) for key in ("keep", "workers")}, list[float]()
    for tried in ({"keep": None, "workers": workers}, before | {"keep": keep}):
        chosen.update(tried)
        took.append(due.expected_seconds(ledger, sizing))
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
