"""From spectra to sound: Griffin and Lim's way or a vocoder of the user's own, and a WAV."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autotrain.blocks.mels import Mels
from autotrain.errors import AutotrainError
from autotrain.files import open_regular

ONNX = ".onnx"
PEAK = 0.95  # of full scale: what is louder is turned down, not cut off

Vocoder = Callable[[torch.Tensor], torch.Tensor]


def vocoder(file: str, mels: Mels) -> Vocoder:
    """What makes sound of log-mel spectra: [frames, bands] -> [samples].

    Without a `file` Griffin and Lim's way; else a model of the user's own as .onnx, of one input
    [1, bands, frames], whose answer has the samples. ONNX is data: neither a pickle nor a Python
    file, which would run what somebody put there, is opened. Raises AutotrainError naming it.
    """
    if not file:
        return mels.to_sound
    if Path(file).suffix.lower() != ONNX:
        raise AutotrainError(
            f"{file}: a vocoder is an {ONNX} file",
            "`torch.onnx.export(...)` writes one; any other code: a task file of your own",
        )
    session = _session(Path(file))
    return functools.partial(_by_session, session, file, mels)


def _session(path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise AutotrainError(f"{path}: needs onnxruntime", "pip install onnxruntime") from None
    try:
        with open_regular(path) as file:
            session = onnxruntime.InferenceSession(file.read(), providers=["CPUExecutionProvider"])
    except OSError as error:
        raise AutotrainError(f"{path}: {error.strerror or error}", "name an .onnx file") from None
    except Exception as error:  # of onnxruntime's own many kinds
        raise AutotrainError(f"{path}: no vocoder ({str(error).splitlines()[0]})") from None
    if len(session.get_inputs()) != 1:
        raise AutotrainError(f"{path}: {len(session.get_inputs())} inputs, spectra are the one")
    return session


def _by_session(session: Any, file: str, mels: Mels, spectra: torch.Tensor) -> torch.Tensor:
    given = spectra.detach().float().cpu().T[None].contiguous().numpy()
    try:
        answer = session.run(None, {session.get_inputs()[0].name: given})[0]
    except Exception as error:  # of onnxruntime's own many kinds
        shape = list(given.shape)
        raise AutotrainError(f"{file}: fails on {shape} ({str(error).splitlines()[0]})") from None
    samples = torch.from_numpy(np.asarray(answer, dtype=np.float32)).flatten()
    frames = len(spectra)
    if not (frames - 1) * mels.hop - mels.window <= len(samples) <= frames * mels.hop + mels.window:
        raise AutotrainError(
            f"{file}: {len(samples)} samples for {frames} frames of {mels.hop}",
            "the options rate, window, hop and bands must be those that it was trained with",
        )
    return samples


def write_wav(path: Path, samples: torch.Tensor, rate: int) -> float:
    """Write samples [n] as 16 bits, turned down where they would not fit; their seconds.

    Raises AutotrainError where a sample is not finite, or the file cannot be written.
    """
    import soundfile

    if not bool(samples.isfinite().all()):
        raise AutotrainError(f"{path}: the sound has samples that are not finite")
    loudest = float(samples.abs().max()) if len(samples) else 0.0
    scaled = samples * (PEAK / loudest) if loudest > PEAK else samples
    try:
        soundfile.write(path, scaled.cpu().numpy(), rate, subtype="PCM_16")
    except (OSError, soundfile.LibsndfileError) as error:
        raise AutotrainError(f"{path}: {error}") from None
    return len(samples) / rate
