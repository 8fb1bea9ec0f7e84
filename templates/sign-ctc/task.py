"""Signed sentences to glosses by CTC: a BiLSTM teacher, and a student a tenth of its size.

python templates/sign-ctc/make_signs.py signs
autotrain plan signs          # two stages, teacher and student
autotrain run plan.toml
"""

import functools
import logging
import math
from collections import Counter
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
from torch import nn

from autotrain import Kept, Loss, Task
from autotrain.blocks.augment import Augmented
from autotrain.blocks.convolutions import Convolution, InvertedResidual, halved, mask_of
from autotrain.blocks.ctc import beam_search, check_text, greedy
from autotrain.blocks.distilling import Posteriors, distilled
from autotrain.blocks.error_rates import recognised
from autotrain.blocks.features import check_scale, load_features, look_at, normalised_landmarks
from autotrain.blocks.invented import Invented
from autotrain.blocks.landmarks import (
    are_landmarks,
    are_numbered,
    by_the_right,
    hand_places,
    mirrored,
    moved,
    with_hands,
)
from autotrain.blocks.layouts import Features, feature_table
from autotrain.blocks.losses import mixed_ctc
from autotrain.blocks.masking import SpecAugment
from autotrain.blocks.mixing import MixedSequences, Utterances, pad_utterances
from autotrain.blocks.options import all_between, needed, one_of
from autotrain.blocks.recurrent import BiLSTM
from autotrain.blocks.samples import FEW, Loaded, keep_readable
from autotrain.blocks.splitting import kept_for_testing, samples_of, split_samples

BLANK, UNKNOWN = 0, 1
LEAST_FRAMES = 4.0  # frames a gloss, of a partner to mix with
CHECKED_BYTES = 256 << 20  # a set up to here is read at once, a larger one checked by its headers
NAMED = 5  # glosses that a warning names
STATISTICS = 400  # sentences, evenly spread, for mean and spread

_log = logging.getLogger(__name__)


class Model(nn.Module):
    """(features [batch, time, size], frames [batch]) -> (logits [batch, ceil(time / 2), classes],
    ceil(frames / 2)). It looks at features less their `mean`, by their `spread`, which are in every
    checkpoint; `places`: [2, n], see `with_hands`."""

    def __init__(self, mean: torch.Tensor, spread: torch.Tensor, places: torch.Tensor):
        super().__init__()
        self.register_buffer("mean", mean.clone())
        self.register_buffer("spread", spread.clone())
        self.register_buffer("places", places.clone(), persistent=False)

    def forward(self, features: torch.Tensor, frames: torch.Tensor):
        frames = frames.to(features.device)
        left, time = halved(frames), features.shape[1]
        whole, half = mask_of(frames, time), mask_of(left, halved(time))
        seen = (with_hands(features, self.places) - self.mean) / self.spread
        lanes = seen.transpose(1, 2) * whole
        return self.read(lanes, whole, half, left), left


class Teacher(Model):
    """Convolutions over time, two layers of BiLSTM, and a head that sees what both found."""

    def __init__(self, seen: tuple[torch.Tensor, ...], classes: int, width: int, dropout: float):
        super().__init__(*seen)
        self.look = Convolution(len(self.mean), width, 5, shape=nn.SiLU)
        self.halve = Convolution(width, width, 5, 2, shape=nn.SiLU)
        self.refine = nn.ModuleList(Convolution(width, width, 5, shape=nn.SiLU) for _ in range(2))
        self.dropout = nn.Dropout(dropout)
        self.remember = BiLSTM(width, width, layers=2, dropout=dropout)
        self.head = nn.Linear(3 * width, classes)

    def read(self, lanes, whole, half, left) -> torch.Tensor:
        found = self.halve(self.dropout(self.look(lanes, whole)), half)
        for refine in self.refine:
            found = found + self.dropout(refine(found, half))
        seen = found.transpose(1, 2)
        return self.head(self.dropout(torch.cat([seen, self.remember(seen, left)], dim=-1)))


class Student(Model):
    """A stem that halves, `blocks` of MobileNetV3's inverted residuals in 1-d, and a head."""

    def __init__(self, seen: tuple[torch.Tensor, ...], classes: int, width: int, blocks: int,
                 dropout: float):  # fmt: skip
        super().__init__(*seen)
        self.stem = Convolution(len(self.mean), width, 3, 2, shape=nn.Hardswish)
        each = (InvertedResidual(width, 3 * width, 9, dropout) for _ in range(blocks))
        self.blocks = nn.ModuleList(each)
        self.last = Convolution(width, 2 * width, 1, shape=nn.Hardswish)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(2 * width, classes)

    def read(self, lanes, _whole, half, _left) -> torch.Tensor:
        found = self.stem(lanes, half)
        for block in self.blocks:
            found = block(found, half)
        return self.head(self.dropout(self.last(found, half)).transpose(1, 2))


class Form(NamedTuple):
    """Of most sentences: the `shape` of a frame, and their `largest` value (0: not measured)."""

    shape: tuple[int, ...]
    largest: float


class Facts(NamedTuple):
    """What a model needs to know of its data: the `glosses` in the order of its outputs, the
    `shape` of a frame, and the `largest` value of a usual sentence, see `Form`. Mean and spread are
    in its checkpoints."""

    glosses: list[str]
    shape: list[int]
    largest: float

    @property
    def form(self) -> Form:
        return Form(tuple(self.shape), self.largest)


class Parts(NamedTuple):
    """The sentences by what they are for, the frames of those for training, and the facts."""

    train: list[Features]
    valid: list[Features]
    test: list[Features]
    frames: dict[Path, int]
    facts: Facts


class Sentences(torch.utils.data.Dataset):
    """Index -> (features [frames, size], tokens [glosses]), landmarks normalised by sentence."""

    def __init__(self, rows: list[Features], glosses: list[str], shape: tuple[int, ...],
                 dominant: bool):  # fmt: skip
        self.tokens = [tokens_of(row, glosses) for row in rows]
        read = functools.partial(features_of, shape=shape, dominant=dominant)
        self.loaded = Loaded(rows, read, "feature files")

    def __len__(self) -> int:
        return len(self.loaded)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        index, features = self.loaded[index]
        return features, torch.tensor(self.tokens[index])


def tokens_of(row: Features, glosses: list[str]) -> list[int]:
    """Class indices: 0 is CTC's blank, 1 what no training sentence holds."""
    known = {gloss: number for number, gloss in enumerate(glosses, UNKNOWN + 1)}
    return [known.get(gloss, UNKNOWN) for gloss in row.glosses]


def features_of(row: Features, shape: tuple[int, ...], dominant: bool) -> torch.Tensor:
    """[frames, size]; arrays [frames, points, 2 or 3] are taken for landmarks. With `dominant`, a
    sentence whose left hand moves most is seen in a mirror."""
    values = load_features(row.path, shape)
    if not are_landmarks(shape):
        return values.flatten(1)
    points = normalised_landmarks(values)
    if dominant and are_numbered(shape):
        points = by_the_right(points)
    return points.flatten(1)


class Varied:
    """A training sentence as another signer, camera or tracker might have given it.

    Landmarks are turned, stretched and, with `flip`, mirrored half of the time; then stretches of
    time and `hidden` of the landmarks (bands of other features) become their mean.
    """

    def __init__(self, shape: tuple[int, ...], mean: torch.Tensor, hidden: float, flip: bool):
        self.shape, self.mean, self.hidden = shape, mean, hidden
        self.flip = flip and are_numbered(shape)
        bands = 0 if are_landmarks(shape) else 2
        self.masks = SpecAugment(band=max(int(hidden * len(mean)), 1), bands=bands, gap=4, gaps=2)

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        if are_landmarks(self.shape):
            points = features.unflatten(1, self.shape)
            if self.flip and torch.rand(()) < 0.5:
                points = mirrored(points)
            features = moved(points).flatten(1)
        features = self.masks(features - self.mean)
        if are_landmarks(self.shape):
            kept = torch.rand(self.shape[0]) >= self.hidden
            features = features * kept.repeat_interleave(self.shape[1])
        return features + self.mean


def readable(
    rows: list[Features], given: Form | None = None, **leeway
) -> tuple[list[Features], dict[Path, int], Form]:
    """The sentences one can train on, their frames, and the form that most have, or that is given.
    `leeway`: of `keep_readable`.

    The others are named and skipped: unreadable, of another width or scale, not finite, without
    glosses, or with more of them than CTC has frames for.
    """
    seen = {}

    def header(row: Features) -> None:
        seen[row.path] = look_at(row.path)
        check_text(row.path, row.glosses, halved(seen[row.path].frames))

    rows = keep_readable(rows, header, "feature files", **leeway)
    shapes = Counter(tuple(seen[row.path].shape) for row in rows)
    form = given or Form(shapes.most_common(1)[0][0], 0.0)
    few = sum(each.bytes for each in seen.values()) <= CHECKED_BYTES
    largest = {}

    def whole(row: Features) -> None:
        if few or tuple(seen[row.path].shape) != form.shape:
            largest[row.path] = float(load_features(row.path, form.shape).abs().max())

    rows = keep_readable(rows, whole, "feature files", **leeway)
    if few and given is None and not are_landmarks(form.shape):  # those have their own spread
        form = form._replace(largest=median(largest[row.path] for row in rows))
    if few and form.largest:
        rows = keep_readable(
            rows,
            lambda row: check_scale(row.path, largest[row.path], form.largest),
            "feature files",
            **leeway,
        )
    return rows, {row.path: seen[row.path].frames for row in rows}, form


def say_strange(rows: list[Features], glosses: list[str]) -> None:
    """Name what the rows hold beside the glosses of the training: it counts as an error."""
    known = {*glosses}
    strange = {g: row.path for row in reversed(rows) for g in row.glosses if g not in known}
    for gloss, path in [*strange.items()][:NAMED]:
        _log.warning("%s: %s is in no training sentence: it counts as an error", path, gloss)
    if len(strange) > NAMED:
        _log.warning("and %d more such glosses", len(strange) - NAMED)


def statistics(sentences: Sentences, places: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Mean and spread of what a model looks at, over the frames of some sentences; `places`."""
    stride = -(-len(sentences) // STATISTICS)
    frames = torch.cat([sentences[i][0] for i in range(0, len(sentences), stride)])
    seen = with_hands(frames.double(), places)
    return seen.mean(0).float(), seen.std(0, correction=0).clamp(min=1e-3).float(), places


def unseen(shape: tuple[int, ...], places: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """In the place of `statistics`, for a model whose checkpoint has them."""
    size = math.prod(shape) + places.shape[1]
    return torch.zeros(size), torch.ones(size), places


def shared_out(data: Path, valid_share: float, by_heart: bool) -> Parts:
    """The sentences of a folder, and what there is to know of them."""
    rows, frames, form = readable(feature_table(data))
    train = valid = rows
    if not by_heart:
        train, valid = split_samples(rows, valid_share, lambda row: row.signer, "signer")
    glosses = sorted({gloss for row in train for gloss in row.glosses})
    say_strange(valid, glosses)
    facts = Facts(glosses, [*form.shape], form.largest)
    return Parts(train, valid, kept_for_testing(rows), frames, facts)


def asked_for(data: Path | None, kept: Kept, valid_share: float, by_heart: bool) -> Parts:
    """The sentences of one split, or none at all; the others need not be there."""
    facts = Facts(**kept.facts)
    parts = Parts([], [], [], {}, facts)
    if kept.split is None:
        return parts

    frames: dict[Path, int] = {}

    def usable(rows: list[Features]) -> list[Features]:
        found, seen, _ = readable(rows, facts.form, **FEW)
        frames.update(seen)
        return found

    rows = feature_table(needed(data, "a folder of .npz features"), kept.split)
    if by_heart and kept.split != "test":
        found = usable(rows)
    else:
        found = samples_of(
            rows, kept.split, valid_share, lambda row: row.signer, "signer", usable
        )  # fmt: skip
    say_strange(found, facts.glosses)
    return parts._replace(frames=frames, **{kept.split: found})


def invented(facts: Facts) -> Invented:
    """Sentences of nothing, of the form of those that a model learned from."""
    size, classes = math.prod(facts.shape), UNKNOWN + 1 + len(facts.glosses)

    def sentence(index: int) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = torch.randint(UNKNOWN + 1, classes, (2 + index % 3,))
        return torch.randn(32 + 9 * index, size), tokens

    return Invented(sentence)


class Recognition:
    """The loss and the figures of either model."""

    def __init__(self, glosses: list[str], smoothing: float, beam: int):
        self.names = ["", "<unknown>", *glosses]
        self.smoothing, self.beam = smoothing, beam

    def loss(self, model: nn.Module, batch: Utterances) -> Loss:
        """CTC in fp32, a sum over glosses. In training, smoothed towards the uniform distribution
        (Kim 2018), the strength counted by gloss."""
        logits, left = model(batch.features, batch.frames)
        smoothing = self.smoothing if model.training else 0.0
        return mixed_ctc(logits, left, batch.readings, smoothing=smoothing, blank=BLANK)

    def measure(self, model: nn.Module, batch: Utterances) -> dict:
        """`wer` by gloss, and `repeated`: sentences in which the model is stuck."""
        logits, left = model(batch.features, batch.frames)
        said = zip(batch.tokens.tolist(), batch.lengths.tolist(), strict=True)
        meant = [self.text(tokens[:length]) for tokens, length in said]
        # What no training sentence holds cannot be recognised, whatever the model says.
        logits[..., UNKNOWN] = -torch.inf
        return recognised(meant, [self.text(tokens) for tokens in self.decoded(logits, left)])

    def decoded(self, logits: torch.Tensor, left: torch.Tensor) -> list:
        """Tokens of each sentence: the best of a beam, or of the best path."""
        if not self.beam:
            return greedy(logits, left, BLANK)
        return [texts[0].tokens for texts in beam_search(logits, left, beam=self.beam, blank=BLANK)]

    def text(self, tokens) -> list[str]:
        return [self.names[token] for token in tokens]

    def predict(self, model: nn.Module, given: str, _out: Path, *, shape, dominant) -> dict:
        """The glosses of an .npz file of features."""
        features = features_of(Features(Path(given), ()), shape, dominant)
        device = model.mean.device
        frames = torch.tensor([len(features)])
        logits, left = model(features[None].to(device), frames.to(device))
        logits[..., UNKNOWN] = -torch.inf
        return {"glosses": " ".join(self.text(self.decoded(logits, left)[0]))}


def read(output: tuple[torch.Tensor, torch.Tensor], batch: Utterances) -> Posteriors:
    """Student and teacher are compared frame by frame; a sentence counts as its glosses do."""
    shares = [n * (1 if share is None else share) for _, n, share in batch.readings]
    return Posteriors(*output, items=sum(shares))


def task(
    data: Path | None,
    *,
    model: str = "teacher",
    teacher: str = "",
    width: int = 160,
    student_width: int = 50,
    student_blocks: int = 5,
    alpha: float = 0.7,
    temperature: float = 3.0,
    dropout: float = 0.2,
    label_smoothing: float = 0.05,
    mixup: float = 0.0,
    augment: bool = True,
    hidden: float = 0.1,
    flip: bool = False,
    dominant: bool = True,
    beam: int = 0,
    valid_share: float = 0.2,
    by_heart: bool = False,
    kept: Kept | None = None,
) -> Task:
    """`data`: .npz features and a table `file,glosses[,signer,split]`.

    - `model`: `teacher` or `student`, which learns from `teacher` (a run's folder, a checkpoint, or
      an earlier stage as `stage:NAME`) where that is named, else from the glosses alone.
    - `width` of the teacher, `student_width` and `student_blocks`; `alpha` and `temperature` of
      distillation. A student has half of the `dropout`.
    - `mixup`: alpha of its Beta distribution, for half of the sentences; 0: none.
    - `augment`: turn, stretch, hide `hidden` of the landmarks and stretches of time.
    - `flip`: mirror half of the training sentences; `dominant`: mirror those in which the left hand
      moves most, in training and later, so that a sign has one form.
    - `beam`: prefixes that decoding follows; 0: the best path.
    - `valid_share` of the signers is held out where the table names no split.
    - `by_heart`: validate on the training sentences: a check, not a training.
    """
    one_of("model", model, ("teacher", "student"))
    all_between([
        ("width", width, 8, 4096), ("student_width", student_width, 8, 4096),
        ("student_blocks", student_blocks, 1, 64), ("alpha", alpha, 0, 1),
        ("temperature", temperature, 0.1, 100), ("dropout", dropout, 0, 0.95),
        ("label_smoothing", label_smoothing, 0, 0.95), ("mixup", mixup, 0, 10),
        ("hidden", hidden, 0, 0.9), ("beam", beam, 0, 1000),
        ("valid_share", valid_share, 0.01, 0.9),
    ])  # fmt: skip
    if kept is None:
        parts = shared_out(needed(data, "a folder of .npz features"), valid_share, by_heart)
    else:
        parts = asked_for(data, kept, valid_share, by_heart)
    glosses, shape = parts.facts.glosses, parts.facts.form.shape
    train, valid, test = (Sentences(rows, glosses, shape, dominant) for rows in parts[:3])
    places = hand_places(shape)
    seen = statistics(train, places) if kept is None else unseen(shape, places)
    classes = UNKNOWN + 1 + len(glosses)

    def build(which: str) -> nn.Module:
        if which == "teacher":
            return Teacher(seen, classes, width, dropout)
        return Student(seen, classes, student_width, student_blocks, dropout / 2)

    varied = train if kept is None or kept.split else invented(parts.facts)
    if augment and kept is None:
        mean = seen[0][: math.prod(shape)]
        varied = Augmented(train, Varied(shape, mean, hidden, flip))
    if mixup and kept is None:
        varied = MixedSequences(varied, mixup, share=0.5, frames_per_token=LEAST_FRAMES)
    figures = Recognition(glosses, label_smoothing, beam)
    lengths = [[parts.frames[row.path] for row in rows] for rows in (parts.train, parts.valid)]
    made = Task(
        model=lambda: build(model),
        train=varied,
        valid=valid,
        collate=pad_utterances,
        loss=figures.loss,
        measure=figures.measure,
        length=lengths[0].__getitem__ if kept is None else None,
        valid_length=lengths[1].__getitem__,
        monitor="wer",
        test=test if len(test) else None,
        predict=functools.partial(figures.predict, shape=shape, dominant=dominant),
        facts=parts.facts._asdict(),
    )
    if model == "teacher" or not teacher or kept is not None:
        return made
    return distilled(
        made, lambda: build("teacher"), teacher, alpha=alpha, temperature=temperature, read=read
    )
