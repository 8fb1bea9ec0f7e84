"""Names in a folder of media behind which there is no file."""

import os

SAYS = {"pipe": "not a regular file", "folder": "Is a directory", "device": "not a regular file",
        "loop": "Too many levels"}  # fmt: skip


def make_strange(folder, suffix):
    """`pipe`, `folder`, `device` and `loop` with that suffix; what is to be said of each."""
    os.mkfifo(folder / f"pipe{suffix}")
    (folder / f"folder{suffix}").mkdir()
    (folder / f"device{suffix}").symlink_to("/dev/zero")
    (folder / f"loop{suffix}").symlink_to(f"loop{suffix}")
    return SAYS
