"""What a run takes of the machine's RAM where it trains on a GPU: nobody's budget, and yet finite.

On a CPU all of it is in the predicted peak, which has a budget of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from autotrain.errors import DoesNotFitError
from autotrain.plan import host, keeping
from autotrain.plan.choices import used
from autotrain.plan.memory import affine
from autotrain.schema import CUDA_LIKE, Prediction, whole
from autotrain.units import GIB, MIB, bytes_text

if TYPE_CHECKING:
    from autotrain.plan.sizing import Sizing

# Of what is free; the rest is for other programs and the system's cache of files.
SHARE = 0.8
# A CUDA context's part in RAM, and the libraries with it: github.com/pytorch/pytorch/issues/12873
# has 1,122 MiB for a first tensor and 594 more for a first convolution, with all kernels loaded;
# since torch 1.13 they are loaded as they are needed.
CUDA = Prediction(low=250 * MIB, expected=GIB, high=2.5 * GIB)
# Micro-batches that each worker has ready, as torch's DataLoader does it.
PREFETCH = 2
# Micro-batches that lie in page-locked memory: one on its way, one whose memory is not free yet.
PINNED = 2


def parts(sizing: Sizing, workers: int) -> dict[str, Prediction]:
    """Bytes that the run's processes on this machine take, with so many loader workers each."""
    world, batch = local(sizing), micro_batch_bytes(sizing)
    pins = sizing.device.kind in CUDA_LIKE
    found = standing(sizing)
    found["batches on their way"] = _of(world * (page_locked(batch) if pins else batch))
    if workers:
        each = sizing.worker_bytes() + prefetched(sizing) * batch
        found[f"{world * workers} loader workers"] = _of(world * workers * each)
    free = sizing.hardware.ram_available_bytes
    kept = keeping.counted_bytes(sizing.model, workers, free) + keeping.in_ram(sizing, workers)
    if kept:
        found["samples kept"] = _of(world * kept)
    return found


def standing(sizing: Sizing) -> dict[str, Prediction]:
    """What of it does not depend on the batch, nor on who loads it."""
    model, world = sizing.model, local(sizing)
    begun = host.base_bytes(model)
    process = Prediction(low=0.9 * begun, expected=begun, high=1.1 * begun)
    held = whole([process, CUDA]) if sizing.device.kind != "mps" else process
    weights = world * (model.parameter_bytes + model.buffer_bytes)
    return {
        "Python, torch and the driver": whole([held] * world),
        "the weights before they move, or a save's copy": _of(max(weights, sizing.saved_bytes())),
    }


def taken(sizing: Sizing, workers: int) -> Prediction:
    """All of it."""
    return whole(list(parts(sizing, workers).values()))


def room(sizing: Sizing, workers: int = 0) -> float:
    """Bytes that are left to one process beside all that, however much it turns out to be."""
    left = SHARE * sizing.hardware.ram_available_bytes - taken(sizing, workers).high
    return left / local(sizing)


def local(sizing: Sizing) -> int:
    """Processes of the run on this machine: no more than it has GPUs; the rest is elsewhere."""
    if sizing.device.kind == "cpu":
        return sizing.processes()
    return len(used(sizing.ledger, sizing.hardware, sizing.device))


def micro_batch_bytes(sizing: Sizing) -> float:
    """Of the largest micro-batch, as it comes from the loader."""
    setup = sizing.planned()
    traces = sizing.at_length(setup.length).at(setup.dtype)
    return affine(traces, lambda t: t.batch_bytes, setup.micro_batch)


def prefetched(sizing: Sizing) -> int:
    """Micro-batches that each loader worker has ready."""
    return int(sizing.ledger.value("loader.prefetch"))


def check(sizing: Sizing) -> None:
    """Raises DoesNotFitError where not even the process goes into the machine's RAM."""
    if sizing.device.kind == "cpu":
        return
    found, has = standing(sizing), sizing.hardware.ram_total_bytes
    least = whole(list(found.values())).low
    if least > has:
        raise DoesNotFitError(
            f"beside {sizing.device.name} the run needs at least {bytes_text(least)} of RAM "
            f"({_told(found)}); {sizing.hardware.name} has {bytes_text(has)}"
        )


def remarks(sizing: Sizing) -> Iterator[str]:
    """What a person should know of a machine whose RAM may not do."""
    if sizing.device.kind == "cpu":
        return
    workers, free = sizing.time.workers(), sizing.hardware.ram_available_bytes
    takes = taken(sizing, workers)
    if takes.high > free:
        yield (
            f"beside the GPU the run may take {bytes_text(takes.low)} to {bytes_text(takes.high)} "
            f"of RAM ({_told(parts(sizing, workers))}), of which {bytes_text(free)} are free: the "
            "system may end it for that"
        )


def _told(found: dict[str, Prediction]) -> str:
    return " + ".join(f"{name} {bytes_text(size.expected)}" for name, size in found.items())


def _of(size: float) -> Prediction:
    return Prediction(low=size, expected=size, high=size)


def page_locked(batch: float) -> float:
    """Bytes for micro-batches of so many on their way; torch hands them out by powers of two."""
    return PINNED * 2.0 ** math.ceil(math.log2(batch)) if batch > 1 else 0.0
