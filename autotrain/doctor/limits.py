"""What the system lets one process have: files, processes, lengths of files."""

from __future__ import annotations

import os
import sys

from autotrain.doctor.result import Result, fail, ok, skip, warn
from autotrain.doctor.scene import Scene
from autotrain.units import GIB, bytes_text

# A run with two workers has about 60 files open; each tensor on its way takes one more.
FEW_FILES, SOME_FILES = 128, 256
_FEW_PROCESSES, _SOME_PROCESSES = 64, 512


def descriptors(scene: Scene) -> Result:
    """`ulimit -n`: files that may be open at once."""
    soft, hard = _limit("NOFILE")
    if soft is None:
        return ok("no limit") if sys.platform != "win32" else skip("Windows has no such limit")
    told = f"{soft} files at once (`ulimit -n`)"
    if soft >= SOME_FILES:
        return ok(told)
    can = min(4096, hard) if hard is not None else 4096
    mend = (
        f"ulimit -n {can}"
        if can > soft
        else "ulimit -n 4096   # as root; a container: --ulimit nofile=4096"
    )
    if soft < FEW_FILES:
        return fail(f"{told}: too few for loader workers, and for torch's compiler", mend)
    return warn(f"{told}: few for many loader workers", mend)


def open_files() -> int | None:
    """How many may be open at once; None where there is no limit."""
    return _limit("NOFILE")[0]


def processes(scene: Scene) -> Result:
    """Processes and threads that may be started: `ulimit -u`, a container's pids limit."""
    left, told = _processes_left(scene)
    if left is None:
        return ok("no limit")
    by_group = "pids limit" in told
    mend = "docker update --pids-limit -1 CONTAINER" if by_group else "ulimit -u unlimited"
    if left < _FEW_PROCESSES:
        return fail(f"{told}: libraries start one thread a core each", mend)
    if left < _SOME_PROCESSES:
        return warn(told, mend)
    return ok(told)


def lengths(scene: Scene) -> Result:
    """`ulimit -f`: how long a file may grow."""
    soft, _ = _limit("FSIZE")
    if soft is None:
        return ok("no limit")
    told = f"files of up to {bytes_text(soft)} (`ulimit -f`)"
    if soft < GIB:
        return fail(f"{told}: a checkpoint may not be written", "ulimit -f unlimited")
    return ok(told)


def _limit(name: str) -> tuple[int | None, int | None]:
    """The soft and the hard one; None is no limit."""
    if sys.platform == "win32":
        return None, None
    import resource

    found = resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))
    endless = resource.RLIM_INFINITY
    soft, hard = (None if each in (endless, -1) else each for each in found)
    return soft, hard


def _processes_left(scene: Scene) -> tuple[int | None, str]:
    """How many more may be started, and which limit says so."""
    found = [*_by_cgroup(scene), *_by_user(scene)]
    return min(found, default=(None, ""), key=lambda pair: pair[0] or 0)


def _by_user(scene: Scene) -> list[tuple[int, str]]:
    soft, _ = _limit("NPROC")
    if soft is None or (hasattr(os, "geteuid") and os.geteuid() == 0):
        return []  # root is not held to it
    import psutil

    own, running = os.getuid(), 0
    for each in psutil.process_iter(["uids", "num_threads"]):
        uids = each.info["uids"]
        running += (each.info["num_threads"] or 1) if uids and uids.real == own else 0
    left = max(soft - running, 0)
    return [(left, f"{left} more of {soft} (`ulimit -u`)")]


def _by_cgroup(scene: Scene) -> list[tuple[int, str]]:
    from autotrain.probe.limits import cgroup_folders

    found = []
    for folder in cgroup_folders("pids", scene.root):
        most, now = (_number(folder / f"pids.{name}") for name in ("max", "current"))
        if most is not None and now is not None:
            left = max(most - now, 0)
            found.append((left, f"{left} more of {most} (a container's pids limit)"))
    return found


def _number(path: os.PathLike[str]) -> int | None:
    try:
        with open(path) as file:
            text = file.read().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
