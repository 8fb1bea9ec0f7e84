"""Narrow places, for tests that begin in a process of their own."""

import ctypes
import os
import resource
import subprocess
from pathlib import Path

CONTROL = Path("/sys/fs/cgroup")


def can_unshare():
    """Whether a process may have file systems mounted that others do not see."""
    done = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
    return done.returncode == 0


def narrowed(shm=None, cgroups=(), limits=()):
    """This process sees less of the machine from here on."""
    if shm is not None:
        assert ctypes.CDLL(None).unshare(0x00020000) == 0, "CLONE_NEWNS"
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={shm}", "none", "/dev/shm"], check=True
        )
    for folder in cgroups:
        Path(folder, "cgroup.procs").write_text(str(os.getpid()))
    for name, most in limits:
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (most, most))
