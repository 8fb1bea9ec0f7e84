"""Memory: of the machine, of a container, shared between processes, and addresses."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from autotrain.doctor.result import Result, fail, ok, skip, warn
from autotrain.doctor.scene import Scene
from autotrain.doctor.spelling import busiest
from autotrain.units import GIB, MIB, bytes_text

# torch and what comes with it take about 700 MB before anything is trained.
_LEAST, _LITTLE = 1 * GIB, 2 * GIB
# Docker gives 64 MB of /dev/shm; a micro-batch of images for each of a few workers takes more.
_SHM_LEAST, _SHM_LITTLE = 64 * 1000**2, 512 * MIB
_ADDRESSES, _ADDRESSES_GPU = 8 * GIB, 64 * GIB


def ram(scene: Scene) -> Result:
    """Memory is free: 1 GiB at least, of which torch takes most."""
    from autotrain.probe.limits import usable_memory

    memory = usable_memory(scene.root)
    told = f"{bytes_text(memory.available_bytes)} free of {bytes_text(memory.total_bytes)}"
    mend = busiest("mem")
    if memory.available_bytes < _LEAST:
        return fail(f"{told}; torch alone takes 700 MiB", mend)
    if memory.available_bytes < _LITTLE:
        return warn(told, mend)
    return ok(told)


def container(scene: Scene) -> Result:
    """A container's limit leaves room to train."""
    from autotrain.probe.limits import cgroup_memory

    limits = cgroup_memory(scene.root)
    if not limits:
        return ok("no limit")
    tightest = min(limits, key=lambda limit: limit.total_bytes)
    free = bytes_text(tightest.available_bytes)
    told = f"a limit of {bytes_text(tightest.total_bytes)}, {free} of it free"
    mend = (
        "docker update --memory 16g --memory-swap 16g CONTAINER   # or the batch system's request"
    )
    if tightest.total_bytes < _LEAST:
        return fail(f"{told}: the kernel kills what goes beyond", mend)
    if tightest.total_bytes < _LITTLE:
        return warn(f"{told}: the kernel kills what goes beyond", mend)
    return ok(told)


def swap(scene: Scene) -> Result:
    """The machine does not live on swap."""
    import psutil

    swap, memory = psutil.swap_memory(), psutil.virtual_memory()
    if not swap.total:
        return ok("none: memory that runs out ends a program at once")
    told = f"{bytes_text(swap.used)} used of {bytes_text(swap.total)}"
    if swap.used > 0.5 * swap.total and memory.available < 0.1 * memory.total:
        return warn(f"{told}, and memory is short: everything waits for the disk", busiest("mem"))
    return ok(told)


def shared(scene: Scene) -> Result:
    """/dev/shm has room for what loader workers hand over."""
    place = scene.root / "dev/shm"
    if not sys.platform.startswith("linux"):
        return skip("other systems have no /dev/shm")
    mend = "mount -o remount,size=8G /dev/shm   # a container: docker run --shm-size=8g ..."
    if not place.is_dir():
        return fail("there is no /dev/shm: loader workers hand everything through pipes", mend)
    free = _free(place)
    if not os.access(place, os.W_OK):
        return fail("/dev/shm may not be written", "sudo chmod 1777 /dev/shm")
    told = f"{bytes_text(free)} free in /dev/shm"
    if free < _SHM_LEAST:
        return fail(f"{told}: micro-batches go through pipes, which is slower", mend)
    if free < _SHM_LITTLE:
        return warn(f"{told}: large micro-batches go through pipes, which is slower", mend)
    return ok(told)


def addresses(scene: Scene) -> Result:
    """`ulimit -v` leaves torch the addresses that it asks for."""
    from autotrain.probe.limits import address_space

    limit = address_space()
    if limit is None:
        return ok("no limit")
    told = f"`ulimit -v` is {bytes_text(limit.total_bytes)}"
    if limit.total_bytes < _ADDRESSES:
        return fail(
            f"{told}: loading torch takes GBs of addresses, not of RAM", "ulimit -v unlimited"
        )
    if limit.total_bytes < _ADDRESSES_GPU:
        return warn(f"{told}: CUDA asks for more addresses than that", "ulimit -v unlimited")
    return ok(told)


def overcommit(scene: Scene) -> Result:
    """The kernel lets programs ask for more addresses than they use."""
    told = scene.text("proc/sys/vm/overcommit_memory").strip()
    if told == "2":
        return warn(
            "vm.overcommit_memory is 2: workers and CUDA may get no memory though it is free",
            "sudo sysctl vm.overcommit_memory=0",
        )
    return ok("allowed") if told else skip("this system does not tell")


def _free(place: Path) -> int:
    found = os.statvfs(place)
    return found.f_bavail * found.f_frsize
