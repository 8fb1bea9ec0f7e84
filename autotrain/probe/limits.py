"""What this process may really use of the machine's cores and RAM.

A container, a systemd unit or a batch job often sees all cores and all RAM and may use a part
of them. Functions take the root of the file system, so that tests hand them a folder.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

ROOT = Path("/")
UNLIMITED_BYTES = 1 << 62


@dataclass(frozen=True)
class Memory:
    """Bytes of RAM: the most this process may hold, and what it could take now."""

    total_bytes: int
    available_bytes: int


@dataclass(frozen=True)
class _Mount:
    version: int
    controllers: frozenset[str]
    root: PurePosixPath
    folder: Path


# --- cores ---------------------------------------------------------------------------------


def usable_cores(root: Path = ROOT) -> int:
    """Cores this process may use: affinity, then the cgroup quota rounded down; at least 1.

    Verify with `nproc` (affinity) and `cat /sys/fs/cgroup/cpu.max` (quota).
    """
    allowed = affinity_cores()
    quota = cpu_quota(root)
    return max(1, allowed if quota is None else min(allowed, int(quota)))


def affinity_cores() -> int:
    """Logical CPUs the scheduler may place this process on. Verify with `nproc`."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    import psutil

    try:
        return len(psutil.Process().cpu_affinity()) or os.cpu_count() or 1
    except (AttributeError, psutil.Error, OSError):  # macOS has no affinity
        return os.cpu_count() or 1


def cpu_quota(root: Path = ROOT) -> float | None:
    """The tightest cgroup CPU quota in cores (1.5 = 150 ms per 100 ms), or None.

    Verify with `cat /sys/fs/cgroup/cpu.max`, on version 1 with
    `cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.cfs_period_us`.
    """
    quotas = (_quota_of(folder) for folder in cgroup_folders("cpu", root))
    return min((q for q in quotas if q is not None), default=None)


def _quota_of(folder: Path) -> float | None:
    words = _text(folder / "cpu.max").split()
    if not words:
        words = [_text(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
    if len(words) != 2 or not all(word.isdigit() for word in words):
        return None  # "max", "-1" or no such file: no limit
    quota, period = int(words[0]), int(words[1])
    return quota / period if period else None


# --- memory --------------------------------------------------------------------------------


def usable_memory(root: Path = ROOT) -> Memory:
    """RAM within the machine, the cgroup and the address-space limit, whichever is tightest.

    Verify with `free -b`, `cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory.current` and
    `ulimit -v`.
    """
    import psutil

    machine = psutil.virtual_memory()
    limits = [Memory(machine.total, machine.available), *cgroup_memory(root)]
    space = address_space()
    limits += [space] if space else []
    total = min(limit.total_bytes for limit in limits)
    available = min(limit.available_bytes for limit in limits)
    return Memory(max(1, total), max(0, min(available, total)))


def cgroup_memory(root: Path = ROOT) -> list[Memory]:
    """One entry for every cgroup above this process that limits memory.

    Page cache that the kernel can drop (`inactive_file`) counts as available. On version 2
    `memory.high` counts too: beyond it the process is throttled to a crawl.
    """
    found = []
    for folder in cgroup_folders("memory", root):
        names = ("memory.max", "memory.high", "memory.limit_in_bytes")
        limits = [int(t) for t in (_text(folder / n).strip() for n in names) if t.isdigit()]
        limit = min(limits, default=UNLIMITED_BYTES)
        if 0 < limit < UNLIMITED_BYTES:
            found.append(Memory(limit, max(0, limit - _unreclaimable(folder))))
    return found


def _unreclaimable(folder: Path) -> int:
    used = _text(folder / "memory.current") or _text(folder / "memory.usage_in_bytes")
    fields = _text(folder / "memory.stat").split()
    stat = dict(zip(fields[::2], fields[1::2], strict=False))
    cache = stat.get("total_inactive_file") or stat.get("inactive_file") or "0"
    return max(0, int(used) - int(cache)) if used.strip().isdigit() else 0


def address_space() -> Memory | None:
    """The address-space limit and what is left of it, or None. Verify with `ulimit -v`."""
    if sys.platform == "win32":
        return None
    import resource

    import psutil

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY or limit >= UNLIMITED_BYTES:
        return None
    return Memory(limit, max(0, limit - psutil.Process().memory_info().vms))


# --- cgroups -------------------------------------------------------------------------------


def cgroup_folders(controller: str, root: Path = ROOT) -> list[Path]:
    """This process's cgroup folders for `cpu` or `memory`, from its own up to the mount's root.

    Reads `/proc/self/cgroup` and `/proc/self/mountinfo`; version 1, version 2 and both at once
    (hybrid). Inside a container the path may name a group of the host that is not visible:
    then only the mount's root, which is the container's own group, is left.
    """
    paths = dict(_memberships(root))
    folders: list[Path] = []
    for mount in _mounts(root):
        if mount.version == 1 and controller not in mount.controllers:
            continue
        path = paths.get("" if mount.version == 2 else controller)
        if path is not None:
            folders += _upwards(mount, path)
    return folders


def _memberships(root: Path) -> Iterator[tuple[str, PurePosixPath]]:
    """(controller, path) pairs of `/proc/self/cgroup`; version 2 has the controller `""`."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if number.isdigit() and path.startswith("/"):
            for name in names.split(","):
                yield name, PurePosixPath(path)


def _mounts(root: Path) -> Iterator[_Mount]:
    for line in _text(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        left, right = before.split(), after.split()
        if len(left) < 5 or len(right) < 3 or right[0] not in ("cgroup", "cgroup2"):
            continue
        yield _Mount(
            version=2 if right[0] == "cgroup2" else 1,
            controllers=frozenset(right[2].split(",")),
            root=PurePosixPath(unescape(left[3])),
            folder=root / unescape(left[4]).lstrip("/"),
        )


def _upwards(mount: _Mount, path: PurePosixPath) -> Iterator[Path]:
    inside = path.is_relative_to(mount.root) and ".." not in path.parts
    parts = path.relative_to(mount.root).parts if inside else ()
    for depth in range(len(parts), -1, -1):
        folder = mount.folder.joinpath(*parts[:depth])
        if folder.is_dir():
            yield folder


def unescape(field: str) -> str:
    """`mountinfo` writes a space as `\\040`."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def resident_bytes() -> int:
    """Bytes of RAM that this process holds now (`ps -o rss`)."""
    import psutil

    return int(psutil.Process().memory_info().rss)
