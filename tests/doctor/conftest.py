import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from autotrain.doctor.asking import NoAnswerError
from autotrain.doctor.checks import CHECKS, FOR_PLAN
from autotrain.doctor.scene import Scene

ROOT = Path(__file__).parents[2]
EXAMINED = Path(__file__).with_name("examined.py")
# The least that a loader would take for a library: a header, and no parts.
LIBRARY = struct.pack("<4sBBBB8xHHIQQQIHHHHHH", b"\x7fELF", 2, 1, 1, 0, 3, 62, 1, 0, 64, 0, 0, 64,
                      56, 0, 64, 0, 0)  # fmt: skip


class Answers:
    """What other processes would say; a text is why one does not answer."""

    waited_for = False

    def __init__(self, **said):
        self.said = said

    def answer(self, question):
        said = self.said.get(question.split()[0], "nobody was asked")
        if isinstance(said, str):
            raise NoAnswerError(said)
        return said


@pytest.fixture
def look(tmp_path):
    """`look("memory", "RAM", root=...)`: one check, in this process."""

    def call(theme, name, *, where=tmp_path, root=Path("/"), environment=(), plan=None, **said):
        check = {(c.theme, c.name): c.look for c in (*CHECKS, *FOR_PLAN)}[theme, name]
        scene = Scene(where, plan, environment=dict(environment), root=root, asked=Answers(**said))
        return check(scene)

    return call


@pytest.fixture
def system(tmp_path):
    """`system({"proc/driver/nvidia/version": "..."})`: a root of files like those of a system."""

    def make(contents):
        root = tmp_path / "system"
        for name, content in contents.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return root

    return make


@pytest.fixture
def site(tmp_path):
    """A folder of packages that is found before the real ones."""
    folder = tmp_path / "site"
    folder.mkdir()
    return folder


def install(site, name, version, files=(), metadata="", scripts=""):
    """A distribution as pip leaves it."""
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    head = f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n{metadata}"
    (info / "METADATA").write_text(head)
    if scripts:
        (info / "entry_points.txt").write_text(f"[console_scripts]\n{scripts}\n")
    lines = []
    for path, content in dict(files).items():
        place = site / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content if isinstance(content, bytes) else content.encode())
        lines.append(f"{path},sha256=x,{place.stat().st_size}")
    (info / "RECORD").write_text("\n".join([*lines, f"{info.name}/RECORD,,", ""]))
    return info


def environment(*, site=None, **more):
    """Ours, with a site before the rest; None takes a variable away."""
    paths = [str(each) for each in (site, ROOT) if each is not None]
    found = os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | more
    return {name: value for name, value in found.items() if value is not None}


def examined(*checks, where, site=None, variables=(), before=(), limits=None, **asked):
    """What those checks find in a process of its own: {"memory, RAM": result}.

    `before`: words of a command that it is started by.
    """
    request = {"checks": checks, "where": str(where), **asked}
    done = subprocess.run(
        [*before, sys.executable, EXAMINED, json.dumps(request)],
        env=environment(site=site, **dict(variables)), cwd=where, capture_output=True, text=True,
        timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {name: SimpleNamespace(**each) for name, each in json.loads(done.stdout).items()}


def doctor(*arguments, cwd, site=None, variables=(), before=()):
    """The whole command: its exit code, what it found by name, and all of its output."""
    done = subprocess.run(
        [*before, sys.executable, "-m", "autotrain", "doctor", "--json", *arguments],
        env=environment(site=site, **dict(variables)), cwd=cwd, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 1), (done.stdout, done.stderr)
    said = json.loads(done.stdout)
    found = {f"{each['theme']}, {each['name']}": SimpleNamespace(**each) for each in said["checks"]}
    return SimpleNamespace(code=done.returncode, found=found, said=said, err=done.stderr)
