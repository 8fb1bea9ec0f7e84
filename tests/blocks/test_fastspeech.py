"""Blocks of a speaker: shapes, what padding reaches, and which frame is whose."""

import pytest
import torch

from autotrain.blocks.fastspeech import FeedForwards, Near, VariancePredictor, attended, regulated
from autotrain.blocks.losses import inside
from autotrain.errors import AutotrainError


def test_a_frame_is_its_phonemes_and_knows_where_in_it_it_stands():
    vectors = torch.arange(6.0).reshape(2, 3, 1)
    frames, places = regulated(vectors, torch.tensor([[2, 0, 3], [1, 1, 0]]), 6)
    assert frames[..., 0].tolist() == [[0, 0, 2, 2, 2, 0], [3, 4, 0, 0, 0, 0]]
    passed = [0.25, 0.75, 1 / 6, 0.5, 5 / 6, 0]
    assert places[0, :, 0].tolist() == pytest.approx(passed)
    assert places[0, :, 1].exp().tolist() == pytest.approx([3, 3, 4, 4, 4, 1])
    assert places[1, 2:].abs().sum() == 0


def test_no_frames_at_all_are_nothing_but_zeros():
    frames, places = regulated(torch.ones(1, 2, 3), torch.zeros(1, 2, dtype=torch.long), 4)
    assert frames.shape == (1, 4, 3)
    assert not frames.any()
    assert not places.any()


def test_a_repeated_vector_gets_the_gradient_of_all_its_frames():
    vectors = torch.zeros(1, 2, 1, requires_grad=True)
    regulated(vectors, torch.tensor([[3, 1]]), 5)[0].sum().backward()
    assert vectors.grad.flatten().tolist() == [3, 1]


@pytest.mark.parametrize(
    "make",
    [
        lambda: FeedForwards(8, 2, 2, 16, 3, 0.0),
        lambda: VariancePredictor(8, 3, 0.0),
        lambda: Near(8, 8, 5),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_what_stands_in_the_padding_reaches_no_sequence(make, training):
    torch.manual_seed(0)
    layer = make().train(training)
    given, lengths = torch.randn(3, 9, 8), torch.tensor([9, 4, 1])
    kept = inside(lengths, 9)
    dirty = torch.where(kept[..., None], given, torch.tensor(1e3))
    found = layer(dirty, kept)
    for row, length in enumerate(lengths.tolist()):
        one = inside(lengths[row : row + 1], length)
        alone = layer(given[row : row + 1, :length], one)
        torch.testing.assert_close(found[row, :length], alone[0], atol=1e-5, rtol=1e-4)


def test_widths_that_heads_do_not_divide_and_even_kernels_are_refused():
    for width, heads, kernel in ((9, 3, 3), (8, 3, 3), (8, 2, 4)):
        with pytest.raises(AutotrainError, match=f"width {width}, {heads} heads, kernel {kernel}"):
            FeedForwards(width, 1, heads, 8, kernel, 0.0)


def test_what_is_heard_is_what_torchs_own_attention_hears():
    torch.manual_seed(0)
    attention = torch.nn.MultiheadAttention(8, 2, batch_first=True).eval()
    vectors, kept = torch.randn(2, 5, 8), inside(torch.tensor([5, 3]), 5)
    wanted = attention(vectors, vectors, vectors, key_padding_mask=~kept, need_weights=False)[0]
    assert torch.allclose(attended(attention, vectors, kept), wanted, atol=1e-6)
