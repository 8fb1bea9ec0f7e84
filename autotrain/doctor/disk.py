"""The disk where runs go, and the one for temporary files."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import tempfile
from pathlib import Path

from autotrain import files
from autotrain.doctor.result import Result, fail, ok, skip, warn
from autotrain.doctor.scene import Scene
from autotrain.doctor.spelling import largest_in, most_files_in, setting, shown
from autotrain.errors import AutotrainError
from autotrain.units import GIB, MIB, bytes_text

_LEAST, _LITTLE = 256 * MIB, 5 * GIB
_SLOW = 20e6  # bytes a second: a checkpoint of 100 MB takes 5 s
_INODES = 10_000
NETWORK = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "coda", "lustre", "ceph", "beegfs",
           "fhgfs", "gpfs", "glusterfs", "orangefs", "pvfs2", "panfs", "wekafs", "drvfs",
           "virtiofs", "vboxsf", "prl_fs")  # fmt: skip
# Through a program of anybody's, most of which go over a network; these do not.
_PROGRAMS = "fuse"
_LOCAL_PROGRAMS = ("mergerfs", "unionfs", "fuse-overlayfs", "bindfs", "encfs", "gocryptfs", "cryfs",
                   "ext2", "ntfs-3g", "exfat", "squashfuse", "zfs")  # fmt: skip
_IN_RAM = ("tmpfs", "ramfs")
# A path of a Unix socket has 107 letters; multiprocessing's names take 32 of them.
_LONGEST_TMP = 107 - 32


def writable(scene: Scene) -> Result:
    """A file can be written, synced and renamed where runs go."""
    if scene.named is None and not scene.where.is_dir():
        return fail(f"{shown(scene.where)}, where you are, was removed", "cd ~")
    folder = files.nearest_folder(scene.where)
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".autotrain-") as name:
            place = Path(name)
            files.write_atomic(place / "probe", os.urandom(1 << 20))
            os.replace(place / "probe", place / "renamed")
            whole = len((place / "renamed").read_bytes()) == 1 << 20
    except OSError as error:
        return fail(f"{shown(folder)}: {error.strerror}", _elsewhere(error.errno, folder))
    except AutotrainError as error:
        return fail(error.message, _elsewhere(errno.ENOSPC, folder))
    if not whole:
        return fail(
            f"{shown(folder)}: what is read is not what was written", _elsewhere(None, folder)
        )
    return ok(shown(folder))


def room(scene: Scene) -> Result:
    """Bytes are free where runs go."""
    folder = files.nearest_folder(scene.where)
    found = shutil.disk_usage(folder)
    told = f"{bytes_text(found.free)} free of {bytes_text(found.total)}"
    mend = f"{largest_in(folder)}   # what takes most"
    if found.free < _LEAST:
        return fail(f"{told}: too little for checkpoints", mend)
    if found.free < _LITTLE:
        return warn(told, mend)
    return ok(told)


def inodes(scene: Scene) -> Result:
    """More files can be made where runs go."""
    if not hasattr(os, "statvfs"):
        return skip("this system does not count them")
    folder = files.nearest_folder(scene.where)
    told = os.statvfs(folder)
    if not told.f_files:
        return skip("this file system does not count them")
    text = f"{told.f_favail:,} more files of {told.f_files:,}"
    mend = most_files_in(folder)
    if told.f_favail < files.FEW_FILES:
        return fail(f"{text}: a run cannot begin", mend)
    if told.f_favail < _INODES:
        return warn(text, mend)
    return ok(text)


def speed(scene: Scene) -> Result:
    """Checkpoints get to the disk in time: 20 MB/s at least, synced."""
    from autotrain.probe.disk import write_bandwidth

    found = write_bandwidth(scene.where)
    if found is None:
        return skip("not measured: the folder cannot be written, or has under 1 GiB free")
    told = f"{found / 1e6:,.0f} MB/s, each piece synced"
    if found < _SLOW:
        mend = "autotrain plan ... --set run.directory=/a/faster/disk/run"
        return warn(f"{told}: checkpoints will be felt", mend)
    return ok(told)


def file_system(scene: Scene) -> Result:
    """Runs go to a disk of this machine, not to a network or to memory."""
    kind = kind_of(files.nearest_folder(scene.where), scene)
    mend = "autotrain plan ... --set run.directory=/a/local/disk/run --set checkpoint.mirror=HERE"
    if kind is None:
        return skip("this system does not tell")
    program, _, name = kind.partition(".")
    if kind in NETWORK or (program == _PROGRAMS and name not in _LOCAL_PROGRAMS):
        return warn(
            f"{kind}: over a network, or from another system; slow, and locks may fail", mend
        )
    if kind in _IN_RAM:
        return warn(f"{kind}: in memory, gone with the next reboot, and it takes RAM", mend)
    return ok(kind)


def locks(scene: Scene) -> Result:
    """Locks hold where runs go: two runs must not write one folder."""
    from filelock import FileLock, Timeout

    folder = files.nearest_folder(scene.where)
    mend = "autotrain plan ... --set run.directory=/a/local/disk/run"
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".autotrain-") as name:
            place = Path(name) / ".lock"
            with FileLock(place, timeout=1):
                try:
                    FileLock(place, timeout=0, is_singleton=False).acquire()
                except Timeout:
                    return ok("a second run is kept out")
                return fail("a lock is given twice: two runs would write one folder", mend)
    except (OSError, Timeout) as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT):
            return skip("the folder cannot be written")
        return fail(f"no lock can be had: {getattr(error, 'strerror', None) or error}", mend)


def temporary(scene: Scene) -> Result:
    """Temporary files can be written (TMPDIR), and sockets made beside them."""
    mend = _other_tmp()
    named = next((n for n in ("TMPDIR", "TEMP", "TMP") if scene.environment.get(n)), None)
    try:
        folder = Path(tempfile.gettempdir())
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(b"\0" * (1 << 16))
            file.flush()
    except OSError as error:
        return fail(f"no place for temporary files: {error.strerror or error}", mend)
    if named is not None and Path(scene.environment[named]).resolve() != folder.resolve():
        text = f"{named} is {shown(scene.environment[named])}, which cannot be written"
        return warn(f"{text}; {shown(folder)} is taken", mend)
    if len(os.fsencode(folder)) > _LONGEST_TMP and sys.platform != "win32":
        return fail(
            f"{shown(folder)} is too long for the names of sockets in it", setting("TMPDIR", "/tmp")
        )
    return ok(shown(folder))


def temporary_room(scene: Scene) -> Result:
    """There is room for temporary files: loader workers, torch's compiler, mirrors."""
    try:
        folder = Path(tempfile.gettempdir())
    except OSError:
        return skip("there is no place for them")
    free = shutil.disk_usage(folder).free
    told = f"{bytes_text(free)} free in {shown(folder)}"
    if free < 16 * MIB:
        return fail(told, f"{largest_in(folder)}   # or: {_other_tmp()}")
    if free < GIB:
        return warn(told, _other_tmp())
    return ok(told)


def kind_of(folder: Path, scene: Scene) -> str | None:
    """The type of the file system that holds a folder; None where nobody tells."""
    from autotrain.probe.limits import unescape

    best, kind = -1, None
    real = os.path.realpath(folder)
    for line in scene.text("proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        left, right = before.split(), after.split()
        if len(left) < 5 or not right:
            continue
        place = unescape(left[4])
        holds = real == place or real.startswith(place.rstrip("/") + "/")
        if holds and len(place) >= best:  # of two mounts at one place the later counts
            best, kind = len(place), right[0]
    return kind


def _other_tmp() -> str:
    return setting("TEMP", r"C:\Temp") if sys.platform == "win32" else setting("TMPDIR", "/var/tmp")


def _elsewhere(number: int | None, folder: Path) -> str:
    """What to do about a folder that cannot be written."""
    if number in (errno.ENOSPC, errno.EDQUOT):
        return f"{largest_in(folder)}   # what to delete; or run from a folder on another disk"
    if number == errno.EACCES:
        return "cd ~   # or another folder of yours, and plan there"
    return "cd /another/folder   # and plan there"
