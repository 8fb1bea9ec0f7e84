"""Transcripts as they are spoken: one case, no punctuation, of any language and script."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from typing import Literal

from autotrain.blocks.english_numbers import in_words
from autotrain.errors import AutotrainError

SPOKEN_SIGNS = frozenset("%&+=@#°×÷<>½¼¾²³٪‰")
ZWNJ, ZWJ = "\u200c", "\u200d"  # part or join letters within a word of Persian, Hindi, ...
WITHIN = frozenset(f"'·״{ZWNJ}{ZWJ}")  # stay between letters: don't, col·legi, צה״ל, می‌خواهم
IN_NUMBERS = frozenset(".,:/٫٬")  # stay between digits
DOTLESS = frozenset(("tr", "az", "crh", "gag", "tt"))  # languages whose I is ı, and whose i is İ
VIRAMA = 9  # its class of combining: a joiner behind it shows half a letter, at a word's end too
# Forms of a letter that are none of its own: full and half width, Arabic's by the place in a word.
FORMS = ("<wide>", "<narrow>", "<isolated>", "<initial>", "<medial>", "<final>")
ENGLISH = frozenset(("the", "of", "and", "to", "that", "with", "for", "you"))
ENGLISH_SHARE, DOTLESS_SHARE = 0.05, 0.005  # of all words, of all letters

_ALIKE = {ord(c): "'" for c in "’‘ʼ´`׳"} | {ord("−"): "-", ord("ـ"): None}
_LANGUAGE = re.compile(r"([a-z]{2,3})([-_][a-z0-9]+)*", re.IGNORECASE)


def normalised(
    text: str,
    *,
    language: str = "",
    case: Literal["lower", "upper", "keep"] = "lower",
    punctuation: Literal["drop", "keep"] = "drop",
    numbers: Literal["spell", "keep", "refuse"] = "spell",
) -> str:
    """A transcript for training and for comparing.

    Unicode's NFC; spaces as one each; letters and marks of all scripts, and what joins them within
    a word: apostrophes, the joiners of Persian and Hindi. A hyphen parts a word. What cannot be
    seen (soft hyphens, marks of direction) goes. Letters are lowered, not case-folded: ß is not ss.

    `language`: a code such as `en`, `de` or `fa-IR`; empty: not known. Turkish and its like have
    their own I. `spell`: in English, words for 7, -3, 1,024, 2.5 and 21st; in other languages, of
    which no words are known here, numbers stay as they are written, as they do with `keep`.

    Raises AutotrainError, naming them, for digits that cannot be spelled in English (1/2, 1990s,
    numbers from 10^15 on), for any with `refuse`, and, where punctuation is dropped, for signs that
    are spoken: $, %, &, +.
    """
    spoken = main_language(language)
    text = _plain(text)
    if numbers == "spell" and spoken == "en":
        text = in_words(text)
    if numbers == "refuse" or (numbers == "spell" and spoken == "en"):
        _refuse_digits(text)
    if punctuation == "drop":
        text = _words_only(text)
    cased = unicodedata.normalize("NFC", _cased(text, case, dotless=spoken in DOTLESS))
    return " ".join(cased.split())


def main_language(code: str) -> str:
    """`en` of `en-US`; empty of none. Raises AutotrainError for what is no such code."""
    found = _LANGUAGE.fullmatch(code)
    if code and found is None:
        raise AutotrainError(f"language {code!r} is no code", "such as en, de, fa or pt-BR")
    return found.group(1).lower() if found else ""


def language_of(texts: Iterable[str]) -> str:
    """`en` and `tr` where texts are of English or in letters of Turkish, which matters to
    `normalised`; empty for any other language, and where they are too few to tell.

    English by its commonest words, eight of which are a fifth of a usual text; Turkish by ı and İ,
    which are every twentieth letter of it.
    """
    words = Counter(word for text in texts for word in re.findall(r"[^\W\d_]+", text))
    letters = sum(len(word) * count for word, count in words.items())
    dotless = sum((w.count("ı") + w.count("İ")) * count for w, count in words.items())
    english = sum(count for word, count in words.items() if word.lower() in ENGLISH)
    if letters and dotless >= DOTLESS_SHARE * letters:
        return "tr"
    return "en" if english and english >= ENGLISH_SHARE * words.total() else ""


def _plain(text: str) -> str:
    """NFC, each letter in one form, apostrophes in one, nothing that cannot be seen but joiners."""
    if text.isascii():
        return text.translate(_ALIKE)
    one = "".join(_form(c) for c in text)
    return unicodedata.normalize("NFC", one.translate(_ALIKE))


def _form(c: str) -> str:
    if c == "\u200b":  # where a word of Thai or Khmer ends
        return " "
    if unicodedata.category(c) == "Cf" and c not in WITHIN:
        return ""
    if "\ufe00" <= c <= "\ufe0f" or "\U000e0100" <= c <= "\U000e01ef":  # how a sign is to be drawn
        return ""
    folded = unicodedata.decomposition(c).startswith(FORMS)
    return unicodedata.normalize("NFKC", c) if folded else c


def _refuse_digits(text: str) -> None:
    left = re.findall(r"\S*\d\S*", text)
    if left:
        raise AutotrainError(
            f"numbers that are not spelled out: {', '.join(map(repr, left[:5]))}",
            "write them as they are spoken",
        )


def _words_only(text: str) -> str:
    """Letters, the marks on them, digits, and what stands within words; spaces for the rest."""
    signs = sorted({c for c in text if c in SPOKEN_SIGNS or unicodedata.category(c) == "Sc"})
    if signs:
        raise AutotrainError(
            f"signs that are spoken: {', '.join(map(repr, signs))}", "write the words for them"
        )
    kept = [" "]
    for c, after in zip(text, (text + " ")[1:], strict=True):
        kept.append(c if _stays(c, kept[-1], after) else " ")
    return "".join(kept)


def _stays(c: str, before: str, after: str) -> bool:
    """Whether a character is of a word, between what is kept before it and what follows."""
    if _is_mark(c):
        return before != " "
    if _is_letter(c) or c.isdecimal():
        return True
    if c == ZWJ and unicodedata.combining(before) == VIRAMA:
        return True
    if c in WITHIN:
        return before not in WITHIN and before != " " and (_is_letter(after) or _is_mark(after))
    if c in IN_NUMBERS:
        return before.isdecimal() and after.isdecimal()
    return c == "-" and before == " " and after.isdecimal()


def _is_letter(c: str) -> bool:
    return unicodedata.category(c)[0] == "L" or c == "〇"


def _is_mark(c: str) -> bool:
    return unicodedata.category(c)[0] == "M"


def _cased(text: str, case: str, *, dotless: bool) -> str:
    if case == "upper":
        return (text.translate({ord("i"): "İ"}) if dotless else text).upper()
    if case == "lower":
        # Of İ alone Python makes an i with a second dot, in whichever language.
        return text.translate({ord("İ"): "i"} | ({ord("I"): "ı"} if dotless else {})).lower()
    return text
