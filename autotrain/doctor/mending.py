"""The commands that mend: complete, for this environment, to be copied as they are."""

from __future__ import annotations

import json
import shutil
import sys
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

from autotrain.doctor.spelling import both, program, shell, shown

# They work together, from the package index, on Linux (CUDA 13.0) as on other systems.
TORCH, TORCHAUDIO, TORCHVISION = "torch==2.11.0", "torchaudio==2.11.0", "torchvision==0.26.0"
# Where torch's own index has the same for other drivers and GPUs: CUDA -> folder.
BUILDS = {(13, 0): "cu130", (12, 8): "cu128", (12, 6): "cu126"}
_INDEX = "https://download.pytorch.org/whl"


def install(*requirements: str, flags: str = "") -> str:
    """A command that installs into the environment that autotrain runs in."""
    what = " ".join([*flags.split(), *map(shown, requirements)])
    python = program(sys.executable)
    if find_spec("pip") is not None:
        return f"{python} -m pip install {what}"
    if shutil.which("uv"):
        what = what.replace("--force-reinstall", "--reinstall")
        return f"uv pip install --python {shown(sys.executable)} {what}"
    return both(f"{python} -m ensurepip", f"{python} -m pip install {what}")


def uninstall(name: str) -> str:
    """A command that takes a distribution away."""
    if find_spec("pip") is None and shutil.which("uv"):
        return f"uv pip uninstall --python {shown(sys.executable)} {shown(name)}"
    return f"{program(sys.executable)} -m pip uninstall -y {shown(name)}"


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
    if _script(prefix).exists():
        return activation(prefix)
    return f"alias python={shown(sys.executable)}"


def entered_anew() -> str:
    """The same where the shell may remember another program: bash and zsh do."""
    return f"hash -r; {enter()}" if shell() == "sh" else enter()


def activation(environment: Path) -> str:
    """Enters a virtual environment."""
    script = _script(environment)
    return program(script) if shell() in ("powershell", "cmd") else f"source {shown(script)}"


def _script(environment: Path) -> Path:
    kinds = {"fish": ".fish", "csh": ".csh", "powershell": ".ps1", "cmd": ".bat"}
    folder = "Scripts" if sys.platform == "win32" else "bin"
    name = "Activate" if shell() == "powershell" else "activate"
    return environment / folder / f"{name}{kinds.get(shell(), '')}"
