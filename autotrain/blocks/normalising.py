"""Transcripts as they are spoken: one case, no punctuation, numbers as words."""

from __future__ import annotations

import re
import unicodedata
from typing import Literal

from autotrain.errors import AutotrainError

ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
    "nineteen",
)  # fmt: skip
TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
SCALES = ("", "thousand", "million", "billion", "trillion")
ORDINALS = {
    "one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth",
    "nine": "ninth", "twelve": "twelfth",
}  # fmt: skip
LARGEST = 10**15 - 1
SPOKEN_SIGNS = frozenset("%&+=@#°×÷<>½¼¾²³")

_NUMBER = re.compile(
    r"(?<![\w.,/])(-?)([0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.([0-9]+))?(st|nd|rd|th)?(?![\w/]|[.,]\d)"
)
_APOSTROPHES = str.maketrans("’ʼ＇", "'''")


def normalised(
    text: str,
    *,
    case: Literal["lower", "upper", "keep"] = "lower",
    punctuation: Literal["drop", "keep"] = "drop",
    numbers: Literal["spell", "refuse"] = "spell",
) -> str:
    """A transcript for training and for comparing.

    Unicode's NFC; spaces as one each; within a word an apostrophe stays, a hyphen parts it.
    `spell`: English words for 7, -3, 1,024, 2.5 and 21st; a year is read as any number. Raises
    AutotrainError, naming them, for digits that are left (1/2, 1990s, numbers from 10^15 on; all
    with `refuse`), and, where punctuation is dropped, for signs that are spoken: $, %, &, +.
    """
    text = unicodedata.normalize("NFC", text).translate(_APOSTROPHES)
    if numbers == "spell":
        text = _NUMBER.sub(_spelled, text)
    left = re.findall(r"\S*\d\S*", text)
    if left:
        raise AutotrainError(
            f"numbers that are not spelled out: {', '.join(map(repr, left[:5]))}",
            "write them as they are spoken",
        )
    if punctuation == "drop":
        text = _words_only(text)
    text = {"lower": text.lower, "upper": text.upper, "keep": text.__str__}[case]()
    return " ".join(text.split())


def _words_only(text: str) -> str:
    """Letters, the marks on them, and apostrophes between letters; spaces for the rest."""
    signs = sorted({c for c in text if c in SPOKEN_SIGNS or unicodedata.category(c) == "Sc"})
    if signs:
        raise AutotrainError(
            f"signs that are spoken: {', '.join(map(repr, signs))}", "write the words for them"
        )
    kept = [c if unicodedata.category(c)[0] in "LM" or c == "'" else " " for c in text]
    return re.sub(r"(?<!\S)'+|'+(?!\S)", " ", "".join(kept))


def _spelled(found: re.Match[str]) -> str:
    sign, whole, fraction, ordinal = found.groups()
    number = int(whole.replace(",", ""))
    digits = whole.lstrip("0") != whole and len(whole) > 1  # 007 is read digit by digit
    if number > LARGEST or len(whole) > 19 or (ordinal and (fraction or sign)):
        return found.group()
    words = " ".join(ONES[int(d)] for d in whole) if digits else cardinal(number)
    if ordinal:
        words = _ordinal(words)
    if fraction:
        words += " point " + " ".join(ONES[int(d)] for d in fraction)
    return ("minus " if sign else "") + words


def cardinal(number: int) -> str:
    """English words for a number from 0 to 10^15 - 1: 1024 is one thousand twenty four."""
    if number < 20:
        return ONES[number]
    if number < 100:
        return TENS[number // 10] + (f" {ONES[number % 10]}" if number % 10 else "")
    if number < 1000:
        rest = f" {cardinal(number % 100)}" if number % 100 else ""
        return f"{ONES[number // 100]} hundred{rest}"
    groups = []
    for scale in SCALES:
        number, group = divmod(number, 1000)
        if group:
            groups.append(f"{cardinal(group)} {scale}".strip())
    return " ".join(reversed(groups))


def _ordinal(words: str) -> str:
    rest, _, last = words.rpartition(" ")
    if last in ORDINALS:
        last = ORDINALS[last]
    else:
        last = f"{last[:-1]}ieth" if last.endswith("y") else f"{last}th"
    return f"{rest} {last}".strip()
