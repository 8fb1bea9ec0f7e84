"""Whether libraries load: imported for real, in a process that may crash."""

from __future__ import annotations

from importlib.util import find_spec

from autotrain.doctor.asking import NoAnswerError
from autotrain.doctor.fitting import torch_that_fits
from autotrain.doctor.mending import install
from autotrain.doctor.result import Result, fail, ok, skip, warn
from autotrain.doctor.scene import Scene
from autotrain.doctor.spelling import both, package


def torch(scene: Scene) -> Result:
    """`import torch` works, and a product comes out right."""
    try:
        told = scene.torch()
    except NoAnswerError as error:
        return fail(f"`import torch`: {error}", _room(str(error)) or torch_that_fits(scene))
    if told["sum"] != 64.0**3:
        return fail(f"64 x 64 ones multiplied add up to {told['sum']}", torch_that_fits(scene))
    return ok(f"{told['version']}, {told['threads']} threads, {told['capability']}")


def numpy(scene: Scene) -> Result:
    """torch takes numpy's arrays."""
    told = scene.torch()["numpy"]
    if told is True:
        return ok("torch takes its arrays")
    return fail(f"torch does not take numpy's arrays: {told}", install("numpy", flags="--upgrade"))


def torchaudio(scene: Scene) -> Result:
    """`import torchaudio` works."""
    return _loads("torchaudio", scene)


def torchvision(scene: Scene) -> Result:
    """`import torchvision` works, its native operators too."""
    return _loads("torchvision", scene)


def torchcodec(scene: Scene) -> Result:
    """torchcodec loads, for task files that call `torchaudio.load`; autotrain needs none."""
    if find_spec("torchcodec") is None:
        return skip("not installed: only torchaudio.load needs it, autotrain reads by soundfile")
    try:
        return ok(scene.asked.answer("torchcodec")["version"])
    except NoAnswerError as error:
        mend = both(install("torchcodec", flags="--force-reinstall"), package("ffmpeg"))
        return warn(f"`import torchcodec`: {error}; torchaudio.load fails", mend)


def others(scene: Scene) -> Result:
    """What else autotrain loads is whole: numpy, pydantic, safetensors, ..."""
    told = scene.asked.answer("libraries")
    if told["broken"]:
        name, why = next(iter(told["broken"].items()))
        more = f" (and {len(told['broken']) - 1} more)" if len(told["broken"]) > 1 else ""
        mend = _room(why) or install(*told["broken"], flags="--force-reinstall")
        return fail(f"{name}{more}: {why}", mend)
    return ok(f"{told['loaded']} load")


def sound(scene: Scene) -> Result:
    """Clips can be written and read: WAV, FLAC, OGG, MP3."""
    return _codecs("sound", ("WAV",), install("soundfile", flags="--force-reinstall"), scene)


def images(scene: Scene) -> Result:
    """Images can be written and read: PNG, JPEG, WEBP."""
    mend = install("pillow", flags="--force-reinstall")
    return _codecs("images", ("PNG", "JPEG"), mend, scene)


def _codecs(question: str, needed: tuple[str, ...], mend: str, scene: Scene) -> Result:
    try:
        told = scene.asked.answer(question)
    except NoAnswerError as error:
        return fail(str(error), _room(str(error)) or mend)
    if told["broken"]:
        listed = ", ".join(f"{name}: {why}" for name, why in told["broken"].items())
        return (fail if set(told["broken"]) & set(needed) else warn)(listed, mend)
    return ok(f"{', '.join(told['formats'])} written and read")


def _loads(name: str, scene: Scene) -> Result:
    scene.torch()
    try:
        return ok(scene.asked.answer(name)["version"])
    except NoAnswerError as error:
        return fail(f"`import {name}`: {error}", _room(str(error)) or torch_that_fits(scene))


def _room(why: str) -> str:
    """The mend where it is not the library's fault: a limit on memory, threads or files."""
    if "failed to map segment" in why or "annot allocate memory" in why or "MemoryError" in why:
        return "ulimit -v unlimited"
    if "SIGKILL" in why:
        return "docker update --memory 16g --memory-swap 16g CONTAINER   # or free memory"
    if "Resource temporarily unavailable" in why or "start new thread" in why:
        return "ulimit -u unlimited   # a container: docker update --pids-limit -1 CONTAINER"
    if "Too many open files" in why:
        return "ulimit -n 4096"
    return ""
