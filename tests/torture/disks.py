"""File systems of their own, that lose their power or run out of what they have."""

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

SHUTDOWN = 0x8004587D  # FS_IOC_SHUTDOWN of Linux: _IOR('X', 125, __u32)
AT_ONCE = (2).to_bytes(4, sys.byteorder)  # EXT4_GOING_FLAGS_NOLOGFLUSH: nothing more is written
SIZE = 48 << 20
GONE_SECONDS = 120.0


def can_mount():
    """Whether this process may make and mount file systems."""
    return sys.platform == "linux" and not os.geteuid() and shutil.which("mkfs.ext4") is not None


class Disk:
    """An ext4 file system in the file `image`, mounted at `place`.

    `options`: of the mount; `made`: of mkfs.
    """

    def __init__(self, image: Path, place: Path, options="", made=()):
        self.image, self.place, self.options = image, place, options
        place.mkdir(exist_ok=True)
        with open(image, "wb") as file:
            file.truncate(SIZE)
        self.command("mkfs.ext4", "-q", "-F", "-m", "0", *made, image)
        self.mount()

    @staticmethod
    def command(*words):
        done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, (words, done.stderr)

    def mount(self):
        more = f"loop,{self.options}".rstrip(",")
        words = ["mount", "-o", more, str(self.image), str(self.place)]
        if subprocess.run(words, capture_output=True, check=False).returncode:
            pytest.skip("needs loop devices")

    def cut(self):
        """Lose the power: what is not on the image by now never comes there."""
        import fcntl

        handle = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(handle, SHUTDOWN, AT_ONCE)
        finally:
            os.close(handle)

    def again(self):
        """The power is back: only what was on the image is there."""
        self.unmount()
        self.mount()

    def unmount(self):
        """Until nobody holds it: who has a mount namespace of their own may have a copy of it, and
        to mount the image then gives back the file system that lost its power."""
        self.command("umount", self.place)
        until = time.monotonic() + GONE_SECONDS
        while self.attached():
            assert time.monotonic() < until, f"{self.image} is still mounted somewhere"
            time.sleep(0.02)

    def attached(self):
        """Whether a loop device has the image."""
        asked = ["losetup", "-j", str(self.image)]
        return subprocess.run(asked, capture_output=True, check=False).stdout != b""

    def remove(self):
        if os.path.ismount(self.place):
            self.command("umount", "-l", self.place)
        self.image.unlink()
        self.place.rmdir()


class Bystander:
    """A program on the same disk whose every fsync writes out what others have renamed."""

    def __init__(self, place: Path, pause: float):
        self.file, self.pause = place / "bystander", pause
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.work)

    def __enter__(self):
        self.thread.start()

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()

    def work(self):
        while not self.stop.wait(self.pause):
            try:
                with open(self.file, "ab") as file:
                    file.write(b"x")
                    file.flush()
                    os.fsync(file.fileno())
            except OSError:  # its power is gone as well
                return
