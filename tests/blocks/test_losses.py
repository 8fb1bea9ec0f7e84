"""Losses of sequences: sums with a weight, padding that counts nowhere, the same in any cut."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from autotrain.blocks.losses import IGNORED, mixed_ctc, sequence_cross_entropy, smoothed_ctc

CLASSES = 5


def batch(seed=0, count=6, longest=9):
    """Float64 logits that need gradients, frames, tokens, lengths; the paddings are rubbish."""
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, longest, CLASSES, generator=draw).double().requires_grad_()
    frames = torch.randint(6, longest + 1, (count,), generator=draw)
    lengths = torch.randint(1, 4, (count,), generator=draw)
    tokens = torch.randint(1, CLASSES, (count, 3), generator=draw)
    return logits, frames, tokens, lengths


def gradient(loss, logits):
    return torch.autograd.grad(loss.total, logits)[0]


def test_without_smoothing_it_is_torchs_ctc_summed():
    logits, frames, tokens, lengths = batch()
    made = smoothed_ctc(logits, frames, tokens, lengths)
    log_probs = logits.log_softmax(-1).transpose(0, 1)
    plain = functional.ctc_loss(log_probs, tokens, frames, lengths, reduction="sum")
    torch.testing.assert_close(made.total, plain)
    assert float(made.weight) == float(lengths.sum())
    assert float(made.parts["too_short"]) == 0


def test_smoothing_adds_the_distance_from_uniform_per_token():
    logits, frames, tokens, lengths = batch(count=1)
    made = smoothed_ctc(logits, frames, tokens, lengths, smoothing=0.1)
    plain = smoothed_ctc(logits, frames, tokens, lengths).total
    p = logits[0, : int(frames)].softmax(-1)
    kl = (1 / CLASSES * (math.log(1 / CLASSES) - p.log())).sum(-1).mean()
    torch.testing.assert_close(made.total, 0.9 * plain + 0.1 * kl * lengths.sum())
    torch.testing.assert_close(made.parts["uniform"], kl * lengths.sum())


def test_a_uniform_model_is_as_smooth_as_can_be():
    logits = torch.zeros(1, 8, CLASSES, dtype=torch.float64)
    lengths = torch.tensor([2])
    made = smoothed_ctc(logits, torch.tensor([8]), torch.tensor([[1, 2]]), lengths, smoothing=0.3)
    assert abs(float(made.parts["uniform"])) < 1e-12


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), cut=st.integers(1, 5), more=st.integers(0, 4))
def test_any_cut_and_any_padding_give_the_same_gradient(seed, cut, more):
    """At 1e-12 in float64, smoothing included."""
    logits, frames, tokens, lengths = batch(seed)
    whole = smoothed_ctc(logits, frames, tokens, lengths, smoothing=0.2)
    total, weight = 0.0, 0.0
    for part in (slice(None, cut), slice(cut, None)):
        rows = functional.pad(logits[part], (0, 0, 0, more), value=50.0)
        texts = functional.pad(tokens[part], (0, more), value=3)
        made = smoothed_ctc(rows, frames[part], texts, lengths[part], smoothing=0.2)
        total, weight = total + made.total, weight + made.weight
    torch.testing.assert_close(weight, whole.weight)
    pieces = torch.autograd.grad(total, logits)[0]
    torch.testing.assert_close(pieces, gradient(whole, logits), rtol=1e-12, atol=1e-12)
    outside = torch.arange(9) >= frames[:, None]
    assert float(pieces[outside].abs().sum()) == 0


def test_a_text_too_long_for_its_frames_counts_nowhere():
    """2, 2 needs a blank in between: three frames. Its neighbour's gradient is as if alone."""
    logits = torch.randn(2, 3, CLASSES, dtype=torch.float64, requires_grad=True)
    tokens, lengths = torch.tensor([[2, 2], [2, 3]]), torch.tensor([2, 2])
    for frames, weight, lost in (([2, 3], 2, 2), ([3, 3], 4, 0)):
        made = smoothed_ctc(logits, torch.tensor(frames), tokens, lengths, smoothing=0.1)
        assert (float(made.weight), float(made.parts["too_short"])) == (weight, lost)
        assert bool(made.total.isfinite())
        found = gradient(made, logits)
        assert bool(found.isfinite().all())
        assert (float(found[0].abs().sum()) == 0) == (lost > 0)


def test_two_texts_share_a_sample():
    logits, frames, tokens, lengths = batch()
    other, other_lengths = tokens.flip(1), torch.full_like(lengths, 2)
    share = torch.linspace(0, 1, len(lengths)).double()
    readings = [(tokens, lengths, share), (other, other_lengths, 1 - share)]
    made = mixed_ctc(logits, frames, readings)
    total = weight = 0.0
    for i, part in enumerate(share.tolist()):
        for text, length, much in ((tokens, lengths, part), (other, other_lengths, 1 - part)):
            one = slice(i, i + 1)
            alone = smoothed_ctc(logits[one], frames[one], text[one], length[one])
            total, weight = total + much * alone.total, weight + much * alone.weight
    torch.testing.assert_close(made.total, total)
    torch.testing.assert_close(made.weight, weight)


def test_half_precision_logits_are_computed_in_fp32():
    logits, frames, tokens, lengths = batch()
    made = smoothed_ctc(logits.half(), frames, tokens, lengths, smoothing=0.1)
    assert made.total.dtype == torch.float32
    assert bool(made.total.isfinite())


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_counts_the_kept_tokens_alone(smoothing):
    logits = torch.randn(3, 4, CLASSES, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(CLASSES, (3, 4))
    kept = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]]).bool()
    targets[0, 3] = IGNORED
    made = sequence_cross_entropy(logits, targets, kept=kept, smoothing=smoothing)
    counted = kept & (targets != IGNORED)
    p = logits[counted].log_softmax(-1)
    right = p.gather(1, targets[counted][:, None]).sum()
    expected = -(1 - smoothing) * right - smoothing * p.mean(-1).sum()
    torch.testing.assert_close(made.total, expected)
    assert int(made.weight) == 6
    assert float(gradient(made, logits)[~counted].abs().sum()) == 0


def test_cross_entropy_of_nothing_but_padding_is_zero():
    logits = torch.randn(2, 3, CLASSES, requires_grad=True)
    made = sequence_cross_entropy(logits, torch.full((2, 3), IGNORED), smoothing=0.1)
    assert (float(made.total.detach()), int(made.weight)) == (0.0, 0)
    assert bool(gradient(made, logits).isfinite().all())
