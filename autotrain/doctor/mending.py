"""The commands that mend: complete, for this environment, to be copied as they are."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

# They work together, from the package index, on Linux (CUDA 13.0) as on other systems.
TORCH, TORCHAUDIO, TORCHVISION = "torch==2.11.0", "torchaudio==2.11.0", "torchvision==0.26.0"
# Where torch's own index has the same for other drivers and GPUs: CUDA -> folder.
BUILDS = {(13, 0): "cu130", (12, 8): "cu128", (12, 6): "cu126"}
_INDEX = "https://download.pytorch.org/whl"


def shown(path: Path | str) -> str:
    """A path, a word or a requirement as a shell takes it."""
    text = str(path)
    return subprocess.list2cmdline([text]) if sys.platform == "win32" else shlex.quote(text)


def install(*requirements: str, flags: str = "") -> str:
    """A command that installs into the environment that autotrain runs in."""
    what = " ".join([*flags.split(), *map(shown, requirements)])
    python = shown(sys.executable)
    if find_spec("pip") is not None:
        return f"{python} -m pip install {what}"
    if shutil.which("uv"):
        return (
            f"uv pip install --python {python} {what.replace('--force-reinstall', '--reinstall')}"
        )
    return f"{python} -m ensurepip && {python} -m pip install {what}"


def uninstall(name: str) -> str:
    """A command that takes a distribution away."""
    python = shown(sys.executable)
    if find_spec("pip") is None and shutil.which("uv"):
        return f"uv pip uninstall --python {python} {shown(name)}"
    return f"{python} -m pip uninstall -y {shown(name)}"


def matching_torch(folder: str = "") -> str:
    """torch and its companions anew, so that they fit; `folder`: of torch's own index."""
    index = f" --index-url {_INDEX}/{folder}" if folder else ""
    return install(TORCH, TORCHAUDIO, TORCHVISION, flags=f"--force-reinstall{index}")


def for_driver(cuda: tuple[int, int]) -> str:
    """Which of the folders above a driver of that CUDA serves; empty where none."""
    # A driver serves every CUDA of its own generation.
    fits = (name for made, name in BUILDS.items() if made <= cuda or made[0] == cuda[0])
    return next(fits, "")


def ourselves() -> str:
    """autotrain itself anew, from where it came."""
    return install(*_own_source(), flags="--force-reinstall --no-deps")


def _own_source() -> list[str]:
    try:
        told = json.loads(distribution("autotrain").read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        return ["autotrain"]
    url = urlsplit(told.get("url", ""))
    if url.scheme != "file":
        return [told["url"]] if url.scheme else ["autotrain"]
    editable = told.get("dir_info", {}).get("editable", False)
    return [*(["-e"] if editable else []), unquote(url.path)]


def enter() -> str:
    """What makes a shell use the environment that autotrain runs in."""
    prefix = Path(sys.prefix)
    if (prefix / "conda-meta").is_dir():
        return f"conda activate {shown(prefix)}"
    if sys.platform == "win32":
        powershell = "PSModulePath" in os.environ
        script = prefix / "Scripts" / ("Activate.ps1" if powershell else "activate.bat")
        return shown(script)
    shell = Path(os.environ.get("SHELL", "")).name
    suffix = {"fish": ".fish", "csh": ".csh", "tcsh": ".csh"}.get(shell, "")
    script = prefix / "bin" / f"activate{suffix}"
    return f"source {shown(script)}" if script.exists() else f"alias python={shown(sys.executable)}"
