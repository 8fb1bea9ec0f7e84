"""CTC decoding against the enumeration of every path, torch's loss, and a plain beam search."""

import itertools
import math
from collections import defaultdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from autotrain.blocks.ctc import Hypothesis, beam_search, frames_needed, greedy
from autotrain.errors import AutotrainError


def logits_of(seed, batch, time, classes, scale=2.0):
    draw = torch.Generator().manual_seed(seed)
    return scale * torch.randn(batch, time, classes, generator=draw, dtype=torch.float64)


def collapsed(path, blank):
    return tuple(token for token, _ in itertools.groupby(path) if token != blank)


def by_paths(logits, blank=0):
    """{text: its probability}, over all classes^time paths of [time, classes]."""
    probs, found = logits.softmax(-1).tolist(), defaultdict(float)
    for path in itertools.product(range(logits.shape[-1]), repeat=len(logits)):
        found[collapsed(path, blank)] += math.prod(p[k] for p, k in zip(probs, path, strict=True))
    return found


def plain_beam(logits, beam, blank=0):
    """Hannun 2014 with a dict, one sample at a time: the same rule, written another way."""
    beams = {(): (1.0, 0.0)}
    for row in logits.softmax(-1).tolist():
        found = defaultdict(lambda: [0.0, 0.0])
        for prefix, (ended, open_) in beams.items():
            for token, p in enumerate(row):
                if token == blank:
                    found[prefix][0] += p * (ended + open_)
                elif prefix and token == prefix[-1]:
                    found[prefix][1] += p * open_
                    found[(*prefix, token)][1] += p * ended
                else:
                    found[(*prefix, token)][1] += p * (ended + open_)
        best = sorted(found.items(), key=lambda item: -sum(item[1]))[:beam]
        beams = {prefix: tuple(both) for prefix, both in best}
    return {prefix: sum(both) for prefix, both in beams.items() if sum(both)}


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    frames=st.lists(st.integers(0, 5), min_size=1, max_size=4),
    classes=st.integers(2, 3),
    blank=st.integers(0, 1),
)
def test_a_beam_that_holds_all_prefixes_has_every_text_with_its_probability(
    seed, frames, classes, blank
):
    logits = logits_of(seed, len(frames), max(*frames, 1), classes)
    found = beam_search(logits, torch.tensor(frames), beam=400, blank=blank)
    for row, count, texts in zip(logits, frames, found, strict=True):
        expected = by_paths(row[:count], blank)
        assert {h.tokens for h in texts} == set(expected)
        for text in texts:
            assert math.exp(text.log_prob) == pytest.approx(expected[text.tokens], rel=1e-9)
        assert [h.log_prob for h in texts] == sorted((h.log_prob for h in texts), reverse=True)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), beam=st.integers(1, 6), classes=st.integers(2, 6))
def test_a_narrow_beam_is_that_of_the_plain_algorithm(seed, beam, classes):
    """In a batch of several lengths as alone."""
    frames = [9, 4, 7]
    logits = logits_of(seed, 3, 9, classes, scale=1.0)
    found = beam_search(logits, torch.tensor(frames), beam=beam)
    for row, count, texts in zip(logits, frames, found, strict=True):
        expected = plain_beam(row[:count], beam)
        got = {h.tokens: math.exp(h.log_prob) for h in texts}
        assert got == pytest.approx(expected, rel=1e-9)


def test_a_texts_probability_is_what_torchs_loss_says():
    """At a size that nobody can enumerate; what the beam drops makes it less, never more."""
    logits = logits_of(3, 4, 40, 12, scale=6.0)
    frames = torch.tensor([40, 31, 22, 9])
    for row, count, texts in zip(logits, frames, beam_search(logits, frames, beam=64), strict=True):
        best = texts[0]
        loss = functional.ctc_loss(
            row[:count].log_softmax(-1), torch.tensor(best.tokens), count,
            torch.tensor(len(best.tokens)), reduction="sum",
        )  # fmt: skip
        assert -float(loss) - 0.1 < best.log_prob < -float(loss) + 1e-9


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), classes=st.integers(1, 4), blank=st.integers(0, 3))
def test_greedy_is_the_best_path_without_repeats_and_blanks(seed, classes, blank):
    blank = min(blank, classes - 1)
    logits = logits_of(seed, 3, 8, classes)
    frames = [8, 0, 5]
    expected = [
        list(collapsed(row[:count].argmax(-1).tolist(), blank))
        for row, count in zip(logits, frames, strict=True)
    ]
    assert greedy(logits, torch.tensor(frames), blank) == expected


def test_the_best_text_need_not_be_that_of_the_best_path():
    """Graves's example: blank is likeliest in each frame, but `a` has more paths."""
    logits = torch.tensor([[[0.6, 0.4], [0.6, 0.4]]]).log()
    frames = torch.tensor([2])
    assert greedy(logits, frames) == [[]]
    best = beam_search(logits, frames)[0][0]
    assert best.tokens == (1,)
    assert math.exp(best.log_prob) == pytest.approx(0.64)


def test_what_stands_in_the_padding_changes_nothing():
    logits = logits_of(0, 2, 6, 4)
    other = logits.clone()
    other[0, 4:] = 50 * torch.randn(2, 4)
    frames = torch.tensor([4, 6])
    assert greedy(logits, frames) == greedy(other, frames)
    assert beam_search(logits, frames) == beam_search(other, frames)


def test_length_normalisation_prefers_longer_texts():
    short, long = Hypothesis((1,), -1.0), Hypothesis((1, 2, 3, 4), -2.0)
    assert short.score(0.0) > long.score(0.0)
    assert short.score(1.0) < long.score(1.0)
    assert Hypothesis((), -1.0).score(1.0) == -1.0
    logits = logits_of(5, 1, 8, 4, scale=0.5)
    plain, normed = (
        beam_search(logits, torch.tensor([8]), beam=50, length_norm=n)[0] for n in (0.0, 1.0)
    )
    assert {h.tokens for h in plain} == {h.tokens for h in normed}
    scores = [h.score(1.0) for h in normed]
    assert scores == sorted(scores, reverse=True)
    assert len(normed[0].tokens) > len(plain[0].tokens)


def test_half_precision_and_infinite_logits_are_decoded():
    logits = logits_of(1, 2, 6, 4).half()
    logits[..., 3] = -torch.inf
    found = beam_search(logits, torch.tensor([6, 3]), beam=30)
    assert all(3 not in h.tokens for texts in found for h in texts)
    assert all(math.isfinite(h.log_prob) for texts in found for h in texts)


def test_an_empty_batch_and_a_beam_of_nothing():
    assert greedy(torch.zeros(0, 3, 2), torch.zeros(0, dtype=torch.long)) == []
    assert beam_search(torch.zeros(0, 3, 2), torch.zeros(0, dtype=torch.long)) == []
    with pytest.raises(AutotrainError, match="beam of 0"):
        beam_search(torch.zeros(1, 3, 2), torch.tensor([3]), beam=0)


@given(st.lists(st.integers(1, 3), max_size=6))
def test_frames_needed_are_the_fewest_that_have_a_path(tokens):
    paths = itertools.product(range(4), repeat=frames_needed(tokens)) if len(tokens) < 4 else ()
    count = frames_needed(tokens)
    log_probs = torch.zeros(max(count, 1), 4).log_softmax(-1)

    def finite(frames):
        loss = functional.ctc_loss(
            log_probs, torch.tensor(tokens, dtype=torch.long), torch.tensor(frames),
            torch.tensor(len(tokens)), reduction="sum",
        )  # fmt: skip
        return bool(loss.isfinite())

    if tokens:
        assert finite(count)
        assert not finite(count - 1)
    assert not paths or tuple(tokens) in {collapsed(path, 0) for path in paths}
