"""All checks, in the order in which they are shown: one above may explain those below."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import NamedTuple

from autotrain.doctor import (
    disk,
    gpu,
    gpu_health,
    interpreter,
    limits,
    loading,
    memory,
    needs,
    packages,
    pairing,
    plan_code,
    processor,
    step,
)
from autotrain.doctor.asking import NoAnswerError
from autotrain.doctor.result import Result, fail, skip, warn
from autotrain.doctor.scene import Scene
from autotrain.doctor.spelling import kernel_log
from autotrain.errors import AutotrainError, one_line

SECONDS = 15.0  # for one that waits for no other process
_LOOK_EVERY_SECONDS = 0.05


class Check(NamedTuple):
    """`look` is a plain function; its docstring says how things should be."""

    theme: str
    name: str
    look: Callable[[Scene], Result]


class Finding(NamedTuple):
    """What a check came to."""

    theme: str
    name: str
    result: Result


CHECKS: tuple[Check, ...] = (
    Check("environment", "python", interpreter.python),
    Check("environment", "virtual environment", interpreter.isolated),
    Check("environment", "python on PATH", interpreter.same_python),
    Check("environment", "active environment", interpreter.active),
    Check("environment", "autotrain module", packages.module),
    Check("environment", "autotrain command", packages.command),
    Check("environment", "versions", packages.versions),
    Check("environment", "leftovers", packages.leftovers),
    Check("environment", "pynvml", packages.old_pynvml),
    Check("environment", "other libraries", loading.others),
    Check("environment", "home", interpreter.home),
    Check("environment", "user", interpreter.user),
    Check("environment", "encoding", interpreter.encoding),
    Check("environment", "clock", interpreter.clock),
    Check("torch", "torch", pairing.torch_is_there),
    Check("torch", "torch from here", interpreter.strays),
    Check("torch", "files", pairing.whole),
    Check("torch", "CUDA libraries", pairing.libraries),
    Check("torch", "library path", pairing.search_path),
    Check("torch", "torchaudio", pairing.torchaudio),
    Check("torch", "torchvision", pairing.torchvision),
    Check("torch", "import torch", loading.torch),
    Check("torch", "numpy", loading.numpy),
    Check("torch", "import torchaudio", loading.torchaudio),
    Check("torch", "import torchvision", loading.torchvision),
    Check("torch", "torchcodec", loading.torchcodec),
    Check("gpu", "driver", gpu.driver),
    Check("gpu", "device files", gpu.device_files),
    Check("gpu", "driver and CUDA", gpu.generation),
    Check("gpu", "hidden GPUs", gpu.hidden),
    Check("gpu", "GPUs of torch", gpu.seen),
    Check("gpu", "compute capability", gpu.built_for),
    Check("gpu", "GPU memory", gpu_health.memory),
    Check("gpu", "compute mode", gpu_health.compute_mode),
    Check("gpu", "memory errors", gpu_health.errors),
    Check("gpu", "Xid errors", gpu_health.xids),
    Check("gpu", "throttling", gpu_health.throttling),
    Check("gpu", "power cap", gpu_health.power_cap),
    Check("gpu", "desktop", gpu_health.desktop),
    Check("gpu", "ROCm", gpu.rocm),
    Check("gpu", "MPS", gpu.mps),
    Check("gpu", "WSL", gpu.wsl),
    Check("processor", "cores", processor.cores),
    Check("processor", "threads", processor.threads),
    Check("processor", "debugging variables", processor.debugging),
    Check("processor", "quota", processor.throttled),
    Check("processor", "load", processor.load),
    Check("processor", "instructions", processor.instructions),
    Check("processor", "governor", processor.governor),
    Check("processor", "battery", processor.battery),
    Check("memory", "RAM", memory.ram),
    Check("memory", "container's memory", memory.container),
    Check("memory", "swap", memory.swap),
    Check("memory", "shared memory", memory.shared),
    Check("memory", "addresses", memory.addresses),
    Check("memory", "overcommit", memory.overcommit),
    Check("limits", "open files", limits.descriptors),
    Check("limits", "processes", limits.processes),
    Check("limits", "length of files", limits.lengths),
    Check("disk", "run folder", disk.writable),
    Check("disk", "room", disk.room),
    Check("disk", "inodes", disk.inodes),
    Check("disk", "speed", disk.speed),
    Check("disk", "file system", disk.file_system),
    Check("disk", "locks", disk.locks),
    Check("disk", "temporary files", disk.temporary),
    Check("disk", "temporary room", disk.temporary_room),
    Check("codecs", "sound", loading.sound),
    Check("codecs", "images", loading.images),
    Check("step", "CPU in fp32", step.cpu_fp32),
    Check("step", "CPU as planned", step.cpu_planned),
    Check("step", "GPU in fp32", step.gpu_fp32),
    Check("step", "GPU as planned", step.gpu_planned),
)
FOR_PLAN: tuple[Check, ...] = (
    Check("plan", "code", plan_code.code),
    Check("plan", "places", plan_code.places),
    Check("plan", "data", plan_code.data),
    Check("plan", "device", needs.device),
    Check("plan", "precision", needs.precision),
    Check("plan", "memory", needs.memory),
    Check("plan", "checkpoints", needs.checkpoints),
    Check("plan", "workers' files", needs.workers),
    Check("plan", "workers' memory", needs.shared),
    Check("plan", "imports", plan_code.imports),
    Check("plan", "compiler", plan_code.compiler),
    Check("plan", "mirror", plan_code.mirror),
    Check("plan", "versions", plan_code.versions),
)


def examine(scene: Scene) -> Iterator[Finding]:
    """Each check in turn; whatever goes wrong in one stays there."""
    scene.asked.begin(*_of_torch(scene), needed="torch")
    scene.asked.begin("nvml", "libraries", "sound", "images")
    try:
        for theme, name, look in (*CHECKS, *(FOR_PLAN if scene.named is not None else ())):
            yield Finding(theme, name, looked(look, scene))
    finally:
        scene.asked.close()


def _of_torch(scene: Scene) -> list[str]:
    """What is asked meanwhile in one process, as torch takes a while to load."""
    codec = ["torchcodec"] if find_spec("torchcodec") is not None else []
    gpu = "mps" if sys.platform == "darwin" else "cuda"
    return ["torch", gpu, "torchaudio", "torchvision", *codec, *step.questions(scene)]


def looked(look: Callable[[Scene], Result], scene: Scene) -> Result:
    """What a check says, or that it crashed, or that it does not come back (a dead disk)."""
    said = list[Result]()
    work = threading.Thread(target=lambda: said.append(_guarded(look, scene)), daemon=True)
    try:
        work.start()
    except RuntimeError:  # the system starts no more threads
        return _guarded(look, scene)
    left = SECONDS
    while not said and left > 0:
        work.join(_LOOK_EVERY_SECONDS)
        left -= 0 if scene.asked.waited_for else _LOOK_EVERY_SECONDS
    if said:
        return said[0]
    text = f"no answer within {SECONDS:g} s: a disk or a device does not answer"
    return fail(text, f"{kernel_log()}   # what hangs")


def _guarded(look: Callable[[Scene], Result], scene: Scene) -> Result:
    try:
        return look(scene)
    except NoAnswerError as error:
        return skip(f"cannot be told: {error}")
    except ImportError as error:
        return skip(f"cannot be told: {one_line(str(error))} (see `other libraries`)")
    except AutotrainError as error:  # of a plan, say
        return fail(one_line(error.message, 400), error.hint or "autotrain --help")
    except OSError as error:
        return skip(f"cannot be told: {one_line(str(error))}")
    except Exception as error:
        said = one_line(str(error)) or "no more is known"
        return warn(f"this check failed: {type(error).__name__}: {said}", "please report it")
