"""A long clip is cut into pieces of a length that is borne, where it is quiet."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from autotrain.blocks.cutting import cut_at_pauses


@given(st.integers(1, 4000), st.floats(0.05, 3.0), st.integers(0, 9))
def test_the_pieces_make_up_the_whole_and_none_is_too_long(count, most, seed):
    samples = torch.randn(count, generator=torch.Generator().manual_seed(seed))
    pieces = cut_at_pauses(samples, 1000, most)
    assert torch.equal(torch.cat(pieces), samples)
    assert all(0 < len(piece) <= most * 1000 for piece in pieces)


def test_a_cut_lies_in_the_pause():
    tone = torch.sin(torch.arange(2600) / 3)
    samples = torch.cat([tone[:700], torch.zeros(200), tone[:600]])
    first, second = cut_at_pauses(samples, 1000, 1.0)
    assert 700 < len(first) < 900
    assert len(second) <= 1000
