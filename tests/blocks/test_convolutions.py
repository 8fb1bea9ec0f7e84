"""Layers over time: a sequence is the same in any batch, forwards and backwards."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from autotrain.blocks.convolutions import (
    Convolution,
    InvertedResidual,
    SqueezeExcite,
    halved,
    mask_of,
)
from autotrain.blocks.recurrent import BiLSTM, turned

FRAMES = torch.tensor([7, 4, 1])


def sequences(lanes=6):
    torch.manual_seed(0)
    given = torch.randn(3, lanes, 7, dtype=torch.float64)
    return given * mask_of(FRAMES, 7).double()


class Mixed(nn.Module):
    """Each kind of layer once."""

    def __init__(self):
        super().__init__()
        self.halve = Convolution(6, 8, 3, 2, shape=nn.SiLU)
        self.block = InvertedResidual(8, 16, 5)

    def forward(self, given, frames):
        mask = mask_of(halved(frames), halved(given.shape[2])).to(given.dtype)
        return self.block(self.halve(given, mask), mask)


def test_shapes_and_masks():
    made = Mixed().double()(sequences(), FRAMES)
    assert made.shape == (3, 8, 4)
    assert (
        [int((row.abs().sum(0) > 0).sum()) for row in made] == halved(FRAMES).tolist() == [4, 2, 1]
    )
    assert [halved(n) for n in (0, 1, 2, 5)] == [0, 1, 1, 3]


def test_a_sequence_in_a_batch_is_as_alone():
    net = Mixed().double()
    given = sequences()
    whole = net(given, FRAMES)
    for place, frames in enumerate(FRAMES.tolist()):
        alone = net(given[place : place + 1, :, :frames], FRAMES[place : place + 1])
        torch.testing.assert_close(whole[place : place + 1, :, : halved(frames)], alone)


def test_squeezing_counts_a_sequences_own_frames():
    layer = SqueezeExcite(6, 3).double()
    given = sequences()
    other = given.clone()
    other[1, :, 4:] = 9.0
    mask = mask_of(FRAMES, 7).double()
    torch.testing.assert_close(layer(given, mask)[1, :, :4], layer(other, mask)[1, :, :4])


def test_turned_sequences_end_where_they_began():
    given = torch.arange(14.0).reshape(2, 7, 1)
    frames = torch.tensor([7, 3])
    assert turned(given, frames)[..., 0].tolist() == [
        [6, 5, 4, 3, 2, 1, 0],
        [9, 8, 7, 10, 11, 12, 13],
    ]
    torch.testing.assert_close(turned(turned(given, frames), frames), given)


@pytest.mark.parametrize("layers", [1, 2])
def test_a_bilstm_is_torchs_with_packed_sequences(layers):
    torch.manual_seed(0)
    ours = BiLSTM(5, 4, layers).double()
    theirs = nn.LSTM(5, 4, layers, batch_first=True, bidirectional=True).double()
    for place in range(layers):
        for side, cell in (("", ours.forwards[place]), ("_reverse", ours.backwards[place])):
            for name, value in cell.named_parameters():
                wanted = f"{name.removesuffix('0')}{place}{side}"
                theirs.get_parameter(wanted).data.copy_(value.data)
    given = torch.randn(3, 7, 5, dtype=torch.float64)
    packed = pack_padded_sequence(given, FRAMES, batch_first=True)
    expected, _ = pad_packed_sequence(theirs(packed)[0], batch_first=True)
    found = ours(given, FRAMES) * mask_of(FRAMES, 7).transpose(1, 2)
    torch.testing.assert_close(found, expected)
