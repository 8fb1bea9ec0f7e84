"""Images in a folder per class, with or without a folder per split above."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from autotrain.blocks.layouts.listing import IMAGES, Listing, list_files
from autotrain.errors import AutotrainError

Classes = dict[str, list[Path]]
NameClasses = dict[str, list[str]]
TRAIN = ("train", "training")
VALID = ("valid", "val", "validation", "dev")
TEST = ("test", "testing")
SPLITS = {"train": TRAIN, "valid": VALID, "test": TEST}


def image_folder(root: Path) -> Classes:
    """Class name -> its images, sorted; of a tree with splits, the training split's.

    Raises AutotrainError where there is no folder with images.
    """
    splits = image_splits(root)
    return splits["train"] if "train" in splits else splits["all"]


def image_splits(root: Path) -> dict[str, Classes]:
    """`train`, and of `valid` and `test` what is there: each `classes`; or `{"all": classes}`.

    `train/` beside `valid/`, `val/` or `test/` are splits where they hold a folder per class;
    `test/` is left out where `train/` does not know its classes. Raises AutotrainError where there
    is no folder with images, or `train/` does not know a class of `valid/`.
    """
    listing = list_files(root)
    return {
        split: {name: [listing.path(file) for file in files] for name, files in classes.items()}
        for split, classes in splits_in(listing).items()
    }


def split_folder(root: Path, split: str) -> Classes | None:
    """The classes in the folder of that split, whatever lies beside it; None where it has none."""
    listing = list_files(root)
    top = _by_folder([file.name for file in listing.filled(IMAGES)])
    classes = _split(top, SPLITS[split])
    if classes is None:
        return None
    return {name: [listing.path(file) for file in files] for name, files in classes.items()}


def splits_in(listing: Listing) -> dict[str, NameClasses]:
    """As `image_splits`, with names relative to the listing's root."""
    top = _by_folder([file.name for file in listing.filled(IMAGES)])
    if not top and listing.having(IMAGES):
        raise AutotrainError(f"{listing.root}: its images are empty files", "restore them")
    if not top:
        raise AutotrainError(
            f"{listing.root}: no folder with images in it",
            "put the images of each class into a folder named after the class",
        )
    train, valid, test = _split(top, TRAIN), _split(top, VALID), _split(top, TEST)
    if train is None:
        return {"all": top}
    if test is not None and not set(test) <= set(train):
        test = None  # folders of a test split without labels
    if valid is None and test is None:
        alone = all(folder.lower() in (*TRAIN, *VALID, *TEST) for folder in top)
        return {"all": train if alone else top}
    if valid is not None:
        _refuse_unknown(listing.root, train, valid)
    there = {"train": train, "valid": valid, "test": test}
    return {split: classes for split, classes in there.items() if classes is not None}


def _by_folder(names: list[str], depth: int = 0) -> NameClasses:
    """First folder below `depth` -> names; what lies in no folder there is left out."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        parts = name.split("/", depth + 1)
        if len(parts) == depth + 2:
            found[parts[depth]].append(name)
    return dict(sorted(found.items()))


def _split(top: NameClasses, names: tuple[str, ...]) -> NameClasses | None:
    """The classes of the split so named, or None: a folder of mere images is no split."""
    for folder, files in top.items():
        if folder.lower() in names:
            return _by_folder(files, depth=1) or None
    return None


def _refuse_unknown(root: Path, train: NameClasses, valid: NameClasses) -> None:
    unknown = sorted(set(valid) - set(train))
    if unknown:
        raise AutotrainError(
            f"{root}: {len(unknown)} of the validation classes are unknown to the training "
            f"split: {', '.join(unknown[:3])}",
            "give both splits the same class folders",
        )
