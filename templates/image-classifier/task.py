"""Image classifier: a small CNN, or EfficientNet-B0, on a folder of images per class.

python templates/image-classifier/make_digits.py /tmp/digits
autotrain plan /tmp/digits --template image-classifier
autotrain run plan.toml       # 1797 digits: about a minute on two idle cores, 99 % right
autotrain evaluate runs/image-classifier
"""

import functools
import itertools
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from torchvision.models import efficientnet_b0
from torchvision.transforms import InterpolationMode, v2

from autotrain import Kept, Task
from autotrain.blocks.classes import (
    balanced_weights,
    insist_on_samples,
    insist_on_validation,
    of_known,
    say_empty_folders,
)
from autotrain.blocks.images import (
    ImageSet,
    common_size,
    image_size,
    load_image,
    several_classes,
)
from autotrain.blocks.invented import Invented
from autotrain.blocks.layouts import image_splits, split_folder
from autotrain.blocks.mixing import Mixed
from autotrain.blocks.options import all_between, needed, one_of
from autotrain.blocks.samples import FEW, keep_readable, split_by_name
from autotrain.blocks.weights import load_weights, read_weights

WIDTHS = (32, 64, 128, 256, 512)  # channels after the stem and each stage: 4.7 M parameters
SMALLEST = {"cnn": 32, "efficientnet_b0": 64}  # pixels: what their strides leave something of
NORMALISE = {1: ([0.449], [0.226]), 3: ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])}  # ImageNet

CHECKED_PIXELS = 50_000_000  # decoded at once up to here (about 1 s), else checked by header

Labelled = tuple[Path, int]
Sizes = dict[Path, tuple[int, int]]


class Facts(NamedTuple):
    """What a model needs to know of its data: the `classes` in the order of its outputs and how
    much a sample of each counts, the `side` of its pictures in pixels, and whether the validation
    was `held_out` of the training."""

    classes: list[str]
    weights: list[float] | None
    side: int
    held_out: bool


class Parts(NamedTuple):
    """The pictures by what they are for."""

    train: list[Labelled]
    valid: list[Labelled]
    test: list[Labelled]


class Stage(nn.Module):
    """[batch, inputs, h, w] -> [batch, outputs, h/2, w/2]: halve, then one residual step."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.halve = convolution(inputs, outputs, stride=2)
        self.refine = convolution(outputs, outputs)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        halved = self.halve(pixels).relu()
        return (halved + self.refine(halved)).relu()


def convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """A 3 x 3 convolution and its batch norm."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs)
    )


def cnn(classes: int, size: int, channels: int, dropout: float) -> nn.Sequential:
    """[batch, channels, size, size] -> [batch, classes] logits; 4.7 M parameters.

    The stem brings larger pictures down to 25 to 56 pixels before the stages, and most
    parameters sit where maps are small, so that a step stays cheap.
    """
    stem = convolution(channels, WIDTHS[0], stride=1 if size <= 48 else 2)
    shrink = [nn.MaxPool2d(2)] if size > 112 else []
    stages = [Stage(a, b) for a, b in itertools.pairwise(WIDTHS)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout)]
    return nn.Sequential(stem, nn.ReLU(), *shrink, *stages, *head, nn.Linear(WIDTHS[-1], classes))


def efficientnet(classes: int, dropout: float) -> nn.Module:
    """torchvision's EfficientNet-B0: 4.0 M parameters without its head."""
    return efficientnet_b0(weights=None, num_classes=classes, dropout=dropout)


def prepare(channels: int) -> list[nn.Module]:
    """uint8 [channels, h, w] -> float32 of about zero mean and unit variance."""
    return [v2.ToDtype(torch.float32, scale=True), v2.Normalize(*NORMALISE[channels])]


def chance(flip: bool, how: str = "usual") -> list[nn.Module]:
    """What varies the training pictures, uint8 to uint8: `how` is a key of AUGMENTATIONS.

    No mirror images unless `flip`: a mirrored digit, letter or hand sign is another one, or none.
    """
    return [*AUGMENTATIONS[how](), *([v2.RandomHorizontalFlip()] if flip else [])]


def usual() -> list[nn.Module]:
    """Small turns, shifts, zooms and changes of light."""
    moved = v2.RandomAffine(
        8, translate=(0.08, 0.08), scale=(0.9, 1.1), interpolation=InterpolationMode.BILINEAR
    )
    return [moved, v2.ColorJitter(0.2, 0.2)]


def strong() -> list[nn.Module]:
    """Two of RandAugment's changes (Cubuk 2019), none of which mirrors, and a hidden patch."""
    changed = v2.RandAugment(interpolation=InterpolationMode.BILINEAR)
    return [changed, v2.RandomErasing(0.25, scale=(0.02, 0.2), value=127)]


AUGMENTATIONS = {"usual": usual, "strong": strong, "none": list}


def noise(side: int, channels: int, prepared: nn.Module) -> torch.Tensor:
    """A picture of nothing, as the model is given it."""
    return prepared(torch.randint(256, (channels, side, side), dtype=torch.uint8))


def labelled(classes: dict[str, list[Path]], names: list[str]) -> list[Labelled]:
    """(path, class index) of every image, in the order of the classes."""
    return [(path, names.index(name)) for name, paths in classes.items() for path in paths]


def stratified(items: list[Labelled], share: float) -> tuple[list[Labelled], list[Labelled]]:
    """(train, valid): `share` of each class is held out, by the hash of the file's name."""
    train, valid = [], []
    for label in sorted({label for _, label in items}):
        own = [item for item in items if item[1] == label]
        kept, held = split_by_name(["/".join(path.parts[-2:]) for path, _ in own], share)
        train += [own[i] for i in kept]
        valid += [own[i] for i in held]
    return train, valid


def readable(sides: dict[str, list[Labelled]], **leeway) -> tuple[dict[str, list[Labelled]], Sizes]:
    """The images of each side that can be read, and the width and height of all. `leeway`: of
    `keep_readable`.

    The share that may be damaged is of all sides together: one picture of a small test is not
    over a tenth of the data.
    """
    sizes: Sizes = {}

    def header(item: Labelled) -> None:
        sizes[item[0]] = image_size(item[0])

    items = [item for side in sides.values() for item in side]
    kept = keep_readable(items, header, "images", **leeway)
    if sum(width * height for width, height in sizes.values()) <= CHECKED_PIXELS:
        kept = keep_readable(kept, lambda item: load_image(item[0], 32), "images", **leeway)
    good = {*kept}
    return {name: [item for item in side if item in good] for name, side in sides.items()}, sizes


def shared_out(
    data: Path, valid_share: float, by_heart: bool, balanced: bool, size: int, smallest: int
) -> tuple[Parts, Facts]:
    """The pictures of a folder, and what there is to know of them; `size`: 0, or their side."""
    splits = image_splits(data)
    classes = splits["train"] if "train" in splits else splits["all"]
    names = several_classes(classes)
    say_empty_folders(classes)
    found, sizes = readable({side: labelled(each, names) for side, each in splits.items()})
    held_out = not by_heart and "valid" not in splits
    train = valid = found["train"] if "train" in found else found["all"]
    if held_out:
        train, valid = stratified(train, valid_share)
    elif not by_heart:
        valid = found["valid"]
    labels = [label for _, label in train]
    insist_on_samples(names, labels)
    insist_on_validation(valid)
    weights = balanced_weights(labels, len(names)) if balanced else None
    side = size or common_size([sizes[path] for path, _ in train + valid], 32, 224)
    facts = Facts(names, weights, max(side, smallest), held_out)
    return Parts(train, valid, found.get("test", [])), facts


def asked_for(
    data: Path, split: str, facts: Facts, valid_share: float, by_heart: bool
) -> list[Labelled]:
    """The pictures of one split, the others need not be there; of classes that the model knows."""
    split = "train" if by_heart and split == "valid" else split
    held_out = facts.held_out and split != "test"
    classes = None if held_out else split_folder(data, split)
    if classes is None:
        splits = image_splits(data)
        whole = held_out or split == "train"
        classes = splits.get("train", splits.get("all")) if whole else splits.get(split, {})
    items = labelled(of_known(classes, facts.classes), facts.classes)
    items = readable({split: items}, **FEW)[0][split] if items else []
    return stratified(items, valid_share)[split == "valid"] if held_out else items


def answer(model: nn.Module, given: str, out: Path, *, names, side, channels, prepared) -> dict:
    """What is in a picture, how sure the model is, and what else it might be."""
    device = next(model.parameters()).device
    pixels = prepared(load_image(Path(given), side, channels))
    chances = model(pixels[None].to(device)).float().softmax(dim=-1)[0]
    first, second = chances.topk(2).indices.tolist()
    return {
        "class": names[first], "probability": float(chances[first]), "else": names[second],
    }  # fmt: skip


def task(
    data: Path | None,
    *,
    arch: str = "cnn",
    size: int = 0,
    channels: int = 3,
    augment: bool = True,
    flip: bool = False,
    augmentation: str = "usual",
    mixup: float = 0.0,
    class_weights: str = "none",
    dropout: float = 0.2,
    label_smoothing: float = 0.0,
    weights: str = "",
    valid_share: float = 0.2,
    by_heart: bool = False,
    kept: Kept | None = None,
) -> Task:
    """`data`: a folder per class, or `train/`, `valid/` and `test/` that hold such folders.

    - `arch`: `cnn` or `efficientnet_b0`.
    - `size`: side of the square input in pixels, at least 32 (`efficientnet_b0`: 64); 0: the
      data's median, up to 224.
    - `channels`: 3, or 1 for grey (`cnn` only).
    - `flip`: mirror images at random; `augmentation`: `usual`, `strong` or `none`; `augment`
      false: neither.
    - `mixup`: alpha of its Beta distribution; 0: none.
    - `class_weights`: `balanced`: rare classes count more, so that all count the same together.
    - `weights`: a state dict (.safetensors, .pt) to start from.
    - `valid_share`: of each class is held out where the data has no validation split.
    - `by_heart`: validate on the training pictures: a check, not a training.
    """
    one_of("arch", arch, SMALLEST)
    one_of("augmentation", augmentation, AUGMENTATIONS)
    one_of("class_weights", class_weights, ["none", "balanced"])
    one_of("channels", channels, NORMALISE if arch == "cnn" else [3])
    all_between([
        ("size", size, 0, 1024), ("dropout", dropout, 0, 0.95),
        ("label_smoothing", label_smoothing, 0, 0.95), ("mixup", mixup, 0, 10),
        ("valid_share", valid_share, 0.01, 0.9),
    ])  # fmt: skip
    if kept is None:
        folder = needed(data, "a folder of images per class")
        balanced = class_weights == "balanced"
        parts, facts = shared_out(folder, valid_share, by_heart, balanced, size, SMALLEST[arch])
    else:
        facts = Facts(**kept.facts)
        parts = Parts([], [], [])
        if kept.split is not None:
            folder = needed(data, "a folder of images per class")
            asked = asked_for(folder, kept.split, facts, valid_share, by_heart)
            parts = parts._replace(**{kept.split: asked})
    names, side = facts.classes, facts.side
    steps = prepare(channels)
    plain = v2.Compose(steps)
    varied = v2.Compose([*chance(flip, augmentation), *steps]) if augment else plain
    pictures = ImageSet(parts.train, side, channels, varied if kept is None else plain)
    if kept is not None and kept.split is None:
        pictures = Invented(lambda index: (noise(side, channels, plain), index % len(names)))
    start = read_weights(Path(weights)) if weights and kept is None else {}

    def build() -> nn.Module:
        if arch == "cnn":
            model = cnn(len(names), side, channels, dropout)
        else:
            model = efficientnet(len(names), dropout)
        if start:
            load_weights(model, start, Path(weights))
        return model

    return Task.classification(
        model=build,
        train=Mixed(pictures, len(names), mixup) if mixup and kept is None else pictures,
        valid=ImageSet(parts.valid, side, channels, plain),
        test=ImageSet(parts.test, side, channels, plain) if parts.test else None,
        label_smoothing=label_smoothing,
        class_weights=facts.weights,
        classes=names,
        predict=functools.partial(
            answer, names=names, side=side, channels=channels, prepared=plain
        ),
        facts=facts._asdict(),
    )
