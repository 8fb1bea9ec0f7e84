"""Numbers in English words."""

from __future__ import annotations

import re

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

_NUMBER = re.compile(
    r"(?<![\w.,/])(-?)([0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.([0-9]+))?(st|nd|rd|th)?(?![\w/]|[.,]\d)"
)


def in_words(text: str) -> str:
    """Words for 7, -3, 1,024, 2.5 and 21st; a year is read as any number, 007 digit by digit.

    Other digits (1/2, 1990s, numbers from 10^15 on) stay.
    """
    return _NUMBER.sub(_spelled, text)


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
