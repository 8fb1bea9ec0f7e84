"""Recognisers that are stuck: outputs in which a phrase follows itself again and again."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

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


def repeated_share(
    outputs: Iterable[Sequence[Hashable]], longest: int = LONGEST
) -> tuple[int, int]:
    """(outputs that are loops, outputs): a figure of a task's `measure`.

    Over a few in a hundred, a recogniser is stuck: a learning rate that is too high, too little
    regularisation of the decoder, or decoding without a repetition penalty.
    """
    found = [is_loop(tokens, longest) for tokens in outputs]
    return sum(found), len(found)
