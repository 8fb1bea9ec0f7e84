"""What a plan needs besides the machine (`--for plan.toml`): code, data, packages, trust."""

from __future__ import annotations

import ast
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from autotrain.doctor.mending import install
from autotrain.doctor.result import Result, fail, ok, skip, warn
from autotrain.doctor.scene import Scene
from autotrain.doctor.spelling import package, program, shown
from autotrain.errors import AutotrainError
from autotrain.files import read_regular
from autotrain.usercode import CODE_BYTES

# Of a module that is imported, the package to install where it has another name.
_PACKAGES = {
    "PIL": "pillow", "cv2": "opencv-python", "sklearn": "scikit-learn", "skimage": "scikit-image",
    "yaml": "pyyaml", "soundfile": "soundfile", "Bio": "biopython", "dateutil": "python-dateutil",
}  # fmt: skip
# What fsspec needs for a mirror by such a URL.
_STORES = {
    "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs",
    "abfss": "adlfs", "sftp": "paramiko", "ssh": "paramiko", "hf": "huggingface_hub",
    "smb": "smbprotocol", "http": "aiohttp", "https": "aiohttp", "webhdfs": "requests",
}  # fmt: skip


def code(scene: Scene) -> Result:
    """The plan's code is what it was made for, and trusted on this machine."""
    from autotrain import trust

    plan, folder = scene.plan, scene.plan_folder
    try:
        trust.check(plan.task, trust.task_path(plan.task, folder), accept=False)
    except AutotrainError as error:
        mend = f"autotrain run {scene.plan_name} --trust   # once you have read it"
        return fail(error.message, mend if "trust" in error.hint else error.hint)
    return ok("trusted")


def places(scene: Scene) -> Result:
    """The plan writes beside itself, or where you have said so."""
    from autotrain import trust

    wanted = {"run.directory": str(scene.where), "checkpoint.mirror": scene.plan.checkpoint.mirror}
    strange = trust.strange_places(wanted, scene.plan_folder)
    if strange:
        key, where = next(iter(strange.items()))
        text = f"{key}: {shown(where)} is not beside the plan, and nobody named it here"
        return fail(text, f"autotrain run {scene.plan_name} --trust   # if it is to write there")
    return ok("beside it, or named here")


def data(scene: Scene) -> Result:
    """The plan's data is there."""
    told = scene.plan.task.data
    if told is None:
        return skip("it names none")
    if "://" in told:
        return skip("not a path")
    place = scene.plan_folder / told
    # A task of one's own may take any word for its data.
    if not place.exists() and scene.plan.task.template is not None:
        return fail(f"{shown(place)} is not there", f"autotrain plan --refresh {scene.plan_name}")
    return ok("there") if place.exists() else skip("not a path: the task knows what it means")


def imports(scene: Scene) -> Result:
    """What the plan's code imports is installed; the code is read, not run."""
    from autotrain import trust

    path = trust.task_path(scene.plan.task, scene.plan_folder)
    try:
        tree = ast.parse(read_regular(path, CODE_BYTES), str(path))
    except OSError as error:
        return fail(
            f"{shown(path)}: {error.strerror}", f"autotrain plan --refresh {scene.plan_name}"
        )
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return fail(
            f"{shown(path)}: {error}", f"{program(sys.executable)} -m py_compile {shown(path)}"
        )
    lacking = [name for name in sorted(_imported(tree)) if not _there(name, path.parent)]
    if lacking:
        packages = [_PACKAGES.get(name, name) for name in lacking]
        return fail(
            f"{shown(path)} imports {', '.join(lacking)}: not installed", install(*packages)
        )
    return ok(f"all that {shown(path.name)} imports")


def compiler(scene: Scene) -> Result:
    """For a plan that compiles its model: a C++ compiler, and Triton on a GPU."""
    if not any(plan.model.compile for plan in scene.plans):
        return skip("it compiles nothing")
    compiler = scene.environment.get("CXX") or next(
        filter(shutil.which, ("g++", "clang++", "cl")), ""
    )
    if not compiler or shutil.which(compiler) is None:
        return fail("no C++ compiler", f"{package('c++')}   # or: --set model.compile=false")
    if scene.plan.device.kind in ("cuda", "rocm") and find_spec("triton") is None:
        return fail("Triton is not installed", install("triton"))
    return ok(compiler)


def mirror(scene: Scene) -> Result:
    """What it takes to copy checkpoints to the plan's mirror is installed."""
    told = scene.plan.checkpoint.mirror
    if told is None:
        return skip("it has none")
    scheme = told.partition("://")[0] if "://" in told else ""
    package = _STORES.get(scheme)
    if package is not None and find_spec(package) is None:
        return fail(f"{scheme}:// needs {package}", install(package))
    return ok(f"{scheme}://" if scheme else "a folder")


def versions(scene: Scene) -> Result:
    """The versions are those that the plan was made with."""
    then = scene.plan.inputs.versions
    if not then:
        return skip("it does not say")
    now = {"torch": scene.torch()["version"].partition("+")[0], "python": sys.version.split()[0]}
    other = [
        f"{name} {then[name]}, {now[name]} now"
        for name in now
        if name in then and then[name].partition("+")[0] != now[name]
    ]
    if other:
        text = f"made with {', '.join(other)}: what was measured may not hold"
        return warn(text, f"autotrain plan --refresh {scene.plan_name}")
    return ok("the same")


def _imported(tree: ast.AST) -> set[str]:
    """Top-level names of modules that a source imports, at any depth, but not within a `try`."""
    found: set[str] = set()
    tried = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.Try)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in tried:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def _there(name: str, folder: Path) -> bool:
    """Whether it can be imported from where a task file is run."""
    beside = (folder / f"{name}.py").exists() or (folder / name).is_dir()
    try:
        return beside or name in sys.builtin_module_names or find_spec(name) is not None
    except (ValueError, ImportError):
        return False
