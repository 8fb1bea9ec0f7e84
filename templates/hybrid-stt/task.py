"""Speech to text in four stages: an encoder that guesses what it may not hear, CTC, an attention
decoder, and all of it together.

python -m autotrain.blocks.corpus speech --hours 1
autotrain plan speech --template hybrid-stt
autotrain run plan.toml
"""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from autotrain import Kept, Loss, Task
from autotrain.blocks.audio import load_clip, pad_frames
from autotrain.blocks.conformer import Conformer
from autotrain.blocks.ctc import greedy
from autotrain.blocks.cutting import cut_at_pauses
from autotrain.blocks.decoder import AttentionDecoder, taught
from autotrain.blocks.error_rates import character_errors, recognised
from autotrain.blocks.invented import Invented
from autotrain.blocks.joint_search import Search, joint_search
from autotrain.blocks.layouts import Clip, speech_clips
from autotrain.blocks.losses import sequence_cross_entropy, smoothed_ctc
from autotrain.blocks.masking import SpecAugment
from autotrain.blocks.mels import SPEEDS, Mels, Normaliser, moments
from autotrain.blocks.normalising import language_of
from autotrain.blocks.options import all_between, needed, one_of
from autotrain.blocks.pretraining import Guessed, Guesses, Names, pad_guesses
from autotrain.blocks.repeating import without_loops
from autotrain.blocks.samples import FEW, keep_readable
from autotrain.blocks.spoken import Spectra
from autotrain.blocks.transcripts import (
    Sides,
    clips_up_to,
    insist_on_both,
    long_enough,
    readable_texts,
    side,
    sides,
    within_units,
)
from autotrain.blocks.units import FIRST, KeptUnits, Units, pieces

GOALS = ("encoder", "ctc", "decoder", "joint")  # each stage's, in order
MELS = Mels()  # 16 kHz, 80 bands, 80 frames a second
FRAMES, PIECES = 32, 8  # what batches are padded to multiples of: few shapes, which come again
NAMES = 256  # what the encoder tells apart before it knows any text
CHECKED_SECONDS = 600.0  # a corpus up to here is decoded at once, a larger one checked by header
STATISTICS = 200  # clips, evenly spread, for mean and spread of each band


@dataclass(frozen=True)
class Sizes:
    """Of encoder and decoder: `width` of both, `blocks` of one and `layers` of the other."""

    width: int
    heads: int
    blocks: int
    layers: int
    kernel: int
    dropout: float


class Facts(NamedTuple):
    """What a model needs to know of its corpus: the `language` by which its transcripts were
    normalised, its `units`, as `Units.record` has them, and each band's mean and deviation."""

    language: str
    units: dict
    mean: list[float]
    deviation: list[float]

    @property
    def seen(self) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.tensor(self.mean), torch.tensor(self.deviation)


class Parts(NamedTuple):
    """The clips by what they are for, the seconds of each, and the facts."""

    sides: Sides
    seconds: dict[Clip, float]
    facts: Facts


class Hearing(nn.Module):
    """Log-mel spectra, normalised, through a Conformer: a quarter of the frames is left."""

    def __init__(self, seen: tuple[torch.Tensor, torch.Tensor], sizes: Sizes):
        super().__init__()
        self.normalise = Normaliser(*seen)
        self.encoder = Conformer(
            MELS.bands, sizes.width, sizes.blocks, sizes.heads,
            kernel=sizes.kernel, dropout=sizes.dropout,
        )  # fmt: skip

    def hear(self, features: torch.Tensor, frames: torch.Tensor):
        """[batch, time, bands], [batch] -> [batch, ceil(time / 4), width], [batch]."""
        return self.encoder(self.normalise(features), frames.to(features.device))


class Guesser(Hearing):
    """(features, frames) -> logits [batch, ceil(time / 4), NAMES] of what stands there."""

    def __init__(self, seen: tuple[torch.Tensor, torch.Tensor], sizes: Sizes):
        super().__init__(seen, sizes)
        self.guess = nn.Linear(sizes.width, NAMES)

    def forward(self, features: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        return self.guess(self.hear(features, frames)[0])


class Output(NamedTuple):
    """Logits [batch, ceil(time / 4), units] of which `left` [batch] count, and of what follows
    each unit given: [batch, given, units]."""

    ctc: torch.Tensor
    left: torch.Tensor
    written: torch.Tensor | None


class Recogniser(Hearing):
    """(features, frames, units given) -> Output. The units are in every checkpoint."""

    def __init__(
        self, seen: tuple[torch.Tensor, torch.Tensor], sizes: Sizes, units: Units, writes: bool
    ):
        super().__init__(seen, sizes)
        self.units = KeptUnits(units)
        self.ctc = nn.Linear(sizes.width, units.count)
        self.decoder = None
        if writes:
            self.decoder = AttentionDecoder(
                units.count, sizes.width, sizes.layers, sizes.heads, dropout=sizes.dropout
            )

    def forward(self, features: torch.Tensor, frames: torch.Tensor, given: torch.Tensor) -> Output:
        heard, left = self.hear(features, frames)
        written = None if self.decoder is None else self.decoder(given, heard, left)
        return Output(self.ctc(heard), left, written)


@dataclass(frozen=True)
class Share:
    """CTC's share of the joint loss: from `first` to `last` in so many equal steps of an epoch."""

    first: float
    last: float
    epochs: int = 0

    def at(self, epoch: int) -> float:
        left = max(1 - epoch / self.epochs, 0.0) if self.epochs else 0.0
        return self.last + (self.first - self.last) * left


class Sample(NamedTuple):
    """`features` [frames, bands], `units` [units], and CTC's `share` of the loss."""

    features: torch.Tensor
    units: list[int]
    share: float


class Sentences(torch.utils.data.Dataset):
    """Index -> Sample; in training with `masks`, behind which lies the mean [bands]."""

    def __init__(self, spectra: Spectra, units: Units, mean: torch.Tensor, share: Share,
                 masks: SpecAugment | None = None):  # fmt: skip
        self.spectra, self.units, self.mean = spectra, units, mean
        self.share, self.masks = share, masks
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.spectra)

    def __getitem__(self, index: int) -> Sample:
        clip, bands = self.spectra[index]
        if self.masks is not None:
            bands = self.masks(bands - self.mean) + self.mean
        return Sample(bands, self.units.encode(clip.text), self.share.at(self.epoch))


class Spoken(NamedTuple):
    """A batch: `features` [batch, longest, bands] of which `frames` [batch] count; `units` [batch,
    most] of which `lengths` [batch] count; what the decoder is `given` and its `aims` [batch, most
    + 1 or a few more]; CTC's `share` []."""

    features: torch.Tensor
    frames: torch.Tensor
    units: torch.Tensor
    lengths: torch.Tensor
    given: torch.Tensor
    aims: torch.Tensor
    share: torch.Tensor


def pad(samples: list[Sample]) -> Spoken:
    """Samples of one epoch as a batch."""
    texts = [sample.units for sample in samples]
    rows = [torch.tensor(text, dtype=torch.long) for text in texts]
    return Spoken(
        *pad_frames([sample.features for sample in samples], FRAMES),
        pad_sequence(rows, batch_first=True),
        torch.tensor([len(text) for text in texts]),
        *taught(texts, PIECES),
        torch.tensor(samples[0].share),
    )


def guesses(model: nn.Module, batch: Guessed) -> torch.Tensor:
    """Logits [batch, most, NAMES], those of padding left out."""
    return model(batch.features, batch.frames)[:, : batch.names.shape[1]]


def guess_loss(model: nn.Module, batch: Guessed) -> Loss:
    """Cross-entropy, summed over what is hidden."""
    return sequence_cross_entropy(guesses(model, batch), batch.names)


def guess_measure(model: nn.Module, batch: Guessed) -> dict:
    """`guessed`: the share of hidden names that are right."""
    right = guesses(model, batch).argmax(dim=-1) == batch.names
    return {"guessed": (right.sum(), (batch.names >= 0).sum())}


class Recognition:
    """Loss, figures and transcripts of a Recogniser. `search` None: CTC's best path. It was trained
    on clips of up to `longest` seconds."""

    def __init__(
        self, goal: str, units: Units, smoothing: float, search: Search | None, longest: float
    ):
        self.goal, self.units, self.smoothing, self.search = goal, units, smoothing, search
        self.longest = longest

    def loss(self, model: nn.Module, batch: Spoken) -> Loss:
        """CTC is summed over units, in fp32; attention over units and ends. Together: share x CTC
        + (1 - share) x attention."""
        out = model(batch.features, batch.frames, batch.given)
        if self.goal == "ctc":
            return smoothed_ctc(out.ctc, out.left, batch.units, batch.lengths)
        smoothing = self.smoothing if model.training else 0.0
        written = sequence_cross_entropy(out.written, batch.aims, smoothing=smoothing)
        if self.goal == "decoder":
            return written
        ctc = smoothed_ctc(out.ctc, out.left, batch.units, batch.lengths)
        return Loss(
            total=batch.share * ctc.total + (1 - batch.share) * written.total,
            weight=written.weight,
            parts={"ctc": ctc.total, "attention": written.total},
        )

    def measure(self, model: nn.Module, batch: Spoken) -> dict:
        """`wer`, `cer`, and `repeated`: transcripts that are loops."""
        rows = zip(batch.units.tolist(), batch.lengths.tolist(), strict=True)
        meant = [self.units.decode(row[:length]) for row, length in rows]
        said = self.transcripts(model, batch.features, batch.frames)
        return {**recognised(meant, said), "cer": character_errors(meant, said)}

    def transcripts(self, model: nn.Module, features: torch.Tensor, frames: torch.Tensor):
        """[batch, time, bands], [batch] -> a text for each, as it was found."""
        heard, left = model.hear(features, frames)
        ctc = model.ctc(heard).float().log_softmax(dim=-1)
        if self.search is None or model.decoder is None:
            return [self.units.decode(text) for text in greedy(ctc, left)]
        each = zip(heard, ctc, left.tolist(), strict=True)
        return [self.searched(model.decoder, h[:n], c[:n]) for h, c, n in each]

    def searched(self, decoder: nn.Module, heard: torch.Tensor, ctc: torch.Tensor) -> str:
        """The text of one clip: [frames, width] and CTC's log-probabilities [frames, units].

        In fp32: of products as small as these a lower precision makes nothing but casts.
        """
        heard, frames = heard.float(), torch.tensor([len(heard)], device=heard.device)

        def ahead(written: torch.Tensor) -> torch.Tensor:
            many = len(written)
            memory, lengths = heard.expand(many, -1, -1), frames.expand(many)
            logits = decoder(written.to(heard.device), memory, lengths)
            return logits[:, -1].log_softmax(dim=-1)

        with torch.autocast(heard.device.type, enabled=False):
            return self.units.decode(joint_search(ctc, ahead, self.search)[0].units)

    @torch.no_grad()
    def predict(self, model: nn.Module, given: str, _out: Path) -> dict:
        """A clip's transcript; a phrase that would be said over and over is said once. A clip that
        is longer than those of the training is heard in pieces, cut where it is quiet."""
        said = []
        for piece in cut_at_pauses(load_clip(Path(given), MELS.rate), MELS.rate, self.longest):
            bands = MELS(piece)
            features = bands[None].to(model.ctc.weight.device)
            (text,) = self.transcripts(model.eval(), features, torch.tensor([len(bands)]))
            said += without_loops(text.split())
        return {"transcript": " ".join(said)}


def readable(clips: list[Clip], max_seconds: float, language: str, **leeway) -> dict[Clip, float]:
    """The clips that can be learned from, and their seconds; others are named and skipped: without
    a sound or a transcript that can be read, or too long. `leeway`: of `keep_readable`."""
    seconds = clips_up_to(max_seconds, readable_texts(clips, language, **leeway), **leeway)
    if sum(seconds.values()) > CHECKED_SECONDS:
        return seconds
    kept = keep_readable([*seconds], lambda c: load_clip(c.path, MELS.rate), "clips", **leeway)
    return {clip: seconds[clip] for clip in kept}


def frames_of(seconds: float) -> int:
    """Frames of a clip."""
    return MELS.frames(int(seconds * MELS.rate))


def usable(parts: Sides, units: Units, seconds: dict[Clip, float], speed: float, **leeway) -> Sides:
    """Those whose transcripts the units can write, and CTC's frames can hold at that speed."""
    left = {clip: -(-frames_of(each / speed) // 4) for clip, each in seconds.items()}
    clips = within_units([*{clip: None for part in parts for clip in part}], units, **leeway)
    kept = {*long_enough(clips, units, left.__getitem__, **leeway)}
    return Sides(*([clip for clip in part if clip in kept] for part in parts))


def shared_out(
    data: Path, valid_share: float, max_seconds: float, language: str, count: int, by_heart: bool,
    fastest: float,
) -> Parts:  # fmt: skip
    """The clips of a corpus, and what there is to know of them: `count` word pieces among it."""
    clips = speech_clips(data)
    language = language or language_of(clip.text for clip in clips)
    seconds = readable(clips, max_seconds, language)
    parts = Sides([*seconds], [*seconds], []) if by_heart else sides([*seconds], valid_share)
    units = pieces([clip.text for clip in parts.train], count)
    parts = insist_on_both(usable(parts, units, seconds, fastest))
    seen = (each.tolist() for each in statistics(parts.train))
    return Parts(parts, seconds, Facts(language, units.record(), *seen))


def asked_for(
    data: Path | None, kept: Kept, valid_share: float, max_seconds: float, by_heart: bool,
    fastest: float,
) -> Parts:  # fmt: skip
    """The clips of one split, or none at all; the others need not be there."""
    facts, parts = Facts(**kept.facts), Sides([], [], [])
    if kept.split is None:
        return Parts(parts, {}, facts)
    look = functools.partial(readable, max_seconds=max_seconds, language=facts.language, **FEW)
    clips = speech_clips(needed(data, "a corpus of clips with transcripts"), kept.split)
    whole = by_heart and kept.split != "test"
    seconds = look(clips) if whole else side(clips, kept.split, valid_share, look)
    parts = parts._replace(**{kept.split: [*seconds]})
    if seconds:
        parts = usable(parts, Units.of(facts.units), seconds, fastest, **FEW)
    return Parts(parts, seconds, facts)


def invented(units: Units) -> Invented:
    """Clips of nothing, as `Spectra` has them: of so many frames that CTC can write their units."""

    def clip(index: int) -> tuple[Clip, torch.Tensor]:
        numbers = torch.randint(FIRST, units.count, (3 + 2 * index,)).tolist()
        text = units.decode(numbers)
        return Clip(Path(), text), torch.randn(8 * len(text) + 64 + 24 * index, MELS.bands)

    return Invented(clip)


def statistics(clips: list[Clip]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation of each band, over the frames of some clips."""
    spectra = Spectra(clips[:: -(-len(clips) // STATISTICS)], MELS)
    return moments(spectra[i][1] for i in range(len(spectra)))


def masks() -> SpecAugment:
    """Milder than for LibriSpeech: clips of a few seconds, of which each word counts."""
    return SpecAugment(band=15, bands=2, gap=30, gaps=2, gap_share=0.15)


def task(
    data: Path | None,
    *,
    goal: str = "joint",
    width: int = 144,
    heads: int = 4,
    blocks: int = 3,
    layers: int = 2,
    kernel: int = 15,
    units: int = 300,
    dropout: float = 0.1,
    label_smoothing: float = 0.1,
    ctc_weight: float = 0.5,
    ctc_weight_first: float = 0.5,
    anneal_epochs: int = 0,
    augment: bool = True,
    beam: int = 4,
    search_ctc_weight: float = 0.3,
    length_power: float = 1.0,
    repetition: float = 1.2,
    valid_share: float = 0.05,
    max_seconds: float = 30.0,
    language: str = "",
    by_heart: bool = False,
    kept: Kept | None = None,
) -> Task:
    """`data`: clips with transcripts, in LJSpeech's, LibriSpeech's or Common Voice's layout.

    - `goal`: what is learned, one of GOALS; the stages say which.
    - `width`, `heads`, `blocks` and `kernel` of the Conformer, `layers` of the decoder, `units`:
      word pieces, made of the training transcripts.
    - `label_smoothing`: of attention.
    - `ctc_weight`: CTC's share of the joint loss; over the first `anneal_epochs` it comes from
      `ctc_weight_first`.
    - `augment`: 0.9, 1 or 1.1 times as fast; bands and stretches of time hidden.
    - `beam`: texts that the joint search follows (0: CTC's best path); `search_ctc_weight`,
      `length_power` and `repetition` are the search's own.
    - `valid_share` of the sentences is held out where the corpus names no split.
    - `max_seconds`: longer clips are left out; to be transcribed they are cut into pieces.
    - `language` of the transcripts, a code such as `de`; empty: English and Turkish are told by the
      words. In English, numbers become words; others have their own small letters.
    - `by_heart`: validate on the training clips: a check, not a training.
    """
    one_of("goal", goal, GOALS)
    all_between([
        ("width", width, 8, 4096), ("heads", heads, 1, 64), ("blocks", blocks, 1, 64),
        ("layers", layers, 1, 64), ("kernel", kernel, 1, 127), ("units", units, 8, 32_000),
        ("dropout", dropout, 0, 0.95), ("label_smoothing", label_smoothing, 0, 0.95),
        ("ctc_weight", ctc_weight, 0, 1), ("ctc_weight_first", ctc_weight_first, 0, 1),
        ("anneal_epochs", anneal_epochs, 0, 100_000), ("beam", beam, 0, 100),
        ("search_ctc_weight", search_ctc_weight, 0, 1), ("length_power", length_power, 0, 2),
        ("repetition", repetition, 1, 10), ("valid_share", valid_share, 0.01, 0.9),
        ("max_seconds", max_seconds, 0.5, 3600),
    ])  # fmt: skip
    speeds = SPEEDS if augment else (1.0,)
    if kept is None:
        corpus = needed(data, "a corpus of clips with transcripts")
        parts = shared_out(corpus, valid_share, max_seconds, language, units, by_heart, max(speeds))
    else:
        parts = asked_for(data, kept, valid_share, max_seconds, by_heart, max(speeds))
        augment, speeds = False, (1.0,)
    seen, table = parts.facts.seen, Units.of(parts.facts.units)
    train, *held = parts.sides
    lengths = [frames_of(parts.seconds[clip] / min(speeds)) for clip in train]
    held_lengths = [frames_of(parts.seconds[clip]) for clip in held[0]]
    spectra = [Spectra(train, MELS, speeds), *(Spectra(part, MELS) for part in held)]
    if kept is not None and kept.split is None:
        spectra[0] = invented(table)
    sizes = Sizes(width, heads, blocks, layers, kernel, dropout)
    if goal == "encoder":
        names = Names(*seen, NAMES)
        sets = [Guesses(each, names) for each in spectra]
        return Task(
            model=lambda: Guesser(seen, sizes),
            train=sets[0],
            valid=sets[1],
            test=sets[2] if len(sets[2]) else None,
            collate=functools.partial(pad_guesses, multiple=FRAMES),
            loss=guess_loss,
            measure=guess_measure,
            length=lengths.__getitem__,
            valid_length=held_lengths.__getitem__,
            facts=parts.facts._asdict(),
        )
    first = ctc_weight_first if anneal_epochs else ctc_weight
    hidden = masks() if augment else None
    sets = [Sentences(spectra[0], table, seen[0], Share(first, ctc_weight, anneal_epochs), hidden)]
    sets += [Sentences(each, table, seen[0], Share(ctc_weight, ctc_weight)) for each in spectra[1:]]
    search = Search(beam, search_ctc_weight, length_power, repetition) if beam else None
    figures = Recognition(goal, table, label_smoothing, search, max_seconds)
    return Task(
        model=lambda: Recogniser(seen, sizes, table, writes=goal != "ctc"),
        train=sets[0],
        valid=sets[1],
        test=sets[2] if len(sets[2]) else None,
        collate=pad,
        loss=figures.loss,
        measure=figures.measure,
        predict=figures.predict,
        length=lengths.__getitem__,
        valid_length=held_lengths.__getitem__,
        monitor="wer",
        facts=parts.facts._asdict(),
    )
