"""Error rates of words and characters: which measures are some, and what their figures mean."""

from __future__ import annotations

import re
from typing import NamedTuple


class Band(NamedTuple):
    """What an error rate up to `most` means. `name`: in a word or two; `advice`: what to do."""

    most: float
    name: str
    advice: str


BANDS = (
    Band(0.15, "production", "good enough to use"),
    Band(0.25, "usable", "a person can correct its outputs; more data, or a longer run"),
    Band(0.50, "rough", "it has learned something: train on, then look at what it confuses"),
    Band(1.00, "early", "it has hardly begun: more epochs, or a higher rate; recipe overfit"),
    Band(float("inf"), "stop and look", "more errors than words: outputs that repeat, tokens that "
         "do not fit the texts, or a decoder that never stops"),
)  # fmt: skip


def band(rate: float) -> Band:
    """The band of an error rate: over 100 %, to 100, to 50, to 25, to 15 % (production).

    A rate that is not a number is for a person to look at.
    """
    return next((each for each in BANDS if rate <= each.most), BANDS[-1])


def is_error_rate(name: str) -> bool:
    """Of words or characters, as its name says: `wer`, `valid_cer`; not `power`."""
    return bool({"wer", "cer"} & {*re.split(r"[^a-z]+", name.lower())})
