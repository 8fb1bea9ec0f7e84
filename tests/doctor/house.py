"""What tests of the doctor share: packages that are not there, answers of others, processes."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

from autotrain.doctor.asking import NoAnswerError

ROOT = Path(__file__).parents[2]
EXAMINED = Path(__file__).with_name("examined.py")
# The least that a loader would take for a library: a header, and no parts.
LIBRARY = struct.pack("<4sBBBB8xHHIQQQIHHHHHH", b"\x7fELF", 2, 1, 1, 0, 3, 62, 1, 0, 64, 0, 0, 64,
                      56, 0, 64, 0, 0)  # fmt: skip
GIB = 1 << 30
# What torch's wheels say of themselves (2.13.0 for a CPU, from the package index).
VERSION = """from typing import Optional

__all__ = ['__version__', 'debug', 'cuda', 'git_version', 'hip', 'rocm', 'xpu']
__version__ = '{version}'
debug = False
cuda: Optional[str] = {cuda}
git_version = 'cf30153c4c131c8164ee7798e5022d810682e2cb'
hip: Optional[str] = None
rocm: Optional[str] = None
xpu: Optional[str] = None
"""
CRASHES = "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n"
OF_A_CPU = ("libc10.so", "libshm.so", "libtorch.so", "libtorch_cpu.so", "libtorch_python.so")
CUDA_TOO = (*OF_A_CPU, "libc10_cuda.so", "libtorch_cuda.so", "libcudart.so.13")
TORCH = {"version": "2.11.0+cu130", "cuda": "13.0", "hip": None, "threads": 2, "sum": 64.0**3,
         "capability": "AVX2", "numpy": True}  # fmt: skip


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


def fake_torch(site, version, *, cuda=None, libraries=OF_A_CPU, init=CRASHES, metadata=None):
    """torch's metadata and version as they really are; the rest of it is empty."""
    files = {f"torch/lib/{name}": LIBRARY for name in libraries}
    files["torch/version.py"] = VERSION.format(version=version, cuda=repr(cuda))
    files["torch/__init__.py"] = init
    return install(site, "torch", metadata or version, files)


def devices(*capabilities, architectures=("sm_75", "sm_80", "sm_90", "sm_100", "sm_120")):
    listed = [
        {
            "name": f"GPU {i}",
            "capability": list(c),
            "free": GIB,
            "total": GIB,
            "architecture": "",
            "problem": "",
            "uuid": f"{i}",
        }
        for i, c in enumerate(capabilities)
    ]
    return {"devices": listed, "architectures": list(architectures), "complaint": ""}


def tried(**more):
    base = {
        "dtype": "fp32",
        "error": 1e-6,
        "drift": 0.0,
        "finite": True,
        "steps": 9,
        "step_seconds": 0.1,
    }
    return base | more
