"""CTC decoding (Graves 2006): greedy, and prefix beam search exact in log space, by batches."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch

from autotrain.blocks.losses import inside
from autotrain.errors import AutotrainError

NEVER = float("-inf")


class Hypothesis(NamedTuple):
    """A text that a model may have meant, and the log of its probability over all alignments."""

    tokens: tuple[int, ...]
    log_prob: float

    def score(self, length_norm: float) -> float:
        """log_prob / length^length_norm (Wu 2016, without the constant): 0 leaves it as it is."""
        size: float = max(len(self.tokens), 1) ** length_norm
        return self.log_prob / size


def frames_needed(tokens: Sequence[Hashable]) -> int:
    """Frames that CTC needs for a text: one a token, and one for the blank between equal ones."""
    return len(tokens) + sum(a == b for a, b in pairwise(tokens))


def check_text(name: object, tokens: Sequence[Hashable], frames: int) -> None:
    """Raises AutotrainError, with the sample's name, for an empty text and one that is too long.

    `frames`: those that CTC has, after all strides.
    """
    if not tokens:
        raise AutotrainError(f"{name}: an empty text")
    if (least := frames_needed(tokens)) > frames:
        raise AutotrainError(
            f"{name}: {len(tokens)} tokens need {least} frames of CTC, and it has {frames}"
        )


def greedy(logits: torch.Tensor, frames: torch.Tensor, blank: int = 0) -> list[list[int]]:
    """The texts of the most probable paths: repeats fall together, then blanks go.

    `logits`: [batch, time, classes], probabilities of any kind; sample i has `frames[i]` of them,
    and what stands behind counts nowhere.
    """
    best = logits.argmax(dim=-1)
    before = torch.nn.functional.pad(best[:, :-1], (1, 0), value=blank)
    kept = (best != blank) & (best != before) & inside(frames.to(best.device), best.shape[1])
    lengths = kept.sum(dim=1).tolist()
    return [list(text) for text in _cut(best[kept].tolist(), lengths)]


def _cut(flat: list[int], lengths: list[int]) -> list[list[int]]:
    texts, at = [], 0
    for length in lengths:
        texts.append(flat[at : at + length])
        at += length
    return texts


def beam_search(
    logits: torch.Tensor,
    frames: torch.Tensor,
    *,
    beam: int = 8,
    blank: int = 0,
    length_norm: float = 0.0,
) -> list[list[Hypothesis]]:
    """The most probable texts of each sample, best first; at most `beam`, at least one.

    `logits`: [batch, time, classes], of which sample i has `frames[i]`. After each frame the
    `beam` prefixes stay that have most probability, summed over the paths that lead to them
    (Hannun 2014, without a language model); where the beam holds all prefixes, the result is
    exact. All samples go at once; sums are of fp64. `length_norm` orders the result by
    `Hypothesis.score`.
    Raises AutotrainError for a beam below 1.
    """
    if beam < 1:
        raise AutotrainError(f"beam_search: a beam of {beam}", "at least 1")
    log_probs = logits.detach().double().log_softmax(dim=-1)
    state = _begin(len(logits), beam, log_probs.device)
    frames = frames.to(log_probs.device)
    for time in range(int(frames.max()) if len(frames) else 0):
        state = _step(state, log_probs[:, time], frames > time, blank)
    return _read(state, length_norm)


class _Beams(NamedTuple):
    """Prefixes [batch, beam, longest], -1 behind their ends; their lengths, and the log of the
    probability of all paths to them that end in a blank, and in their last token: [batch, beam].
    """

    prefixes: torch.Tensor
    lengths: torch.Tensor
    blank: torch.Tensor
    token: torch.Tensor

    @property
    def total(self) -> torch.Tensor:
        return torch.logaddexp(self.blank, self.token)


def _begin(batch: int, beam: int, device: torch.device) -> _Beams:
    """The empty prefix, certain; the other places are empty until there are more prefixes."""
    never = torch.full((batch, beam), NEVER, dtype=torch.float64, device=device)
    blank = never.clone()
    blank[:, 0] = 0.0
    lengths = torch.zeros(batch, beam, dtype=torch.long, device=device)
    return _Beams(lengths.new_zeros(batch, beam, 0), lengths, blank, never)


def _step(old: _Beams, log_probs: torch.Tensor, going: torch.Tensor, blank: int) -> _Beams:
    """One frame more. `log_probs`: [batch, classes]; samples not `going` stay as they are."""
    beam = old.lengths.shape[1]
    classes = log_probs.shape[-1]
    last = _last(old)
    total = old.total
    # A prefix stays by a blank, or by its last token once more.
    own = log_probs.gather(1, last.clamp(min=0))
    stay_blank = total + log_probs[:, blank, None]
    stay_token = (old.token + own).masked_fill(last < 0, NEVER)
    # It grows by any token; by its last one only behind a blank.
    grown = total[..., None] + log_probs[:, None, :]
    again = (old.blank + own)[..., None]
    tokens = torch.arange(classes, device=last.device)
    grown = torch.where(tokens == last[..., None], again, grown)
    grown[..., blank] = NEVER
    grown, stay_token = _merged(old, last, grown, stay_token)
    scores = torch.cat([torch.logaddexp(stay_blank, stay_token), grown.flatten(1)], dim=1)
    best = scores.topk(beam, dim=1).indices
    stays = best < beam
    source = torch.where(stays, best, (best - beam) // classes)
    empty = scores.gather(1, best) == NEVER
    token = torch.where(stays | empty, -1, (best - beam) % classes)
    new_token = torch.where(stays, stay_token.gather(1, source), scores.gather(1, best))
    new_blank = stay_blank.gather(1, source).masked_fill(~stays, NEVER)
    made = _extended(old, source, token)._replace(blank=new_blank, token=new_token)
    return _chosen(going, made, old)


def _last(beams: _Beams) -> torch.Tensor:
    """[batch, beam]: the last token of each prefix, -1 of the empty one."""
    if not beams.prefixes.shape[-1]:
        return torch.full_like(beams.lengths, -1)
    at = (beams.lengths - 1).clamp(min=0)[..., None]
    return beams.prefixes.gather(2, at)[..., 0]


def _merged(
    beams: _Beams, last: torch.Tensor, grown: torch.Tensor, stay_token: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Where a grown prefix is one that is there already, its paths are counted with that one's."""
    at = (beams.lengths - 1).clamp(min=0)[..., None]
    parents = beams.prefixes.scatter(2, at, -1) if beams.prefixes.shape[-1] else beams.prefixes
    same = (beams.prefixes[:, :, None] == parents[:, None]).all(dim=-1)
    there = beams.total > NEVER
    same &= there[:, :, None] & (there & (last >= 0))[:, None]
    # same[:, i, j]: prefix j is prefix i and the token last[j].
    found, parent = same.any(dim=1), same.to(torch.uint8).argmax(dim=1)
    classes = grown.shape[-1]
    place = parent * classes + last.clamp(min=0)
    flat = grown.flatten(1)
    moved = flat.gather(1, place).masked_fill(~found, NEVER)
    gone = torch.zeros_like(flat, dtype=torch.uint8)
    gone = gone.scatter_add(1, place, found.to(torch.uint8)) > 0
    return flat.masked_fill(gone, NEVER).view_as(grown), torch.logaddexp(stay_token, moved)


def _extended(old: _Beams, source: torch.Tensor, token: torch.Tensor) -> _Beams:
    """The prefixes at `source`, with `token` behind them where that is not -1."""
    longest = old.prefixes.shape[-1]
    lengths = old.lengths.gather(1, source)
    prefixes = old.prefixes.gather(1, source[..., None].expand(-1, -1, longest))
    prefixes = torch.nn.functional.pad(prefixes, (0, 1), value=-1)
    # Behind the end there is -1 already, so writing -1 leaves a prefix as it is.
    prefixes = prefixes.scatter(2, lengths[..., None], token[..., None])
    return _Beams(prefixes, lengths + (token >= 0), old.blank, old.token)


def _chosen(going: torch.Tensor, new: _Beams, old: _Beams) -> _Beams:
    """Of each sample the new beams while it has frames, then the old ones; no wider than need."""
    prefixes = torch.nn.functional.pad(old.prefixes, (0, 1), value=-1)
    mine = going[:, None]
    lengths = torch.where(mine, new.lengths, old.lengths)
    prefixes = torch.where(mine[..., None], new.prefixes, prefixes)
    return _Beams(
        prefixes[..., : int(lengths.max())],
        lengths,
        torch.where(mine, new.blank, old.blank),
        torch.where(mine, new.token, old.token),
    )


def _read(beams: _Beams, length_norm: float) -> list[list[Hypothesis]]:
    rows = zip(beams.prefixes.tolist(), beams.lengths.tolist(), beams.total.tolist(), strict=True)
    found = []
    for prefixes, lengths, totals in rows:
        each = zip(prefixes, lengths, totals, strict=True)
        texts = [Hypothesis(tuple(p[:n]), s) for p, n, s in each if s > NEVER]
        found.append(sorted(texts, key=lambda h: -h.score(length_norm)))
    return found
