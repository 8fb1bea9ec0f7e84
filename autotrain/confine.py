"""What a process that reads strangers' files may take at most."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path


def confine(memory_bytes: int, cpu_seconds: float, file_bytes: int = 1 << 20) -> None:
    """Bound what this process may take from here on; POSIX only, and memory on Linux only.

    `memory_bytes` come on top of what it has mapped by now; beyond them allocations fail.
    `file_bytes` is the longest file that it may write.
    """
    if sys.platform == "win32":
        return
    import resource

    def bound(what: int, most: int) -> None:
        with suppress(OSError, ValueError):
            set_by_user = resource.getrlimit(what)[1]
            last = most + 1  # of the processor's time: SIGXCPU first, which says what it was
            if set_by_user != resource.RLIM_INFINITY:
                most, last = min(most, set_by_user), min(last, set_by_user)
            resource.setrlimit(what, (most, last))

    bound(resource.RLIMIT_CORE, 0)
    bound(resource.RLIMIT_FSIZE, file_bytes)
    used = resource.getrusage(resource.RUSAGE_SELF)
    bound(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime + cpu_seconds) + 1)
    if sys.platform == "linux":
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        bound(resource.RLIMIT_AS, mapped + memory_bytes)
