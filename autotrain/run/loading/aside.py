"""The samples that could not be used: each is named once, and their share is limited."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple
from typing import Any

from autotrain.errors import AutotrainError
from autotrain.run.loading.source import BadSample, Source

NAMED = 5


class Aside:
    """Samples put aside, of a training set and a validation set of `counts` samples.

    At least one of each set is borne, and at most `share`; a set of which nothing could be used
    so far is a fault of the code that reads it.
    """

    def __init__(self, source: Source, counts: tuple[int, int], share: float) -> None:
        self.source, self.counts, self.share = source, counts, share
        self.found: dict[tuple[bool, int], BadSample] = {}
        self.used = [False, False]

    def note(self, bad: Sequence[BadSample]) -> list[BadSample]:
        """Take note; returns those that are new. Raises AutotrainError beyond what is borne."""
        new = [each for each in bad if (each.valid, each.index) not in self.found]
        for each in new:
            self._keep(each)
        for valid in {each.valid for each in new}:
            self._insist(self.of(valid), valid)
        return new

    def of(self, valid: bool) -> list[BadSample]:
        """Those of one set, in the order in which they were found."""
        return [each for each in self.found.values() if each.valid == valid]

    def cure(self, each: BadSample) -> str:
        """What is done without it, in words."""
        bad, count = len(self.of(each.valid)), self.counts[each.valid]
        if each.valid:
            return f"put aside: figures are over the other {count - bad} validation samples"
        return f"put aside: training goes on with the other {count - bad} samples"

    def state(self) -> list[list[Any]]:
        """As JSON."""
        return [[*astuple(each)] for each in self.found.values()]

    def load(self, state: Iterable[Sequence[Any]]) -> None:
        """Those known before, besides those known now: no step back makes a sample whole."""
        for values in state:
            self._keep(BadSample(*values))

    def _keep(self, each: BadSample) -> None:
        self.found.setdefault((each.valid, each.index), each)
        if each.fatal:
            self.source.shunned.add((each.valid, each.index))

    def _insist(self, bad: list[BadSample], valid: bool) -> None:
        count, most = self.counts[valid], max(int(self.share * self.counts[valid]), 1)
        if len(bad) >= min(2, count) and not self.used[valid]:
            first = bad[0]
            raise AutotrainError(
                f"{self.source.named(first.index, valid=valid)}: {first.error}; no sample before "
                "or beside it could be used",
                "mend what reads it, then --resume",
            )
        if len(bad) > most or len(bad) == count:
            names = [f"{self.source.named(b.index, valid=valid)}: {b.error}" for b in bad[:NAMED]]
            more = f"; and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
            raise AutotrainError(
                f"{len(bad)} of {count} samples could not be used, heal.bad_samples = "
                f"{self.share:g} bears {most}: {'; '.join(names)}{more}",
                "mend or remove them, or raise heal.bad_samples, then --resume",
            )
