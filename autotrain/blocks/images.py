"""Pictures from files as tensors, and a dataset of labelled ones."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps

from autotrain.blocks.samples import Loaded
from autotrain.errors import AutotrainError
from autotrain.media import UnreadableError, open_image

Labelled = tuple[Path, int]
MODES: dict[int, Literal["L", "RGB"]] = {1: "L", 3: "RGB"}


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) in pixels by the header. Raises AutotrainError, naming the file."""
    try:
        with open_image(path) as image:
            return image.size
    except UnreadableError as problem:
        raise AutotrainError(f"{path}: {problem}") from None


def load_image(path: Path, size: int, channels: int = 3) -> torch.Tensor:
    """A picture as uint8 [channels, size, size]: scaled to its shorter side, cut to its middle.

    Turned as its EXIF tag says; transparent pixels become white. Raises AutotrainError, naming
    the file.
    """
    try:
        with open_image(path) as image:
            image.draft(MODES[channels], (size, size))
            ImageOps.exif_transpose(image, in_place=True)
            upright = _opaque(image)
            if upright.mode != MODES[channels]:
                upright = upright.convert(MODES[channels])
            square = ImageOps.fit(upright, (size, size), Image.Resampling.BILINEAR)
    except UnreadableError as problem:
        raise AutotrainError(f"{path}: {problem}") from None
    pixels = torch.from_numpy(np.array(square))
    return pixels.reshape(size, size, channels).permute(2, 0, 1).contiguous()


def several_classes(classes: Mapping[str, Sequence[Path]]) -> list[str]:
    """The names of the classes that have images, sorted: the order of a model's outputs.

    Raises AutotrainError where there are fewer than two.
    """
    names = sorted(name for name, paths in classes.items() if paths)
    if len(names) < 2:
        raise AutotrainError(
            f"one class only: {', '.join(names) or 'none'}",
            "put the images of at least two classes into a folder each",
        )
    return names


def common_size(sizes: Sequence[tuple[int, int]], low: int, high: int, step: int = 16) -> int:
    """Side of a square input for pictures of these sizes: their median shorter side.

    Kept from `low` to `high` and rounded to a multiple of `step`, so that strides divide it.
    """
    median = statistics.median(min(size) for size in sizes)
    return round(min(max(median, low), high) / step) * step


class ImageSet(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """Labelled pictures, map-style: index -> (`transform` of uint8 [channels, size, size], label).

    Chance in `transform` is torch's own, so that a seed before each sample repeats it.
    """

    def __init__(
        self,
        items: Sequence[Labelled],
        size: int,
        channels: int,
        transform: Callable[[torch.Tensor], torch.Tensor],
    ) -> None:
        load = functools.partial(_load_labelled, size=size, channels=channels)
        self.pictures = Loaded(items, load, "images")
        self.transform = transform

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        used, pixels = self.pictures[index]
        return self.transform(pixels), self.pictures.items[used][1]


def _load_labelled(item: Labelled, size: int, channels: int) -> torch.Tensor:
    return load_image(item[0], size, channels)


def _opaque(image: Image.Image) -> Image.Image:
    """The picture in eight bits a channel, over white where it is transparent."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype("uint8"))
    if image.has_transparency_data:
        coloured = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", coloured.size, "white"), coloured)
    return image
