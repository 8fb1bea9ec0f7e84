"""How often to log, evaluate and save, and how much to keep."""

from __future__ import annotations

import math
import re
import sys
from typing import NamedTuple

from autotrain.schema import INTERRUPTION_HOURS, HardwareProfile, Prediction
from autotrain.units import GIB


class Pace(NamedTuple):
    """How often something is due: by epochs, by steps, by both, or (neither) at the end only."""

    every_epochs: int | None
    every_steps: int | None


# --- saving --------------------------------------------------------------------------------

# Where the disk's speed is not known, and what fsync and renaming take besides.
WRITE_BANDWIDTH, SAVE_SECONDS = 200e6, 10e-3
# Bytes a second of SHA-256 on one core that has instructions for it; without them a quarter.
HASH_BANDWIDTH = 1.5e9


def stored_bytes(tensors: int) -> Prediction:
    """Bytes of one checkpoint: its tensors' (weights, buffers, optimizer), and a little JSON."""
    return Prediction(low=tensors, expected=tensors + 48_000, high=1.02 * tensors + 400_000)


def save_seconds(checkpoint_bytes: float, write_bandwidth: float | None) -> float:
    """For how long a save keeps training waiting, or takes a core from it: it is written through
    its fsync, and its digest computed twice, of what is written and of what is then there."""
    written = checkpoint_bytes / (write_bandwidth or WRITE_BANDWIDTH)
    return written + 2 * checkpoint_bytes / HASH_BANDWIDTH + SAVE_SECONDS


# Words in a device's, a processor's or a machine's name.
_LAPTOP = {"laptop", "notebook", "macbook", "mobile"}
_SERVER = {
    "epyc", "xeon", "neoverse", "graviton", "altra", "instinct", "tesla", "a10", "a10g", "a16",
    "a30", "a40", "a100", "a800", "b100", "b200", "gb200", "gh200", "h20", "h100", "h200", "h800",
    "k80", "l4", "l40", "l40s", "p4", "p40", "p100", "t4", "v100",
}  # fmt: skip


def machine_kind(hardware: HardwareProfile) -> str:
    """`laptop` (a battery, or a name that says so), `server` (parts made for one), `workstation`.

    Whether it is a spot instance, which may be taken away, no machine tells.
    """
    names = [hardware.name, hardware.cpu.name, *(device.name for device in hardware.devices)]
    words = set(re.findall(r"[a-z0-9]+", " ".join(names).lower()))
    if hardware.battery or words & _LAPTOP:
        return "laptop"
    return "server" if words & _SERVER else "workstation"


def interruption_hours(hardware: HardwareProfile) -> float:
    """Mean hours between two interruptions: the profile's, else by the kind of machine."""
    return hardware.interruption_hours or INTERRUPTION_HOURS[machine_kind(hardware)]


# For saves of a smaller part of M the series is as exact as numbers are.
SERIES = 1e-12


def young(save: float, between: float) -> float:
    """Seconds of work between saves, to first order (Young 1974): sqrt(2 C M)."""
    return math.sqrt(2 * save * between)


def daly(save: float, between: float) -> float:
    """The same to higher order (Daly 2006, eq. 37), for saves that are not short against M."""
    if save >= 2 * between:
        return between
    x = math.sqrt(save / (2 * between))
    return young(save, between) * (1 + x / 3 + x * x / 9) - save


def best_interval(save: float, between: float) -> float:
    """Seconds of work between saves for the least expected time of a run.

    The optimum that Daly's series approximates: u = t / M solves 1 - u = exp(-(u + C / M)).
    Unlike the series it never falls when C or M grows: nothing where a save costs nothing, without
    end where nothing interrupts, and M itself where a save takes many times as long.
    """
    if math.isinf(between):
        return math.inf
    share = save / between
    if share < sys.float_info.min:  # too small for a float to hold: Young's first term is all of it
        return math.sqrt(2 * save) * math.sqrt(between)
    u = daly(share, 1.0)
    if share > SERIES:
        for _ in range(6):
            u -= (u + math.expm1(-(u + share))) / -math.expm1(-(u + share))
    return u * between


def expected_share(interval: float, save: float, between: float) -> float:
    """A run's expected time over its plain time, with interruptions (Daly 2006)."""
    exponent = (interval + save) / between
    return between / interval * math.expm1(exponent) if exponent < 700 else math.inf


def epochs_fifth_rule(epochs: int) -> int:
    """Save every epochs / 5 epochs, at least 1: the speech autoencoder origin's rule."""
    return max(epochs // 5, 1)


def steps_within(seconds: float, step_seconds: float) -> int:
    """Steps that take no longer than so many seconds, at least 1."""
    steps = seconds / max(step_seconds, 1e-12)
    return max(int(min(steps, 1e12)), 1)


def save_pace(steps: int, steps_per_epoch: int, most_epochs: int) -> Pace:
    """Saves at most `steps` apart: whole epochs where they are shorter, else equal parts of one."""
    if steps >= steps_per_epoch:
        return Pace(min(steps // steps_per_epoch, most_epochs), None)
    return Pace(None, math.ceil(steps_per_epoch / math.ceil(steps_per_epoch / steps)))


KEEP = 3
# Beside those kept: the best, the one of an interruption, and the one being written.
BESIDES = 3


def keep(checkpoint_bytes: float, free_bytes: float, wanted: int = KEEP) -> int:
    """Checkpoints to keep: `wanted`, fewer where the disk is small, at least 1.

    The best, an interrupted one and the one being written are further ones, and 1 GiB is left
    to the rest of the machine.
    """
    room = (free_bytes - GIB) / max(checkpoint_bytes, 1)
    return min(max(math.floor(room) - BESIDES, 1), wanted)


def disk_bytes(checkpoint_bytes: float, keep_count: int) -> float:
    """The most a run's checkpoints take."""
    return checkpoint_bytes * (keep_count + BESIDES)


def least_disk_bytes(checkpoint_bytes: float) -> float:
    """With less there is no run: one checkpoint, the best, and one being written."""
    return 3 * checkpoint_bytes


# --- evaluating and logging ----------------------------------------------------------------

EVALUATION_SHARE = 0.1
LEAST_EVALUATIONS = 10
MINUTE, HOUR = 60.0, 3600.0


def evaluation_pace(
    epochs: int, steps_per_epoch: int, step_seconds: float, evaluation_seconds: float
) -> Pace:
    """After each epoch, unless that costs over a tenth of training, or epochs are few and long.

    Rarer, then, but 10 times in a run where there are as many epochs. More often where there are
    under 10 epochs, though not before a minute has passed, and at least every hour.
    """
    epoch_seconds = steps_per_epoch * step_seconds
    affordable = evaluation_seconds / (EVALUATION_SHARE * max(step_seconds, 1e-12))
    few = min(math.ceil(LEAST_EVALUATIONS / epochs), int(epoch_seconds // MINUTE))
    parts = max(few, math.ceil(epoch_seconds / HOUR), 1)
    steps = max(math.ceil(steps_per_epoch / parts), math.ceil(min(affordable, 1e12)))
    if steps < steps_per_epoch:
        return Pace(None, steps)
    rarest = max(epochs // LEAST_EVALUATIONS, 1)
    return Pace(min(math.ceil(affordable / steps_per_epoch) or 1, rarest), None)


def occasions(
    epochs: int, steps_per_epoch: int, every_epochs: int | None, every_steps: int | None
) -> int:
    """How often something is due in a run: by epochs, by steps, and after the last step."""
    total = epochs * steps_per_epoch
    paces = [every_steps or 0, (every_epochs or 0) * steps_per_epoch]
    paces = [pace for pace in paces if pace]
    due = sum(total // pace for pace in paces)
    if len(paces) == 2:
        due -= total // math.lcm(*paces)
    return due + (not any(total % pace == 0 for pace in paces))


def run_seconds(
    start: Prediction,
    steps: int,
    step: Prediction,
    evaluations: int,
    evaluation: Prediction,
    saves: int,
    save: float,
) -> Prediction:
    """A whole run if nothing stops it early: start, steps, evaluations, saves."""
    # The best so far is saved too: at one evaluation at least, at each at most.
    best = Prediction(low=1, expected=(1 + evaluations) / 2, high=evaluations)

    def total(end: str, save: float) -> float:
        s, e, b, t = (getattr(p, end) for p in (step, evaluation, best, start))
        return float(t + steps * s + evaluations * e + (saves + b) * save)

    return Prediction(
        low=total("low", save / 3),
        expected=total("expected", save),
        high=total("high", 3 * save),
    )


def log_every(step_seconds: float, total_steps: int) -> int:
    """Steps between log points: about one a second, at least 50 in a run, at most 100 steps."""
    by_time = round(1.0 / max(step_seconds, 1e-6))
    return min(max(by_time, 1), max(total_steps // 50, 1), 100)
