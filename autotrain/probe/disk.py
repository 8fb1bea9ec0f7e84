"""The disk where runs go: how large, how much is free, how fast bytes become durable."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

from autotrain.files import nearest_folder
from autotrain.schema import Disk
from autotrain.units import GIB, MIB

CHUNK_BYTES = 8 * MIB
TEST_BYTES = 64 * MIB
TEST_SECONDS = 1.0
SPARE_BYTES = GIB


def probe_disk(where: Path, write_bandwidth: float | None = None) -> Disk:
    """Total and free bytes of the file system that would hold `where`. Verify with `df -B1`."""
    folder = nearest_folder(where)
    usage = shutil.disk_usage(folder)
    shown = os.fsencode(os.path.abspath(where)).decode("utf-8", "replace")
    return Disk(
        path=shown,
        total_bytes=usage.total,
        free_bytes=usage.free,
        write_bandwidth=write_bandwidth,
    )


def disk_key(where: Path) -> str:
    """Names the file system of `where` from one run to the next: mount point and size."""
    folder = nearest_folder(where).resolve()
    mount = next((p for p in (folder, *folder.parents) if os.path.ismount(p)), folder)
    return f"{mount}:{shutil.disk_usage(folder).total}"


def write_bandwidth(where: Path) -> float | None:
    """Bytes per second written and fsynced in 8 MiB pieces: 64 MiB, or what 1 s allows.

    None where the folder may not be written or has under 1 GiB free. The file has no name
    (Linux) or is removed at once. Verify with
    `dd if=/dev/urandom of=FILE bs=8M count=8 oflag=dsync`.
    """
    folder = nearest_folder(where)
    chunk = os.urandom(CHUNK_BYTES)  # incompressible: some file systems compress
    try:
        if shutil.disk_usage(folder).free < SPARE_BYTES:
            return None
        with tempfile.TemporaryFile(dir=folder, prefix=".autotrain-") as file:
            written, start = 0, time.perf_counter()
            while written < TEST_BYTES and time.perf_counter() - start < TEST_SECONDS:
                file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
                written += len(chunk)
            return written / (time.perf_counter() - start)
    except OSError:
        return None
