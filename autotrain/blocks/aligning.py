"""python -m autotrain.blocks.aligning CORPUS: the table of phonemes beside each clip without one.

Texts become phonemes by espeak-ng, a small network learns them from the corpus itself by CTC, and
torchaudio's forced alignment finds where each is heard.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torchaudio.functional import forced_align

from autotrain.blocks.alignments import Phone, alignment_path, alignment_text
from autotrain.blocks.audio import load_clip, pad_frames
from autotrain.blocks.convolutions import Convolution, mask_of
from autotrain.blocks.ctc import check_text
from autotrain.blocks.layouts import Clip, speech_clips
from autotrain.blocks.losses import smoothed_ctc
from autotrain.blocks.mels import Mels, Normaliser, moments
from autotrain.blocks.samples import keep_readable
from autotrain.blocks.speaking import ELSE, phonemes_of
from autotrain.blocks.units import BLANK, Units, symbols
from autotrain.errors import AutotrainError
from autotrain.files import write_atomic

MELS = Mels(window=400, hop=160, n_fft=512, bands=40)  # a frame each 10 ms
WIDTH, LAYERS, KERNEL = 128, 4, 5  # each frame sees 80 ms to either side
RATE, BATCH = 2e-3, 8


class Utterance(NamedTuple):
    """A clip's spectrum [frames, bands], its length in seconds, and its phonemes as units [n]."""

    clip: Clip
    mels: torch.Tensor
    seconds: float
    units: torch.Tensor


class Aligner(nn.Module):
    """[batch, frames, bands] of which `lengths` [batch] count -> logits [batch, frames, units]."""

    def __init__(self, usual: tuple[torch.Tensor, torch.Tensor], units: int) -> None:
        super().__init__()
        self.normal = Normaliser(*usual)
        sizes = [len(usual[0]), *[WIDTH] * LAYERS]
        self.layers = nn.ModuleList(
            Convolution(given, WIDTH, KERNEL, shape=nn.SiLU) for given in sizes[:-1]
        )
        self.out = nn.Linear(WIDTH, units)

    def forward(self, mels: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """What is given for the padding does not matter."""
        mask = mask_of(lengths, mels.shape[1])
        lanes = self.normal(mels).transpose(1, 2) * mask
        for layer in self.layers:
            lanes = layer(lanes, mask)
        logits: torch.Tensor = self.out(lanes.transpose(1, 2))
        return logits


def aligned(log_probs: torch.Tensor, units: torch.Tensor) -> list[int]:
    """Log-probabilities [frames, units], the blank's first, and what is said [n] -> the frames of
    each, which add up. What the best path leaves blank is shared by its neighbours.

    Raises AutotrainError where there are fewer frames than that takes.
    """
    path, _ = forced_align(log_probs[None].float(), units[None].to(torch.int32), blank=BLANK)
    tokens = path[0].tolist()
    begins, ends, last = [], [], BLANK
    for frame, token in enumerate(tokens):
        if token != BLANK:
            if token != last:
                begins.append(frame)
                ends.append(frame)
            ends[-1] = frame + 1
        last = token
    middles = [(end + begin + 1) // 2 for end, begin in zip(ends, begins[1:], strict=False)]
    borders = [0, *middles, len(tokens)]
    return [end - begin for begin, end in itertools.pairwise(borders)]


def learn(spoken: Sequence[Utterance], units: Units, epochs: int, seed: int = 0) -> Aligner:
    """An aligner that has gone through the clips `epochs` times."""
    torch.manual_seed(seed)
    model = Aligner(moments(each.mels for each in spoken), units.count)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    for _ in range(epochs):
        for batch in _batches(spoken):
            mels, frames = pad_frames([each.mels for each in batch])
            texts = pad_sequence([each.units for each in batch], batch_first=True)
            lengths = torch.tensor([len(each.units) for each in batch])
            made = smoothed_ctc(model(mels, frames), frames, texts, lengths)
            optimizer.zero_grad()
            (made.total / made.weight).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return model


def _batches(spoken: Sequence[Utterance]) -> Iterator[list[Utterance]]:
    order = torch.randperm(len(spoken)).tolist()
    for first in range(0, len(order), BATCH):
        yield [spoken[i] for i in order[first : first + BATCH]]


@torch.no_grad()
def durations(model: Aligner, spoken: Utterance) -> list[int]:
    """Frames of each phoneme of a clip."""
    logits = model(spoken.mels[None], torch.tensor([len(spoken.mels)]))
    return aligned(logits[0].log_softmax(dim=-1), spoken.units)


def read(clips: Sequence[Clip], voice: str) -> tuple[list[Utterance], Units]:
    """The clips with their phonemes, and these as units. Those that cannot be read, without words
    or with fewer frames than phonemes, are named and skipped."""
    heard: dict[Clip, tuple[torch.Tensor, float, list[str]]] = {}

    def check(clip: Clip) -> None:
        if not clip.text.strip():
            raise AutotrainError(f"{clip.path}: an empty transcript")
        try:
            names = phonemes_of(clip.text, [v for v in (clip.speaker, voice) if v])
        except AutotrainError as error:
            raise AutotrainError(f"{clip.path}: {error.message}", error.hint) from None
        samples = load_clip(clip.path, MELS.rate)
        mels = MELS(samples)
        check_text(clip.path, names, len(mels))
        heard[clip] = mels, len(samples) / MELS.rate, names

    kept = keep_readable(clips, check, "clips", 2)
    units = symbols([names for _, _, names in heard.values()])
    spoken = []
    for clip in kept:
        mels, seconds, names = heard[clip]
        spoken.append(Utterance(clip, mels, seconds, torch.tensor(units.encode(" ".join(names)))))
    return spoken, units


def table(spoken: Utterance, units: Units, frames: Sequence[int]) -> str:
    """As it stands beside the clip; the pitch is left to be measured."""
    share = spoken.seconds / sum(frames)
    names = units.decode(spoken.units).split()
    return alignment_text(
        Phone(name, count * share) for name, count in zip(names, frames, strict=True)
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the tables that a corpus lacks; returns the exit code."""
    parser = argparse.ArgumentParser("python -m autotrain.blocks.aligning", description=__doc__)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--voice", default=ELSE, help="of espeak-ng, to read by (%(default)s)")
    parser.add_argument("--epochs", type=int, default=20)
    given = parser.parse_args(arguments)
    try:
        clips = [c for c in speech_clips(given.corpus) if not alignment_path(c.path).exists()]
        if not clips:
            print(f"{given.corpus}: a table is beside each clip already")
            return 0
        spoken, units = read(clips, given.voice)
        model = learn(spoken, units, given.epochs)
        for each in spoken:
            write_atomic(alignment_path(each.clip.path), table(each, units, durations(model, each)))
    except AutotrainError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{given.corpus}: {len(spoken)} tables written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
