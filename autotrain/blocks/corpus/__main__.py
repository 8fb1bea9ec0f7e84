"""python -m autotrain.blocks.corpus OUT [--clips 200 | --hours 10]: speech by espeak-ng."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from autotrain.blocks.corpus.espeak import Espeak, Manner
from autotrain.blocks.corpus.making import Recipe, make
from autotrain.errors import AutotrainError, UsageError

VOICES = (
    "en-us+m1", "en-us+f2", "en-us+m3", "en-us+f4",
    "en+m2", "en+f1", "en-gb-x-rp+m5", "en-gb-scotland+f3",
)  # fmt: skip
SPEED_RANGE = (80, 350)  # beyond, espeak-ng squeezes what it has spoken
SPEEDS, PITCHES = (140, 150, 160, 170, 180), (35, 42, 50, 58, 65)
RATES, FORMATS = (16_000, 22_050), ("wav", "flac")
TOLD_EVERY = 10.0  # seconds


def main(arguments: Sequence[str] | None = None) -> int:
    """Make a corpus; returns the exit code."""
    try:
        _make(_read(arguments))
    except AutotrainError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenProcessPool:
        print("error: a process that speaks was killed\n\nhint: give the same call again to go on; "
              "with fewer --jobs if memory ran out", file=sys.stderr)  # fmt: skip
        return 1
    except KeyboardInterrupt:
        print("stopped: give the same call again to go on", file=sys.stderr)
        return 130
    return 0


def _read(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m autotrain.blocks.corpus", description=__doc__)
    parser.add_argument("out", type=Path, help="the folder to make")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--clips", type=int, default=200, help="so many clips (default 200)")
    size.add_argument("--hours", type=float, default=0.0, help="so much speech instead")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--voices", default=",".join(VOICES), help="drawn from (default %(default)s)"
    )
    parser.add_argument("--speeds", default=",".join(map(str, SPEEDS)), help="words a minute")
    parser.add_argument("--pitches", default=",".join(map(str, PITCHES)), help="0 to 99")
    parser.add_argument("--rate", type=int, default=RATES[0], choices=RATES, help="hertz")
    parser.add_argument("--format", default=FORMATS[0], choices=FORMATS)
    parser.add_argument("--jobs", type=int, default=0, help="processes (default: the cores)")
    return parser.parse_args(arguments)


def _make(given: argparse.Namespace) -> None:
    espeak = Espeak()
    recipe = Recipe(
        clips=int(_within("--clips", given.clips, 1, 1_000_000)),
        seconds=3600 * _within("--hours", given.hours, 0, 1000),
        seed=given.seed,
        voices=tuple(filter(None, given.voices.split(","))),
        speeds=_numbers("--speeds", given.speeds, *SPEED_RANGE),
        pitches=_numbers("--pitches", given.pitches, 0, 99),
        rate=given.rate,
        format=given.format,
        espeak_ng=espeak.version,
    )
    if not recipe.voices:
        raise UsageError("--voices: none")
    for voice in recipe.voices:
        espeak.say("one", Manner(voice))
    jobs = int(_within("--jobs", given.jobs, 0, 256)) or _cores()
    since = told = time.monotonic()
    for clips, seconds in make(recipe, given.out, jobs):
        if time.monotonic() - told > TOLD_EVERY:
            told = time.monotonic()
            share = seconds / recipe.seconds if recipe.seconds else clips / recipe.clips
            left = (told - since) * (1 / share - 1) if share else 0.0
            print(f"{clips} clips, {seconds / 60:.1f} min; about {left:.0f} s left", flush=True)
    print(f"{given.out}: {clips} clips, {seconds / 60:.1f} min")


def _within(name: str, value: float, low: float, high: float) -> float:
    if not low <= value <= high:
        raise UsageError(f"{name}: {value:g} is not from {low:g} to {high:g}")
    return value


def _numbers(name: str, text: str, low: int, high: int) -> tuple[int, ...]:
    try:
        values = tuple(int(each) for each in text.split(","))
    except ValueError:
        raise UsageError(f"{name}: {text!r} is no list of numbers such as 140,160") from None
    for value in values:
        _within(name, value, low, high)
    return values


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    sys.exit(main())
