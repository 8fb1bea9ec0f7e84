"""SpecAugment: what is hidden, how much of it, where, and that only training sees it."""

import pytest
import torch
from torch import nn

from autotrain import Task
from autotrain.blocks.augment import Augmented
from autotrain.blocks.losses import smoothed_ctc
from autotrain.blocks.masking import SpecAugment
from autotrain.blocks.mixing import pad_utterances
from autotrain.errors import AutotrainError

from .loops import weights_after

FILL = -7.0


def masks(**more):
    return SpecAugment(**{"band": 6, "gap": 30, "fill": FILL, **more})


def hidden(features):
    """(whole rows, whole columns) that hold nothing but the fill."""
    gone = features == FILL
    return gone.all(dim=1), gone.all(dim=0)


def test_a_sample_loses_bands_and_gaps_and_nothing_else():
    torch.manual_seed(0)
    seen_rows = seen_columns = 0
    for _ in range(100):
        features = torch.randn(60, 20)
        made = masks()(features)
        rows, columns = hidden(made)
        elsewhere = ~(rows[:, None] | columns[None])
        assert torch.equal(made[elsewhere], features[elsewhere])
        assert int(rows.sum()) <= 2 * 12, "two gaps of at most a fifth"
        assert int(columns.sum()) <= 2 * 6
        seen_rows, seen_columns = seen_rows + int(rows.sum()), seen_columns + int(columns.sum())
        assert bool((features != FILL).all()), "the sample itself is as it was"
    # A width uniform from 0 to w, rounded down, is (w - 1) / 2 on average; two overlap a little.
    assert 0.8 * 11 < seen_rows / 100 < 11.1
    assert 0.7 * 5 < seen_columns / 100 < 5.1


def test_in_a_batch_each_sample_has_masks_of_its_own_within_its_own_length():
    torch.manual_seed(1)
    frames = torch.tensor([80, 10, 40])
    counted, starts = torch.zeros(3), set()
    for _ in range(200):
        features = torch.randn(3, 80, 20)
        made = masks(bands=0)(features, frames)
        rows = (made == FILL).all(dim=-1)
        inside = torch.arange(80) < frames[:, None]
        assert not (rows & ~inside).any(), "padding needs no mask, and none is spent on it"
        assert torch.equal(made[~rows], features[~rows])
        assert (rows.sum(dim=1) <= 2 * torch.tensor([16, 2, 8])).all()
        counted += rows.sum(dim=1)
        starts.add(tuple(rows[0].nonzero().flatten().tolist()[:1]))
    assert len(starts) > 20
    assert (counted[0] / 80 / (counted[2] / 40) - 1).abs() < 0.2, "the same share of each"


def test_bands_differ_between_the_samples_of_a_batch():
    torch.manual_seed(2)
    made = masks(gaps=0)(torch.randn(16, 30, 20))
    assert len({tuple(hidden(each)[1].tolist()) for each in made}) > 8


def test_a_layer_in_a_model_is_still_in_eval_mode():
    features = torch.randn(3, 80, 20)
    assert masks().eval()(features, torch.tensor([80, 10, 40])) is features


def test_a_mask_law_in_a_batch_is_that_of_torchaudio():
    """Widths and starts of 4000 gaps, by our vectorised way and by torchaudio's own."""
    torch.manual_seed(3)
    module = masks(bands=0, gaps=1)
    ours = (module(torch.randn(4000, 50, 2)) == FILL).all(-1)
    theirs = torch.stack([(module(torch.randn(50, 2)) == FILL).all(-1) for _ in range(4000)])
    for each in (lambda m: m.sum(1).float(), lambda m: m.float().argmax(1).float()):
        assert float(each(ours).mean()) == pytest.approx(float(each(theirs).mean()), rel=0.06)
        assert float(each(ours).std()) == pytest.approx(float(each(theirs).std()), rel=0.06)


def test_a_warp_moves_what_is_inside_and_keeps_the_length():
    torch.manual_seed(4)
    line = torch.arange(60.0)[:, None].repeat(1, 3)
    moved = 0
    for _ in range(20):
        made = masks(bands=0, gaps=0, warp=8)(line)
        assert made.shape == line.shape
        assert bool((made.diff(dim=0) >= 0).all()), "the order stays"
        assert float((made - line).abs().max()) <= 8 + 1
        moved += not torch.equal(made, line)
    assert moved > 15
    short = torch.randn(17, 3)
    assert torch.equal(masks(bands=0, gaps=0, warp=8)(short), short)


def test_what_it_cannot_do_is_refused():
    with pytest.raises(AutotrainError, match=r"gap_share 1\.5"):
        SpecAugment(gap_share=1.5)
    with pytest.raises(AutotrainError, match=r"shape \(4,\)"):
        masks()(torch.zeros(4))
    with pytest.raises(AutotrainError, match="one sample at a time"):
        masks(warp=3)(torch.zeros(2, 9, 4))


class Texts(torch.utils.data.Dataset):
    def __len__(self):
        return 40

    def __getitem__(self, index):
        draw = torch.Generator().manual_seed(index)
        frames = torch.randn(12 + index % 8, 10, generator=draw)
        return frames, torch.randint(1, 4, (2,), generator=draw)


def loss(model, batch):
    return smoothed_ctc(model(batch.features), batch.frames, batch.tokens, batch.lengths)


def test_as_a_transform_it_is_the_same_in_any_cut_and_with_workers(tmp_path):
    class Double(Augmented):
        def __getitem__(self, index):
            features, tokens = super().__getitem__(index)
            return features.double(), tokens

    task = Task(
        model=lambda: nn.Sequential(nn.Linear(10, 6), nn.Tanh(), nn.Linear(6, 4)).double(),
        train=Augmented(Texts(), SpecAugment(4, 1, 5, 1)),
        valid=Texts(),
        collate=pad_utterances,
        loss=lambda model, batch: loss(model, batch._replace(features=batch.features.double())),
    )
    whole = weights_after(task, tmp_path, 16, 16)
    cut = weights_after(task, tmp_path, 4, 16)
    torch.testing.assert_close(cut, whole, rtol=1e-12, atol=1e-12)
    assert torch.equal(weights_after(task, tmp_path, 4, 16, loader={"workers": 2}), cut)
