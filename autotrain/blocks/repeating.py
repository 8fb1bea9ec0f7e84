"""Recognisers that are stuck: outputs in which a phrase follows itself again and again."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

Token = TypeVar("Token", bound=Hashable)
LONGEST = 32  # tokens of a phrase
COPIES = 4  # in a row; people say a word two or three times
COVERED = 0.5  # of the output: what is stuck stays so to the end


def is_loop(tokens: Sequence[Hashable], longest: int = LONGEST) -> bool:
    """Whether at least half of an output is one phrase, four times in a row or more.

    A phrase is of up to `longest` tokens: words, glosses or characters.
    """
    for period in range(1, min(longest, len(tokens) // COPIES) + 1):
        least = max(COPIES * period, COVERED * len(tokens))
        if _longest_stretch(tokens, period) >= least:
            return True
    return False


def _longest_stretch(tokens: Sequence[Hashable], period: int) -> int:
    """Tokens of the longest stretch in which each equals the one `period` before it."""
    best = run = 0
    for place in range(period, len(tokens)):
        run = run + 1 if tokens[place] == tokens[place - period] else 0
        best = max(best, run)
    return best + period if best else 0


def without_loops(tokens: Sequence[Token], longest: int = LONGEST) -> list[Token]:
    """The tokens, a phrase that follows itself four times in a row or more being kept once.

    A guard for what a person is shown; error rates are of the outputs as they are.
    """
    kept, at = list[Token](), 0
    while at < len(tokens):
        period, copies = _loop_at(tokens, at, longest)
        kept += tokens[at : at + period]
        at += period * copies
    return kept


def _loop_at(tokens: Sequence[Hashable], at: int, longest: int) -> tuple[int, int]:
    """(tokens of the shortest phrase that is repeated from here on, copies); none: (1, 1)."""
    for period in range(1, min(longest, (len(tokens) - at) // COPIES) + 1):
        copies = 1
        while tokens[at : at + period] == tokens[at + copies * period : at + (copies + 1) * period]:
            copies += 1
        if copies >= COPIES:
            return period, copies
    return 1, 1


def repeated_share(
    outputs: Iterable[Sequence[Hashable]], longest: int = LONGEST
) -> tuple[int, int]:
    """(outputs that are loops, outputs): a figure of a task's `measure`.

    Over a few in a hundred, a recogniser is stuck: a learning rate that is too high, too little
    regularisation of the decoder, or decoding without a repetition penalty.
    """
    found = [is_loop(tokens, longest) for tokens in outputs]
    return sum(found), len(found)
