"""Writes letters as photographs might show them: python make_glyphs.py OUT [--each N] [--seed N]

29 classes as in sign-alphabet sets: A to Z, and `space`, `del` and `nothing`. OUT/train, OUT/valid
and OUT/test hold a folder per class of JPEGs, 3 x 64 x 64. A letter is in one of the fonts that
matplotlib brings along, of any size, turned by up to 20 degrees, slanted, out of the middle, in
front of blotches and gradients of other colours, sometimes behind a bar, out of focus and noisy.
The fonts of `test` are in no other split. The same arguments always draw the same pictures.
"""

import argparse
import string
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

SIDE, SCALE = 64, 2  # drawn at twice the size, then brought down
LETTERS = [*string.ascii_uppercase, "space", "del", "nothing"]
FONTS = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique",
    "DejaVuSansMono", "DejaVuSansMono-Oblique", "DejaVuSerif", "DejaVuSerif-Bold",
    "DejaVuSerif-BoldItalic", "STIXGeneral", "STIXGeneralBol", "cmr10", "cmb10", "cmtt10",
)  # fmt: skip
NEW_FONTS = ("DejaVuSansMono-Bold", "DejaVuSerif-Italic", "STIXGeneralItalic", "cmss10")
APART = 90  # of 255: how far the letter's brightness is from what is behind it


def background(draw: np.random.Generator) -> np.ndarray:
    """[side, side, 3]: a gradient between two colours, and blotches."""
    side = SIDE * SCALE
    a, b = draw.uniform(20, 235, (2, 3))
    turn = draw.uniform(0, 2 * np.pi)
    grid = np.linspace(-1, 1, side)
    share = 0.5 + 0.35 * (np.cos(turn) * grid[None, :] + np.sin(turn) * grid[:, None])
    blotches = draw.normal(0, 1, (int(draw.integers(3, 9)),) * 2 + (3,)) * draw.uniform(4, 22)
    rough = [Image.fromarray(blotches[..., c].astype(np.float32)) for c in range(3)]
    smooth = [np.asarray(each.resize((side, side), Image.Resampling.BICUBIC)) for each in rough]
    return a + share[..., None] * (b - a) + np.stack(smooth, axis=-1)


def mask(draw: np.random.Generator, name: str, fonts: tuple[str, ...]) -> Image.Image:
    """What the letter covers, 0 to 255, turned, slanted and out of the middle."""
    side = SIDE * SCALE
    made = Image.new("L", (side, side))
    size = int(draw.uniform(0.5, 0.8) * side)
    if name in ("space", "del"):
        _sign(ImageDraw.Draw(made), name, side, size, int(draw.integers(5, 12)))
    elif name != "nothing":
        folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
        font = ImageFont.truetype(folder / f"{draw.choice(fonts)}.ttf", size)
        ImageDraw.Draw(made).text((side / 2, side / 2), name, 255, font, anchor="mm")
    made = made.rotate(draw.uniform(-20, 20), Image.Resampling.BICUBIC)
    slant, (right, down) = draw.uniform(-0.15, 0.15), draw.uniform(-0.1, 0.1, 2) * side
    moved = (1, slant, -slant * side / 2 - right, 0, 1, -down)
    return made.transform((side, side), Image.Transform.AFFINE, moved, Image.Resampling.BICUBIC)


def _sign(pen: ImageDraw.ImageDraw, name: str, side: int, size: int, width: int) -> None:
    """An open box for a space, and a key that deletes to the left."""
    left, right = (side - size) / 2, (side + size) / 2
    middle, half = side / 2, size / 4
    if name == "space":
        ends = [(left, middle), (left, middle + half), (right, middle + half), (right, middle)]
        pen.line(ends, 255, width, joint="curve")
        return
    top, bottom = middle - half, middle + half
    tip = [(left, middle), (left + half, top), (right, top), (right, bottom), (left + half, bottom)]
    pen.line([*tip, tip[0]], 255, width, joint="curve")
    a, b = left + 1.5 * half, right - half / 2
    pen.line([(a, top + half / 2), (b, bottom - half / 2)], 255, width)
    pen.line([(a, bottom - half / 2), (b, top + half / 2)], 255, width)


def picture(draw: np.random.Generator, name: str, fonts: tuple[str, ...]) -> Image.Image:
    """One picture of a class."""
    side = SIDE * SCALE
    behind, covers = background(draw), mask(draw, name, fonts)
    colour = draw.uniform(0, 255, 3)
    dark = behind.mean() > 127
    colour += (behind.mean() - APART if dark else behind.mean() + APART) - colour.mean()
    share = np.asarray(covers, dtype=float)[..., None] / 255
    made = behind + share * (np.clip(colour, 0, 255) - behind)
    if draw.random() < 0.25:
        at, wide = int(draw.integers(0, side)), int(draw.integers(4, 12))
        bar = slice(at, at + wide)
        made[bar if draw.random() < 0.5 else (slice(None), bar)] = draw.uniform(0, 255, 3)
    image = Image.fromarray(np.clip(made, 0, 255).astype(np.uint8))
    image = image.filter(ImageFilter.GaussianBlur(draw.uniform(0, 2)))
    small = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX), dtype=float)
    noisy = small + draw.normal(0, draw.uniform(2, 16), small.shape)
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def write(out: Path, each: int = 160, seed: int = 1) -> str:
    """Write the set; returns what it holds in a line."""
    parts = {"train": (each, FONTS), "valid": (each // 4, FONTS), "test": (each // 4, NEW_FONTS)}
    for part, (split, (count, fonts)) in enumerate(parts.items()):
        for place, name in enumerate(LETTERS):
            folder = out / split / name
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                draw = np.random.default_rng([seed, part, place, number])
                image = picture(draw, name, fonts)
                image.save(folder / f"{name}-{number:04d}.jpg", quality=90)
    counts = ", ".join(f"{count} in {split}" for split, (count, _) in parts.items())
    return f"{out}: {len(LETTERS)} classes, of each {counts}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--each", type=int, default=160, help="training pictures of each class")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    print(write(asked.out, max(asked.each, 4), asked.seed))


if __name__ == "__main__":
    main()
