"""Padding is not heard: each clip comes out as it would alone."""

import pytest
import torch
from torchaudio.models import Conformer as Torchaudios

from autotrain.blocks.conformer import Conformer
from autotrain.errors import AutotrainError

LENGTHS = (61, 7, 1, 32, 4)


def clips(features=20):
    torch.manual_seed(1)
    return [torch.randn(length, features) for length in LENGTHS]


def alone_and_together(model, filler):
    alone = [model(clip[None], torch.tensor([len(clip)]))[0][0] for clip in clips()]
    padded = torch.nn.utils.rnn.pad_sequence(clips(), batch_first=True, padding_value=filler)
    together, lengths = model(padded, torch.tensor(LENGTHS))
    return alone, together, lengths


@torch.no_grad()
@pytest.mark.parametrize("filler", [0.0, 3.0])
def test_a_padded_clip_comes_out_as_it_does_alone(filler):
    torch.manual_seed(0)
    model = Conformer(20, width=32, blocks=3, heads=4, kernel=7).eval()
    alone, together, lengths = alone_and_together(model, filler)
    assert lengths.tolist() == [-(-length // 4) for length in LENGTHS]
    assert together.shape == (len(LENGTHS), 16, 32)
    for row, own in zip(together, alone, strict=True):
        assert torch.allclose(row[: len(own)], own, atol=1e-5)
        assert not row[len(own) :].any()


@torch.no_grad()
@pytest.mark.parametrize("group_norm", [False, True])
def test_torchaudios_hears_its_padding(group_norm):
    """Why there is one of ours; when this fails, theirs may do."""
    torch.manual_seed(0)
    model = Torchaudios(20, 4, 32, 2, 7, use_group_norm=group_norm).eval()
    alone, together, _ = alone_and_together(model, 0.0)
    pairs = zip(together, alone, strict=True)
    off = max(float((row[: len(own)] - own).abs().max()) for row, own in pairs)
    assert off > 1e-3


def test_gradients_reach_every_weight_and_no_padding():
    torch.manual_seed(0)
    model = Conformer(20, width=32, blocks=2, heads=4, kernel=7)
    padded = torch.nn.utils.rnn.pad_sequence(clips(), batch_first=True).requires_grad_()
    frames, _ = model(padded, torch.tensor(LENGTHS))
    frames.square().sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())
    for row, length in zip(padded.grad, LENGTHS, strict=True):
        assert row[:length].any()
        assert not row[length:].any()


def test_a_batch_cut_in_two_has_the_same_gradient():
    torch.manual_seed(0)
    model = Conformer(20, width=16, blocks=1, heads=2, kernel=3, dropout=0.0).double()
    padded = torch.nn.utils.rnn.pad_sequence(clips(), batch_first=True).double()
    lengths = torch.tensor(LENGTHS)

    def gradient(*parts):
        model.zero_grad()
        for part in parts:
            longest = int(lengths[part].max())
            model(padded[part, :longest], lengths[part])[0].pow(3).sum().backward()
        return torch.cat([weight.grad.flatten() for weight in model.parameters()])

    assert torch.allclose(gradient(slice(0, 5)), gradient(slice(0, 2), slice(2, 5)), atol=1e-9)


@pytest.mark.parametrize("wrong", [{"kernel": 8}, {"width": 30}, {"width": 36, "heads": 8}])
def test_sizes_that_do_not_go_together_are_named(wrong):
    with pytest.raises(AutotrainError, match="Conformer: width"):
        Conformer(20, **{"width": 32, "heads": 4, "kernel": 7} | wrong)
