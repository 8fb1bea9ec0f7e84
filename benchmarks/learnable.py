"""Eight tasks that can be learned in a minute: `--set task.name=NAME`. For measurements only.

Models of cells.py and torchvision on data that is here: scikit-learn's digits, the words of this
repository's own documents, and sounds and gestures that are computed. 1,024 samples to train on
and 256 to validate on, the same in every process.
"""

import re
from collections import Counter
from pathlib import Path

import torch
import torchvision
from cells import (
    SIDE,
    WORDS,
    Gpt,
    Recurrent,
    UNet,
    ctc,
    each_pixel,
    mixer,
    next_word,
    separable_net,
    table_net,
)
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from autotrain import Task

TRAIN, VALID, SEED = 1024, 256, 0
DOCUMENTS = Path(__file__).parents[1]
PLACES, FRAMES, GLOSSES, SOUND = 96, 100, 10, 4000


def halves(*columns):
    """{train, valid} of those tensors, one row a sample, in an order that is always the same."""
    order = torch.randperm(len(columns[0]), generator=torch.Generator().manual_seed(SEED))
    train, valid = order[:TRAIN], order[TRAIN : TRAIN + VALID]
    return {"train": TensorDataset(*(column[train] for column in columns)),
            "valid": TensorDataset(*(column[valid] for column in columns))}  # fmt: skip


def digits(side):
    """Handwritten digits as [n, 1, side, side] from 0 to 1, and which ones they are."""
    found = load_digits()
    pictures = torch.tensor(found.images, dtype=torch.float32)[:, None] / 16
    return functional.interpolate(pictures, size=side, mode="bilinear"), torch.tensor(found.target)


def coloured():
    pictures, labels = digits(SIDE)
    return pictures.repeat(1, 3, 1, 1), labels


def pictures(build):
    return Task.classification(model=build, **halves(*coloured()))


def inked():
    """A digit in noise; of each pixel, in which fifth of the range its ink was."""
    clean, _ = digits(SIDE)
    drawn = torch.Generator().manual_seed(SEED)
    noisy = clean.repeat(1, 3, 1, 1)
    noisy = noisy + 0.3 * torch.randn(noisy.shape, generator=drawn)
    return Task(model=UNet, loss=each_pixel, **halves(noisy, (clean[:, 0] * 4.99).long()))


def sentences():
    """The words of the documents, and of each place the word that follows."""
    texts = [path.read_text() for path in sorted(DOCUMENTS.glob("docs/**/*.md"))]
    said = re.findall(r"\w+|[^\w\s]", " ".join(texts).lower())
    known = {word: n for n, (word, _) in enumerate(Counter(said).most_common(WORDS - 1), start=1)}
    codes = torch.tensor([known.get(word, 0) for word in said])
    step = (len(codes) - PLACES - 1) // (TRAIN + VALID)
    rows = codes.unfold(0, PLACES + 1, step)
    return Task(model=Gpt, loss=next_word, **halves(rows[:, :-1], rows[:, 1:]))


def signs():
    """Ten of 29 gestures in turn, ten noisy frames each."""
    drawn = torch.Generator().manual_seed(SEED)
    shapes = torch.randn(30, 80, generator=drawn)
    said = torch.randint(1, 30, (TRAIN + VALID, GLOSSES), generator=drawn)
    frames = shapes[said].repeat_interleave(FRAMES // GLOSSES, dim=1)
    frames = frames + torch.randn(frames.shape, generator=drawn)
    model = lambda: Recurrent(nn.LSTM, 128, 30, both=True)  # noqa: E731
    return Task(model=model, loss=ctc, **halves(frames, said))


def tones():
    """One of ten pitches in noise."""
    drawn = torch.Generator().manual_seed(SEED)
    which = torch.randint(0, 10, (TRAIN + VALID,), generator=drawn)
    phase = torch.rand(len(which), 1, generator=drawn) * 2 * torch.pi
    pitch = 200.0 * 1.2 ** which[:, None]
    sound = torch.sin(pitch * torch.arange(SOUND) / 8000 * 2 * torch.pi + phase)
    sound = sound + 0.5 * torch.randn(sound.shape, generator=drawn)
    return Task.classification(model=separable_net, **halves(sound[:, None], which))


def rows():
    seen, labels = digits(16)
    return Task.classification(model=table_net, **halves(seen.flatten(1), labels))


vision = torchvision.models
TASKS = {
    "digits_resnet18": lambda: pictures(lambda: vision.resnet18(num_classes=10)),
    "digits_shufflenet": lambda: pictures(lambda: vision.shufflenet_v2_x1_0(num_classes=10)),
    "digits_mixer": lambda: pictures(mixer),
    "ink_unet": inked,
    "words_gpt": sentences,
    "signs_bilstm_ctc": signs,
    "tones_separable": tones,
    "rows_mlp": rows,
}


def task(data, name="rows_mlp"):
    return TASKS[name]()
