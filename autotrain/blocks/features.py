"""Feature arrays from .npz files: read without trusting them, landmarks made comparable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from autotrain.arrays import Frames, look_at_features
from autotrain.errors import AutotrainError
from autotrain.files import open_regular
from autotrain.media import UnreadableError

UNLIKE = 1000.0  # times as large as the median: pixels beside shares of a picture


def look_at(path: Path) -> Frames:
    """Frames, width and bytes of the features of an .npz, by its headers.

    Raises AutotrainError, naming the file, where they are unreadable.
    """
    try:
        return look_at_features(path, decode=False)
    except UnreadableError as problem:
        raise AutotrainError(f"{path}: {problem}") from None


def load_features(path: Path, shape: tuple[int, ...] | None = None) -> torch.Tensor:
    """The features of an .npz as float32 [frames, ...]: the array of a usual name, or the largest.

    `shape`: what each frame must have. Raises AutotrainError, naming the file, where it is
    unreadable, of another shape, or holds values that are not finite, or one value only: nothing
    was seen.
    """
    try:
        found = look_at_features(path, decode=True)
        with open_regular(path) as file, np.load(file, allow_pickle=False) as arrays:
            values = _precise(arrays[found.name])
    except UnreadableError as problem:
        raise AutotrainError(f"{path}: {problem}") from None
    except (OSError, ValueError, KeyError) as error:  # another file stands there by now
        raise AutotrainError(f"{path}: cannot be read: {error}") from None
    if shape is not None and values.shape[1:] != shape:
        raise AutotrainError(
            f"{path}: frames of {_by(values.shape[1:])} features, where most have {_by(shape)}"
        )
    if not bool(values.isfinite().all()):
        raise AutotrainError(f"{path}: its array `{found.name}` holds values beyond float32")
    if bool((values == values.flatten()[0]).all()):
        raise AutotrainError(
            f"{path}: nothing was seen: all its values are {values.flatten()[0]:g}"
        )
    return values


def check_scale(path: Path, largest: float, usual: float) -> None:
    """Raises AutotrainError where a file's largest value is of other units than is usual: one such
    file would make all others look alike, as their spread is measured."""
    if not usual / UNLIKE <= largest <= usual * UNLIKE:
        raise AutotrainError(
            f"{path}: values up to {largest:.3g}, where most have up to {usual:.3g}"
        )


def _precise(values: np.ndarray) -> torch.Tensor:
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is told
        return torch.from_numpy(values.astype(np.float32))


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(str(size) for size in shape)


def normalised_landmarks(points: torch.Tensor) -> torch.Tensor:
    """[frames, points, 2 or 3] -> the same, of whoever signs, wherever the camera stood.

    A point whose coordinates are all 0 was not seen: it takes a straight way from where it was
    seen last to where it is seen next, and rests at the edges; one that was never seen lies in
    the middle. The middle of all that was seen becomes 0, its spread (over all axes) 1.
    """
    seen = (points != 0).any(dim=-1)
    known = points[seen]
    if not len(known):
        return torch.zeros_like(points)
    middle = known.mean(dim=0)
    spread = (known - middle).square().mean().sqrt().clamp(min=1e-6)
    return torch.where(seen.any(dim=0)[None, :, None], filled(points - middle, seen) / spread, 0.0)


def filled(points: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """[frames, points, axes] with what was not `seen` [frames, points] drawn in, linearly in time.

    What was never seen stays as it is.
    """
    frames = len(points)
    at = torch.arange(frames)[:, None].expand_as(seen)
    before = torch.where(seen, at, -1).cummax(dim=0).values
    after = torch.where(seen, at, frames).flip(0).cummin(dim=0).values.flip(0)
    first = torch.where(before < 0, after, before).clamp(max=frames - 1)
    last = torch.where(after >= frames, before, after).clamp(min=0)
    share = (at - first) / (last - first).clamp(min=1)
    ends = [points.gather(0, place[..., None].expand_as(points)) for place in (first, last)]
    drawn = ends[0] + share[..., None] * (ends[1] - ends[0])
    return torch.where((seen | ~seen.any(dim=0))[..., None], points, drawn)
