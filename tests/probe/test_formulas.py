"""Gradients that are written into zeros take no more in a trace than in a run."""

import pytest
import torch
from steps import classifier, opened
from test_scratch import real_peak
from torch import nn
from torch.utils.checkpoint import checkpoint


class Picks(nn.Module):
    """Many rows, of which each sample's few are picked."""

    def __init__(self, pick):
        super().__init__()
        self.pick, self.rows = pick, nn.Parameter(torch.randn(500, 32))
        self.wide, self.out = nn.Linear(8, 32), nn.Linear(32, 10)

    def forward(self, x):
        rows = self.rows + self.wide(x)[:, None]
        return self.out(self.pick(rows))


PLACES = torch.arange(20)
PICKS = {
    "gather": lambda rows: rows.gather(1, PLACES[None, :, None].expand(len(rows), 20, 32)).mean(1),
    "max": lambda rows: rows.max(1).values,
    "median": lambda rows: rows.median(1).values,
    "sort": lambda rows: rows.sort(1).values[:, 0],
    "topk": lambda rows: rows.topk(5, 1).values.mean(1),
    "index_select": lambda rows: rows.index_select(1, PLACES).mean(1),
    "index": lambda rows: rows[:, PLACES].mean(1),
    "take_along_dim": lambda rows: rows.take_along_dim(PLACES[None, :, None], 1).mean(1),
    "in the forward pass": lambda rows: torch.zeros_like(rows).index_add(1, PLACES, rows[:, :20])
    .square().mean(1),
}  # fmt: skip


@pytest.mark.parametrize("name", PICKS)
def test_what_is_picked_takes_as_much_as_in_a_run(name):
    tracer = opened(classifier(lambda: Picks(PICKS[name]), 8))
    for micro_batch in (2, 16):
        made = tracer.trace(micro_batch)
        assert made.peak_bytes == pytest.approx(real_peak(tracer, micro_batch, "fp32"), rel=0.01)


class Again(nn.Module):
    """A block that is computed again, or not."""

    def __init__(self, how):
        super().__init__()
        self.how, self.inner = how, nn.Sequential(nn.Linear(8, 64), nn.GELU(), nn.Linear(64, 10))

    def forward(self, x):
        if self.how is None:
            return self.inner(x)
        x = x.clone().requires_grad_()
        return checkpoint(self.inner, x, use_reentrant=self.how)


class Penalised(Again):
    """The gradient of a gradient: computed in the forward pass, and nothing twice."""

    def forward(self, x):
        if not self.training:
            return self.inner(x)
        x = x.clone().requires_grad_()
        out = self.inner(x)
        (slope,) = torch.autograd.grad(out.sum(), x, create_graph=True)
        return out + slope.square().sum(1, keepdim=True)


@pytest.mark.parametrize("how", [False, True])
def test_a_model_that_computes_activations_again_is_known(how):
    assert opened(classifier(lambda: Again(how), 8)).trace(4).recomputes


@pytest.mark.parametrize("make", [Again, Penalised])
def test_one_that_does_not_is_not_taken_for_it(make):
    assert not opened(classifier(lambda: make(None), 8)).trace(4).recomputes


class Sifted(nn.Module):
    """Rows that are picked by what is in them, or by where they are."""

    def __init__(self, sift):
        super().__init__()
        self.sift, self.inner = sift, nn.Linear(8, 10)

    def forward(self, x):
        x = self.inner(x)
        return x + self.sift(x).sum() / 100


@pytest.mark.parametrize(
    ("sift", "varies"),
    [
        (lambda x: x[x > 0], True),
        (lambda x: x[torch.where(x[:, 0] > 0)], True),
        (lambda x: torch.masked_select(x, x > 0), True),
        (lambda x: x[:, torch.arange(3)], False),
        (lambda x: torch.where(x > 0, x, 0), False),
    ],
)
def test_sizes_that_follow_from_values_are_known(sift, varies):
    tracer = opened(classifier(lambda: Sifted(sift), 8))
    assert tracer.trace(4).varies == varies
    assert tracer.profile().differ == varies
