"""Writes scikit-learn's 1797 handwritten digits as PNG files: python make_digits.py OUT

Needs scikit-learn. OUT gets a folder per class, `OUT/0/0000.png` and so on: 8 x 8 pixels of
grey, from the UCI Optical Recognition of Handwritten Digits test set. Takes a second.
"""

import sys
from pathlib import Path

from PIL import Image
from sklearn.datasets import load_digits


def main(out: Path) -> None:
    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        folder = out / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        grey = (pixels * (255 / 16)).round().astype("uint8")
        Image.fromarray(grey).save(folder / f"{number:04d}.png")
    print(f"{out}: {len(digits.target)} images in {len(digits.target_names)} classes")


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit("usage: python make_digits.py OUT")
    main(Path(sys.argv[1]))
