"""The process that may crash: it answers questions in turn, each on a line of its own.

`python -m autotrain.doctor.asked`: on stdin a list of questions, on stdout an answer to each,
behind `MARK`. What libraries print goes the same way, and is what is known where one crashes.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

MARK = "\x1eanswer "
# What templates, runs and reports load, heavy ones left out: a name to import each by.
LIBRARIES = {
    "filelock": "filelock", "fsspec": "fsspec", "jiwer": "jiwer", "numpy": "numpy",
    "pillow": "PIL.Image", "psutil": "psutil", "pydantic": "pydantic", "rich": "rich.table",
    "safetensors": "safetensors", "sentencepiece": "sentencepiece", "soundfile": "soundfile",
    "tomli-w": "tomli_w", "typer": "typer",
}  # fmt: skip
_IMAGES = ("PNG", "JPEG", "WEBP")
_SOUNDS = (("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III"))


def torch() -> dict[str, Any]:
    """What was loaded: its version, its CUDA or ROCm, and whether it takes numpy's arrays."""
    import torch

    told: dict[str, Any] = {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "sum": float(torch.ones(64, 64).matmul(torch.ones(64, 64)).sum()),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import numpy

            told["numpy"] = float(torch.from_numpy(numpy.ones(3)).sum()) == 3.0
        except (ImportError, RuntimeError) as error:
            told["numpy"] = f"{error}"
    return told


def torchaudio() -> dict[str, Any]:
    """Loads its native library."""
    import torch
    import torchaudio

    mel = torchaudio.transforms.MelSpectrogram(n_fft=64, n_mels=4)(torch.zeros(256))
    return {"version": torchaudio.__version__, "shape": list(mel.shape)}


def torchvision() -> dict[str, Any]:
    """Loads, and calls an operator of its native library, which it does without when it must."""
    import torch
    import torchvision

    box = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    kept = torchvision.ops.nms(box, torch.ones(1), 0.5)
    return {"version": torchvision.__version__, "kept": len(kept)}


def torchcodec() -> dict[str, Any]:
    """Loads FFmpeg's libraries."""
    import torchcodec

    return {"version": torchcodec.__version__}


def cuda() -> dict[str, Any]:
    """The GPUs that torch can use through CUDA or ROCm; what it complains of where it cannot."""
    import torch

    with warnings.catch_warnings(record=True) as complaints:
        warnings.simplefilter("always")
        there = torch.cuda.is_available()
        built = torch.version.cuda is not None or torch.version.hip is not None
        if built and not there:
            with suppress(RuntimeError, AssertionError):
                torch.cuda.init()  # type: ignore[no-untyped-call]
        listed = [_device(index) for index in range(torch.cuda.device_count())] if there else []
    said = [str(each.message).partition("\n")[0] for each in complaints]
    wheels = torch.cuda.get_arch_list() if there else []
    return {"devices": listed, "architectures": wheels, "complaint": said[0] if said else ""}


def _device(index: int) -> dict[str, Any]:
    """A GPU; `problem`: why it cannot be worked with, though it is there."""
    import torch

    told = torch.cuda.get_device_properties(index)
    free, total, problem = 0, told.total_memory, ""
    try:
        free, total = torch.cuda.mem_get_info(index)
    except RuntimeError as error:  # others hold all of it, or its mode keeps us out
        problem = _said(error)
    return {
        "name": told.name, "capability": [told.major, told.minor], "free": free, "total": total,
        "architecture": getattr(told, "gcnArchName", ""), "problem": problem,
        "uuid": str(getattr(told, "uuid", "")),
    }  # fmt: skip


def mps() -> dict[str, Any]:
    """Whether torch can use an Apple GPU."""
    import torch

    return {"built": torch.backends.mps.is_built(), "there": torch.backends.mps.is_available()}


def nvml() -> dict[str, Any]:
    """What NVIDIA's driver says of itself and its GPUs."""
    from autotrain import nvml as driver

    problem = driver.nvml_problem()
    if problem is not None:
        return {"error": problem, "gpus": []}
    told = driver.nvml_driver()
    gpus = [
        {**asdict(gpu), "neighbours": [each.model_dump() for each in gpu.neighbours]}
        for gpu in driver.nvml_gpus()
    ]
    health = [asdict(each) for each in driver.nvml_health()]
    return {"error": "", "driver": asdict(told) if told else None, "gpus": gpus, "health": health}


def libraries() -> dict[str, Any]:
    """Which of the others do not load, and why."""
    broken = {}
    for name, module in LIBRARIES.items():
        try:
            importlib.import_module(module)
        except Exception as error:
            broken[name] = _said(error)
    return {"loaded": len(LIBRARIES) - len(broken), "broken": broken}


def sound() -> dict[str, Any]:
    """Formats of clips that cannot be written and read back."""
    import numpy
    import soundfile

    wave, broken = numpy.sin(numpy.arange(4800) / 10) / 2, {}
    for container, subtype in _SOUNDS:
        file = io.BytesIO()
        try:
            soundfile.write(file, wave, 16000, format=container, subtype=subtype)
            file.seek(0)
            heard, rate = soundfile.read(file)
            if rate != 16000 or abs(len(heard) - len(wave)) > 2304:  # MP3 pads
                broken[container] = "what is read is not what was written"
        except Exception as error:
            broken[container] = _said(error)
    return {"formats": [name for name, _ in _SOUNDS], "broken": broken}


def images() -> dict[str, Any]:
    """Formats of images that cannot be written and read back."""
    from PIL import Image

    broken = {}
    for name in _IMAGES:
        file = io.BytesIO()
        try:
            Image.new("RGB", (16, 16), (200, 40, 40)).save(file, name)
            file.seek(0)
            with Image.open(file) as seen:
                seen.load()
        except Exception as error:
            broken[name] = _said(error)
    return {"formats": list(_IMAGES), "broken": broken}


def step(kind: str, dtype: str, seconds: str) -> dict[str, Any]:
    """Real training steps on every device of a kind."""
    from autotrain.doctor import stepping

    return {"devices": stepping.on_all(kind, dtype, float(seconds))}


QUESTIONS: dict[str, Callable[..., dict[str, Any]]] = {
    "torch": torch, "torchaudio": torchaudio, "torchvision": torchvision,
    "torchcodec": torchcodec, "cuda": cuda, "mps": mps, "nvml": nvml, "libraries": libraries,
    "sound": sound, "images": images, "step": step,
}  # fmt: skip


def main() -> None:
    """Answer what stdin asks, and end when it does."""
    lifeline = os.dup(0)
    with os.fdopen(os.dup(0), "rb") as stdin:
        questions = json.loads(stdin.readline())
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    with suppress(OSError):  # Linux: where memory runs out, this process is to go first
        Path("/proc/self/oom_score_adj").write_text("1000")
    for question in questions:
        name, *more = question.split()
        try:
            said = QUESTIONS[name](*more)
        except Exception as error:
            said = {"problem": _said(error)}
        print(f"\n{MARK}{json.dumps(said)}", flush=True)


def _said(error: Exception) -> str:
    """Its kind, its first line, and that of what it came from."""
    root: BaseException = error
    while root.__cause__ is not None:
        root = root.__cause__
    lines = str(error).strip().splitlines() or ["no more is known"]
    cause = str(root).strip().splitlines()[:1] if root is not error else []
    return f"{type(error).__name__}: {' ('.join([lines[0], *cause])[:400]}{')' * len(cause)}"


def _end_with(lifeline: int) -> None:
    """Whoever asks holds the pipe's other end."""
    with suppress(OSError):
        os.read(lifeline, 1)
    os._exit(1)


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # what was loaded may crash as it is taken down
