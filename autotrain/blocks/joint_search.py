"""Beam search by attention and CTC together (Watanabe 2017), with guards against getting stuck.

Attention alone repeats or skips whole phrases; CTC reads every frame once and in order, so its
share of the score rules that out. A score is (1 - ctc_weight) * attention + ctc_weight * CTC, in
natural logarithms; what has ended is compared per unit that was written.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch

from autotrain.blocks.repeating import is_loop
from autotrain.blocks.units import BLANK, END
from autotrain.errors import AutotrainError

NEVER = -math.inf


@dataclass(frozen=True)
class Search:
    """How a beam search goes.

    `beam`: texts that are followed at once. `ctc_weight`: 0 to 1. `length_power`: a text that
    ended is worth its score / units^length_power; 0 prefers short ones. `repetition`: what the
    log-probability of a unit is multiplied with once it was written (Keskar 2019; 1: off): who is
    sure of a unit loses nothing by it. `candidates`: continuations of a text, by attention, that
    CTC is asked about (0: twice the beam).
    """

    beam: int = 8
    ctc_weight: float = 0.3
    length_power: float = 1.0
    repetition: float = 1.2
    candidates: int = 0

    def __post_init__(self) -> None:
        if self.beam < 1 or not 0 <= self.ctc_weight <= 1 or self.repetition < 1:
            raise AutotrainError(
                f"search: beam {self.beam}, ctc_weight {self.ctc_weight:g}, repetition "
                f"{self.repetition:g}",
                "a beam and a repetition of 1 at least, a ctc_weight from 0 to 1",
            )


class Found(NamedTuple):
    """A text as its units, and its score per unit, the end counted as one."""

    units: list[int]
    score: float


class _Open(NamedTuple):
    """Texts that go on: units [texts, written], END first; their score, and attention's part of it
    [texts]; CTC's forward variables [texts, frames, 2], ending in the last unit and in a blank."""

    written: torch.Tensor
    joint: torch.Tensor
    attention: torch.Tensor
    forward: torch.Tensor


def joint_search(
    ctc: torch.Tensor,
    ahead: Callable[[torch.Tensor], torch.Tensor],
    search: Search | None = None,
    longest: int = 0,
) -> list[Found]:
    """The texts of one clip, the best first.

    `ctc`: [frames, count] log-probabilities. `ahead`: [texts, written] units, END first ->
    [texts, count] log-probabilities of what follows. `longest` text in units (0: the frames).
    """
    search = search or Search()
    scores = ctc.detach().double().cpu()
    zero = torch.zeros(1, dtype=torch.float64)
    texts = _Open(torch.tensor([[END]]), zero, zero, _empty(scores))
    ended: list[Found] = []
    for _ in range(longest or len(scores)):
        following = ahead(texts.written).detach().double().cpu()
        texts, done = _step(scores, texts, _penalised(following, texts.written, search), search)
        ended += done
        if not len(texts.written) or _settled(ended, texts, search):
            break
    ended = ended or _cut_off(texts, search)
    straight = [found for found in ended if not is_loop(found.units)] or ended
    return sorted(straight, key=lambda found: -found.score)


def _penalised(following: torch.Tensor, written: torch.Tensor, search: Search) -> torch.Tensor:
    """[texts, count]: no blank, and less of what was written before."""
    before = torch.zeros_like(following, dtype=torch.bool).scatter_(1, written, True)
    before[:, END] = False
    punished = torch.where(before, following * search.repetition, following)
    punished[:, BLANK] = NEVER
    return punished


def _step(
    scores: torch.Tensor, texts: _Open, following: torch.Tensor, search: Search
) -> tuple[_Open, list[Found]]:
    """The best continuations that go on, and those that end."""
    count = following.shape[1]
    many = min(search.candidates or 2 * search.beam, count)
    following[:, END] += 1e4  # an end is always asked about
    units = following.topk(many, dim=1).indices  # [texts, candidates]
    following[:, END] -= 1e4
    attention = texts.attention[:, None] + following.gather(1, units)
    forward, prefix = extended(scores, texts.forward, texts.written, units)
    prefix = torch.where(units == END, texts.forward[:, -1].logsumexp(-1)[:, None], prefix)
    weight = search.ctc_weight
    joint = attention if weight == 0 else (1 - weight) * attention + weight * prefix
    joint = joint.nan_to_num(nan=NEVER, neginf=NEVER)
    best = joint.flatten().topk(min(search.beam, joint.numel()))
    rows, columns = best.indices // many, best.indices % many
    possible = best.values > NEVER
    ends = units[rows, columns] == END
    done = [
        Found(texts.written[row, 1:].tolist(), float(score) / _norm(texts.written[row], search))
        for row, score in zip(rows[ends & possible], best.values[ends & possible], strict=True)
    ]
    on, at = rows[~ends & possible], columns[~ends & possible]
    written = torch.cat([texts.written[on], units[on, at][:, None]], dim=1)
    joint = best.values[~ends & possible]
    return _Open(written, joint, attention[on, at], forward[on, at]), done


def _settled(ended: list[Found], texts: _Open, search: Search) -> bool:
    """Whether no text that goes on is as good, per unit, as one that ended."""
    hope = float(texts.joint.max()) / _norm(texts.written[0], search)
    return any(found.score >= hope for found in ended)


def _norm(written: torch.Tensor, search: Search) -> float:
    return float(len(written) ** search.length_power)


def _cut_off(texts: _Open, search: Search) -> list[Found]:
    """What had not ended when the search did; an empty text where nothing is possible at all."""
    weight = search.ctc_weight
    ends = (1 - weight) * texts.attention
    if weight:
        ends = ends + weight * texts.forward[:, -1].logsumexp(-1)
    found = [
        Found(row[1:].tolist(), float(score) / _norm(row, search))
        for row, score in zip(texts.written, ends, strict=True)
    ]
    return found or [Found([], NEVER)]


def _empty(scores: torch.Tensor) -> torch.Tensor:
    """[1, frames, 2]: of a text without units all frames are blank."""
    blanks = scores[:, BLANK].cumsum(0)
    return torch.stack([torch.full_like(blanks, NEVER), blanks], dim=-1)[None]


def extended(
    scores: torch.Tensor, forward: torch.Tensor, written: torch.Tensor, units: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """CTC's forward variables [texts, candidates, frames, 2] of texts with one unit more, and the
    log-probability [texts, candidates] that a text begins so.

    `scores`: [frames, count]; `forward`: [texts, frames, 2]; `written`: [texts, written];
    `units`: [texts, candidates]. The recursion over frames is a cumulative sum in logarithms.
    """
    emitted = scores.T[units]  # [texts, candidates, frames]
    again = (units == written[:, -1:])[..., None] & torch.tensor(written.shape[1] > 1)
    before = torch.where(again, forward[:, None, :, 1], forward.logsumexp(-1)[:, None])
    first = torch.full_like(emitted[..., :1], 0.0 if written.shape[1] == 1 else NEVER)
    before = torch.cat([first, before[..., :-1]], dim=-1)  # what may stand one frame earlier
    label = _carried(before, emitted)
    blank = scores[:, BLANK].expand_as(emitted)
    nothing = torch.full_like(label[..., :1], NEVER)
    silent = _carried(torch.cat([nothing, label[..., :-1]], dim=-1), blank)
    return torch.stack([label, silent], dim=-1), (before + emitted).logsumexp(-1)


def _carried(entering: torch.Tensor, emitted: torch.Tensor) -> torch.Tensor:
    """[..., frames]: x[t] = logaddexp(x[t - 1], entering[t]) + emitted[t], from x = 0 on."""
    total = emitted.cumsum(-1)
    so_far = total - emitted
    return (entering - so_far).logcumsumexp(-1) + total
