"""A person's folder for the tests of the commands: a tiny task, and the command line on it."""

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest
import tomli_w

from autotrain.__main__ import main
from autotrain.probe import child
from autotrain.schema import Trial

POINTS = """
class Points(torch.utils.data.Dataset):
    def __init__(self, count, seed, lanes=2):
        self.x = torch.randn(count, lanes, generator=torch.Generator().manual_seed(seed))
        self.y = (self.x[:, 0] > 0).long()

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.x[index], self.y[index]
"""
TASK = (
    """
import torch
from torch import nn

from autotrain import Task

"""
    + POINTS
    + """

def net(width):
    return nn.Sequential(nn.Linear(2, width), nn.Dropout(0.2), nn.ReLU(), nn.Linear(width, 2))


def task(data, width=8):
    print(f"the task got {data!r} and width {width}")
    return Task.classification(
        model=lambda: net(width), train=Points(64, 1), valid=Points(16, 2)
    )
"""
)
PLAN = ("plan", "--task", "task.py", "--no-calibrate")
SMALL = ("--set", "train.epochs=2", "--set", "batch.micro_batch=8", "--set", "device.threads=1")
ONE_WAY = ("--set", "precision.dtype=fp32")  # with SMALL: no ways to run the model that could race


def cli(*arguments, cwd, seconds=300, **more):
    """The real command line in a process of its own; stdout and stderr as text."""
    command = [sys.executable, "-m", "autotrain", *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=seconds, check=False, **more
    )


class Said(NamedTuple):
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The first error line; what a task printed may stand before it."""
        return next((x for x in self.err.splitlines() if x.startswith("error: ")), "")


def typist(capsys, monkeypatch):
    """The command line in this process: `typist(...)("run", "plan.toml")`."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["autotrain", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        said = Said(end.value.code, *capsys.readouterr())
        print(said.err)  # for the reader of a failure
        return said

    return call


def trial(plan, **said) -> Trial:
    """What a trial of a plan could come to, without one."""
    fields = {
        "outcome": "ok", "steps": 3, "base_bytes": 600 << 20, "device_peak_bytes": 700 << 20,
        "micro_seconds": 0.01, "update_seconds": 0.001,
    }  # fmt: skip
    return Trial.model_validate(child.setup_of(plan) | fields | said)


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every file below a folder with its content; what Python caches is left out."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if "__pycache__" not in path.parts
    }


def edit(plan: Path, **changes) -> None:
    """Change settings of a plan file: `edit(plan, train={"epochs": 3})`; None drops the key."""
    data = tomllib.loads(plan.read_text())
    for section, keys in changes.items():
        if not isinstance(keys, dict):
            data[section] = keys
            continue
        for key, value in keys.items():
            data.setdefault(section, {})[key] = value
            if value is None:
                del data[section][key]
    plan.write_text(tomli_w.dumps(data))


def read_only(folder, *arguments):
    """The command line in a folder that not even root may write (a mount of our own)."""
    mount = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && cd "$0" && exec "$@"'
    command = ["unshare", "-m", "sh", "-c", mount, folder, sys.executable, "-m", "autotrain"]
    return subprocess.run(
        [*command, *arguments], capture_output=True, text=True, timeout=300, check=False
    )
