"""A corpus made by several processes; whatever is killed goes on where it was.

Clips are made twenty at a time by a process of its own: espeak-ng keeps a state from clip to
clip, so the same bytes come only from the same twenty in a new process. All is written into
`OUT.part`, each file under another name first, and a batch counts by the digests written behind
it; the folder becomes OUT once the last clip is there.
"""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import os
import random
import sys
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import numpy as np

from autotrain.blocks.alignments import PAUSE, Phone, alignment_path, alignment_text
from autotrain.blocks.corpus.espeak import Espeak, Manner, Spoken
from autotrain.blocks.corpus.sentences import Sentence, sentences
from autotrain.blocks.pitch import pitch, voiced_mean
from autotrain.errors import AutotrainError
from autotrain.files import write_atomic

BATCH = 20  # clips a process makes before it ends
PITCH_HOP = 0.010  # seconds
PART = ".part"
RECIPE = "corpus.json"


@dataclass(frozen=True)
class Recipe:
    """All that the bytes of a corpus follow from, beside the version of espeak-ng.

    `seconds` 0: exactly `clips`; else as many clips as take so many seconds of speech. `voices`,
    `speeds` (words a minute) and `pitches` (0 to 99) are drawn from for each clip.
    """

    clips: int
    seconds: float
    seed: int
    voices: tuple[str, ...]
    speeds: tuple[int, ...]
    pitches: tuple[int, ...]
    rate: int
    format: str
    espeak_ng: str = ""


@dataclass(frozen=True)
class Made:
    """One clip that is whole: its row of the table, and how long it is."""

    row: str
    seconds: float


def manner(recipe: Recipe, number: int) -> Manner:
    """How clip `number` is spoken."""
    chance = random.Random(f"autotrain corpus {recipe.seed} clip {number}")
    return Manner(
        chance.choice(recipe.voices), chance.choice(recipe.speeds), chance.choice(recipe.pitches)
    )


def make(recipe: Recipe, out: Path, jobs: int) -> Iterator[tuple[int, float]]:
    """Make a corpus; after each twenty clips yields how many there are, and their seconds.

    Raises AutotrainError where OUT or another half made corpus is in the way.
    """
    part = _begun(recipe, out)
    rows: list[str] = []
    seconds = 0.0
    with closing(_batches(recipe, part, jobs)) as batches:
        for clip in chain.from_iterable(batches):
            rows.append(clip.row)
            seconds += clip.seconds
            enough = seconds >= recipe.seconds if recipe.seconds else len(rows) == recipe.clips
            if enough or len(rows) % BATCH == 0:
                yield len(rows), seconds
            if enough:
                break
    _drop_others(part, {row.partition("|")[0] for row in rows})
    write_atomic(part / "metadata.csv", "".join(rows))
    os.replace(part, out)


def _begun(recipe: Recipe, out: Path) -> Path:
    """The folder of what is half made: new, or of the same call before it was killed."""
    if out.exists():
        raise AutotrainError(f"{out}: is there already", "name another folder, or remove it")
    part = out.with_name(out.name + PART)
    wanted = json.loads(json.dumps(asdict(recipe)))
    try:
        (part / "wavs").mkdir(parents=True, exist_ok=True)
        old = json.loads((part / RECIPE).read_text()) if (part / RECIPE).exists() else wanted
    except (OSError, ValueError) as error:
        raise AutotrainError(f"{part}: {error}", "remove it, or name another folder") from None
    if old != wanted:
        other = sorted(k for k in wanted if not isinstance(old, dict) or old.get(k) != wanted[k])
        raise AutotrainError(
            f"{part}: half made by another call ({', '.join(other)} differ)",
            "give the same options to go on, or remove it",
        )
    write_atomic(part / RECIPE, json.dumps(wanted, indent=1) + "\n")
    return part


def _batches(recipe: Recipe, part: Path, jobs: int) -> Generator[list[Made]]:
    """What each process made, in order; one more is under way than there are processes."""
    said = sentences(recipe.seed)
    firsts = count(0, BATCH) if recipe.seconds else range(0, recipe.clips, BATCH)
    most = sys.maxsize if recipe.seconds else recipe.clips
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, context, max_tasks_per_child=1)
    waiting: list[Future[list[Made]]] = []
    try:
        for first in firsts:
            texts = list(islice(said, min(BATCH, most - first)))
            waiting.append(pool.submit(make_batch, recipe, part, first, texts))
            if len(waiting) > jobs:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def make_batch(recipe: Recipe, part: Path, first: int, texts: Sequence[Sentence]) -> list[Made]:
    """The clips from `first` on: those of a whole batch that is there, else all made again, since
    each follows from those before it."""
    names = [f"{number:06d}" for number in range(first, first + len(texts))]
    mark = part / "wavs" / f".{first:06d}.json"
    seconds = _kept(mark)
    if len(seconds) != len(texts):
        seconds = _written(recipe, part, first, texts)
    rows = (
        f"{name}|{sentence.text}|{sentence.text}|{manner(recipe, number).voice}|{sentence.split}\n"
        for number, (name, sentence) in enumerate(zip(names, texts, strict=True), start=first)
    )
    return [Made(row, length) for row, length in zip(rows, seconds, strict=True)]


def _written(recipe: Recipe, part: Path, first: int, texts: Sequence[Sentence]) -> list[float]:
    """Speak a batch and write it, last the digests by which it counts; its seconds."""
    espeak = Espeak()
    if espeak.version != recipe.espeak_ng:
        raise AutotrainError(f"espeak-ng {espeak.version}, and {recipe.espeak_ng} began this")
    seconds: list[float] = []
    digests: dict[str, str] = {}
    for number, sentence in enumerate(texts, start=first):
        said = espeak.say(sentence.text, manner(recipe, number))
        samples, phones = heard(said, recipe.rate)
        clip = part / "wavs" / f"{number:06d}.{recipe.format}"
        files = ((clip, _encoded(samples, recipe)),
                 (alignment_path(clip), alignment_text(phones).encode()))  # fmt: skip
        for path, content in files:
            _replace(path, content)
            digests[path.name] = hashlib.sha256(content).hexdigest()
        seconds.append(len(samples) / recipe.rate)
    mark = json.dumps({"seconds": seconds, "sha256": digests})
    _replace(part / "wavs" / f".{first:06d}.json", mark.encode())
    return seconds


def _kept(mark: Path) -> list[float]:
    """The seconds of a batch that is there as it was written; empty where anything is not."""
    try:
        said = json.loads(mark.read_bytes())
        for name, digest in said["sha256"].items():
            if hashlib.sha256((mark.parent / name).read_bytes()).hexdigest() != digest:
                return []
        return [float(each) for each in said["seconds"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def heard(spoken: Spoken, rate: int) -> tuple[Any, list[Phone]]:
    """int16 [samples] at `rate`, and the phonemes with the pitch that is measured in them.

    espeak-ng tells no pitch, save to mbrola's voices; how near the measured one is to what it
    speaks at is tested with a pitch that is told to it.
    """
    hop = round(PITCH_HOP * spoken.rate)
    spans = spoken.spans()
    ends = [end for _, _, end in spans]
    hertz = voiced_mean(pitch(spoken.samples, spoken.rate, hop), [-(-e // hop) for e in ends])
    phones = [
        Phone(name, (end - start) / spoken.rate, 0.0 if name == PAUSE else high)
        for (name, start, end), high in zip(spans, hertz, strict=True)
    ]
    return resampled(spoken.samples, spoken.rate, rate), phones


def resampled(samples: Any, own: int, rate: int) -> Any:
    """int16 [samples] -> [samples * rate / own, up to a sample], through its spectrum."""
    if own == rate:
        return samples
    wave = samples.astype(np.float64)
    step = own // np.gcd(own, rate)
    length = -(-len(wave) // step) * step
    new = length * rate // own
    spectrum = np.fft.rfft(wave, length)[: new // 2 + 1]
    wave = np.fft.irfft(spectrum, new) * (new / length)
    kept = round(len(samples) * rate / own)
    return np.clip(np.round(wave[:kept]), -32768, 32767).astype(np.int16)


def _encoded(samples: Any, recipe: Recipe) -> bytes:
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, samples, recipe.rate, format=recipe.format.upper(), subtype="PCM_16")
    return file.getvalue()


def _replace(path: Path, content: bytes) -> None:
    """A kill leaves the file whole, or none by this name."""
    half = path.with_name(f".{path.name}.half")
    try:
        half.write_bytes(content)
        os.replace(half, path)
    except OSError as error:
        raise AutotrainError(
            f"{path}: {error.strerror}", "free space, and give the same call again to go on"
        ) from None


def _drop_others(part: Path, names: set[str]) -> None:
    """Clips that were made beside those that were wanted, halves of any, and digests."""
    for file in (part / "wavs").iterdir():
        if file.name.startswith(".") or file.stem not in names:
            file.unlink()
