"""Which Python this is, and whether it is the one that the person means."""

from __future__ import annotations

import getpass
import locale
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

from autotrain import files
from autotrain.doctor.mending import activation, enter
from autotrain.doctor.result import Result, fail, ok, skip, warn
from autotrain.doctor.scene import Scene
from autotrain.doctor.spelling import both, program, set_clock, setting, shown, unsetting
from autotrain.doctor.wheels import WHEELS, wheel

OLDEST = (3, 11)
_SECONDS = 5.0
_DAY = 86_400.0


def python(scene: Scene) -> Result:
    """Python 3.11 or newer, 64 bit, made for this processor."""
    bits = 64 if sys.maxsize > 2**32 else 32
    told = f"{platform.python_implementation()} {platform.python_version()}, {bits} bit"
    newer = "install Python 3.11 or newer, then: python3.11 -m venv .venv"
    if sys.version_info < OLDEST:
        return fail(f"{told}: too old", newer)
    if bits == 32:
        return fail(f"{told}: torch has no wheels for it", newer)
    if sys.platform == "darwin" and platform.machine() == "x86_64" and _translated():
        return fail(f"{told}, for Intel, translated by Rosetta: no GPU, no torch", newer)
    if sys.version_info.releaselevel != "final":
        return warn(f"{told}: not a final release", newer)
    return ok(f"{told}, {platform.machine()}")


def isolated(scene: Scene) -> Result:
    """An environment of its own, in which pip may install."""
    if sys.prefix != sys.base_prefix:
        return ok(f"a virtual environment: {shown(sys.prefix)}")
    if (Path(sys.prefix) / "conda-meta").is_dir():
        return ok(f"a conda environment: {shown(sys.prefix)}")
    if Path(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED").exists():
        mend = both(f"{program(sys.executable)} -m venv .venv", activation(Path(".venv")))
        return warn("the system's own Python, which its package manager keeps to itself", mend)
    return ok(f"no virtual environment: {shown(sys.prefix)}")


def same_python(scene: Scene) -> Result:
    """`python` in this shell is the one that autotrain runs in."""
    for name in ("python", "python3"):
        found = shutil.which(name, path=scene.environment.get("PATH"))
        if found is None or _in_environment(Path(found)):
            continue
        if not Path(found).is_absolute():  # of the current folder, and so perhaps a stranger's
            continue
        prefix = _prefix_of(found, scene)
        if prefix is None:
            return warn(f"`{name}` on PATH, {shown(found)}, does not start", enter())
        if not _same(prefix, sys.prefix):
            return warn(
                f"`{name}` here is {shown(found)} of {shown(prefix)}; autotrain runs in "
                f"{shown(sys.prefix)}: what you start or install with it goes elsewhere",
                enter(),
            )
    return ok("`python` on PATH is of the same environment, or there is none")


def active(scene: Scene) -> Result:
    """The environment that is active is the one that autotrain runs in."""
    told = scene.environment.get("VIRTUAL_ENV")
    name = "VIRTUAL_ENV"
    if not told and scene.environment.get("CONDA_DEFAULT_ENV", "base") != "base":
        told, name = scene.environment.get("CONDA_PREFIX"), "CONDA_PREFIX"
    if not told:
        return ok("no environment is said to be active")
    if _same(told, sys.prefix):
        return ok(f"{name} is where autotrain runs")
    gone = "" if Path(told).is_dir() else ", which is gone"
    tmux = "; tmux and screen keep what was active when they were started"
    tmux = tmux if scene.environment.get("TMUX") or scene.environment.get("STY") else ""
    return warn(
        f"{name} is {shown(told)}{gone}; autotrain runs in {shown(sys.prefix)}{tmux}", enter()
    )


def strays(scene: Scene) -> Result:
    """torch and its companions come from this environment, not from elsewhere."""
    homes = {os.path.realpath(prefix) for prefix in (sys.prefix, sys.base_prefix)}
    strange = {
        name: str(found.folder)
        for name in WHEELS
        if (found := wheel(name)) is not None and not _within(found.folder, homes)
    }
    if strange:
        listed = ", ".join(f"{name} from {shown(path)}" for name, path in strange.items())
        variable = "PYTHONPATH" if scene.environment.get("PYTHONPATH") else ""
        mend = unsetting(variable) if variable else setting("PYTHONNOUSERSITE", 1)
        return warn(f"{listed}, not from {shown(sys.prefix)}", mend)
    if scene.environment.get("PYTHONHOME"):
        home = scene.environment["PYTHONHOME"]
        return warn(
            f"PYTHONHOME is {shown(home)}: any other Python breaks", unsetting("PYTHONHOME")
        )
    return ok("torch and its companions come from this environment")


def home(scene: Scene) -> Result:
    """There is a place for your settings (trust, calibration), and it can be written."""
    mend = setting("AUTOTRAIN_HOME", scene.where / ".autotrain")
    try:
        places = {files.config_directory(), files.cache_directory()}
    except RuntimeError as error:
        return fail(f"this user has no home: {error}", mend)
    for place in sorted(places):
        folder = next((p for p in (place, *place.parents) if p.is_dir()), place)
        try:
            with tempfile.NamedTemporaryFile(dir=folder, prefix=".autotrain-") as file:
                file.write(b"\0" * 4096)
                file.flush()
        except OSError as error:
            return fail(f"{shown(place)} cannot be written: {error.strerror}", mend)
    return ok(", ".join(shown(place) for place in sorted(places)))


def user(scene: Scene) -> Result:
    """The system knows a name for this user, which torch's compiler asks for."""
    try:
        getpass.getuser()
    except (KeyError, OSError, ImportError):
        number = os.getuid() if hasattr(os, "getuid") else "this one"
        return warn(f"user {number} has no name: torch.compile fails", setting("USER", "me"))
    return ok("has a name")


def encoding(scene: Scene) -> Result:
    """Text is UTF-8: names of files, transcripts, what is printed."""
    kinds = {"files": sys.getfilesystemencoding(), "text": locale.getencoding()}
    other = {name: kind for name, kind in kinds.items() if not _utf8(kind)}
    if other and not sys.flags.utf8_mode:
        listed = ", ".join(f"{name}: {kind}" for name, kind in other.items())
        return warn(f"{listed}; letters beyond English may be lost", setting("PYTHONUTF8", 1))
    return ok("UTF-8")


def clock(scene: Scene) -> Result:
    """The clock is not before what is installed, and the run folder's disk agrees with it."""
    now = time.time()
    newest = max(
        (found.installed for name in WHEELS if (found := wheel(name)) is not None), default=0.0
    )
    mend = set_clock()
    day = time.strftime("%Y-%m-%d %H:%M", time.localtime(now))
    if now < newest - _DAY:
        written = time.strftime("%Y-%m-%d", time.localtime(newest))
        return fail(f"says {day}, and torch was installed on {written}", mend)
    folder = files.nearest_folder(scene.where)
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".autotrain-") as file:
            file.write(b"\0")
            file.flush()
            apart = os.stat(file.name).st_mtime - time.time()
    except OSError:
        return skip(f"says {day}; no file can be written to compare with")
    if abs(apart) > 60:
        return warn(f"the disk's clock is {apart:+.0f} s from this machine's", mend)
    return ok(day)


def _utf8(name: str) -> bool:
    return name.lower().replace("-", "").replace("_", "") == "utf8"


def _translated() -> bool:
    command = ["sysctl", "-n", "sysctl.proc_translated"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    return done.stdout.strip() == "1"


def _in_environment(program: Path) -> bool:
    """Whether a program lies beside this interpreter, links not followed."""
    return _same(str(program.parent), str(Path(sys.executable).parent))


def _prefix_of(program: str, scene: Scene) -> str | None:
    command = [program, "-c", "import sys; print(sys.prefix)"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS, check=True,
            env=dict(scene.environment),
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _same(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _within(folder: Path, homes: set[str]) -> bool:
    real = os.path.realpath(folder)
    return any(os.path.commonpath([real, home]) == home for home in homes if home)
