"""Word and character error rates as sums, the bands that tell what they mean, stuck outputs."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import jiwer

from autotrain.blocks.repeating import repeated_share
from autotrain.rates import BANDS, Band, band

__all__ = ["BANDS", "Band", "band", "character_errors", "recognised", "word_errors"]

Text = str | Sequence[str]

# Scripts without spaces between words: Thai, Lao, Burmese, Khmer; kana and Han. Of the first a mark
# belongs to the letter before it.
_MARKED = "".join(
    chr(code)
    for first, last in ((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF))
    for code in range(first, last + 1)
    if unicodedata.category(chr(code)) == "Lo"
)
_HAN = "\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_NEXT_WORD = re.compile(f"(?=[{_MARKED}{_HAN}])|(?<=[{_HAN}])")


def word_errors(references: Sequence[Text], hypotheses: Sequence[Text]) -> tuple[int, int]:
    """(substitutions, deletions and insertions; words of the references): a figure of `measure`.

    A text is a string, see `words_of`, or its words (glosses) one by one. Of an empty reference
    every word of the hypothesis is an error, and there is none to divide by.
    """
    return _errors([_words(t) for t in references], [_words(t) for t in hypotheses])


def character_errors(references: Sequence[str], hypotheses: Sequence[str]) -> tuple[int, int]:
    """(errors, characters of the references): spaces count, those around a text do not."""
    return _errors([[*t.strip()] for t in references], [[*t.strip()] for t in hypotheses])


def words_of(text: str) -> list[str]:
    """The words between spaces. Where a script has none, each character counts as a word, as is
    usual for Chinese: else a wrong character would make a whole sentence wrong."""
    return _NEXT_WORD.sub(" ", text).split()


def _words(text: Text) -> list[str]:
    return words_of(text) if isinstance(text, str) else [*text]


def _errors(references: list[list[str]], hypotheses: list[list[str]]) -> tuple[int, int]:
    if len(references) != len(hypotheses):
        raise ValueError(f"{len(references)} references and {len(hypotheses)} hypotheses")
    # jiwer refuses empty references, and splits texts at spaces: words go to it as numbers.
    extra = sum(len(h) for r, h in zip(references, hypotheses, strict=True) if not r)
    pairs = [(r, h) for r, h in zip(references, hypotheses, strict=True) if r]
    if not pairs:
        return extra, 0
    known = {word for pair in pairs for text in pair for word in text}
    numbers = {word: str(place) for place, word in enumerate(known)}
    meant = [" ".join(numbers[word] for word in text) for text, _ in pairs]
    said = [" ".join(numbers[word] for word in text) for _, text in pairs]
    found = jiwer.process_words(meant, said)
    errors = found.substitutions + found.deletions + found.insertions
    return errors + extra, found.hits + found.substitutions + found.deletions


def recognised(
    references: Sequence[Text], hypotheses: Sequence[Text]
) -> dict[str, tuple[int, int]]:
    """A recogniser's figures for `measure`: `wer`, and `repeated`, the outputs that are stuck."""
    return {
        "wer": word_errors(references, hypotheses),
        "repeated": repeated_share([_words(text) for text in hypotheses]),
    }
