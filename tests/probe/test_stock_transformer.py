"""torch's own transformers, with masks as their users make them, are traced without data."""

import pytest
import torch
from steps import HERE
from torch import nn
from torch.nn import functional

from autotrain.probe.model import ModelTracer
from autotrain.probe.trace.building import real_model
from autotrain.task import Loss, Task

WORDS = 48  # their causal mask has more than a thousand floats


class Padded(torch.utils.data.Dataset):
    def __len__(self):
        return 16

    def __getitem__(self, index):
        text = torch.zeros(WORDS, dtype=torch.long)
        text[: WORDS - index] = 1 + torch.arange(WORDS - index) % 30
        return text


class Encoder(nn.Module):
    """As a masked language model has it: what is padding is told."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(32, 64, padding_idx=0)
        layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)
        self.body, self.out = nn.TransformerEncoder(layer, 2), nn.Linear(64, 32)

    def forward(self, x):
        return self.out(self.body(self.words(x), src_key_padding_mask=x == 0))


class Both(nn.Module):
    """As a translator has it: a decoder that may not look ahead, and padding."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(32, 64, padding_idx=0)
        self.body, self.out = nn.Transformer(64, 4, 1, 1, 128, batch_first=True), nn.Linear(64, 32)

    def forward(self, x):
        ahead, seen, gone = (
            nn.Transformer.generate_square_subsequent_mask(x.shape[1]), self.words(x), x == 0,
        )  # fmt: skip
        made = self.body(
            seen, seen, tgt_mask=ahead, src_key_padding_mask=gone, memory_key_padding_mask=gone
        )
        return self.out(made)


def words(model, batch):
    total = functional.cross_entropy(model(batch).mT, batch, ignore_index=0, reduction="sum")
    return Loss(total=total, weight=(batch != 0).sum())


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("made", [Encoder, Both])
def test_masks_and_padding_need_no_real_step(made):
    """And what is counted is what a real step takes."""
    task = Task(model=made, train=Padded(), loss=words)
    fake = ModelTracer.open(task, HERE)
    counted = fake.trace(4)
    assert fake.profile().traced == "fake"

    real = ModelTracer.open(task, HERE)
    real.mode, real.model = None, real_model(task, HERE)
    measured = real.trace(4)
    assert counted.peak_bytes == measured.peak_bytes
    assert counted.accumulate_peak_bytes == measured.accumulate_peak_bytes
    # Padding that torch leaves out in validation is counted.
    assert measured.evaluate_peak_bytes <= counted.evaluate_peak_bytes < measured.peak_bytes


class Frames(nn.Module):
    """Behind a layer, whose output autocast makes bf16; torch's one operator for a whole layer in
    eval mode takes that for real, and not where operators are only looked at."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)
        self.enter, self.out = nn.Linear(8, 64), nn.Linear(64, 5)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x):
        return self.out(self.body(self.enter(x))).mean(1)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_layer_in_eval_mode_is_its_parts_in_each_precision(dtype):
    frames = [(torch.randn(20, 8), n % 5) for n in range(16)]
    fast = torch.backends.mha.get_fastpath_enabled()
    tracer = ModelTracer.open(Task.classification(model=Frames, train=frames), HERE)
    counted = tracer.trace(4, dtype)
    assert tracer.profile().traced == "fake"
    assert 0 < counted.evaluate_peak_bytes < counted.peak_bytes
    products = sum(w.flops * w.calls for w in counted.evaluate_work if w.kind == "matmul")
    assert products > 4 * 20 * 2 * 2 * 64 * (4 * 64 + 2 * 128)  # its projections alone
    assert torch.backends.mha.get_fastpath_enabled() == fast
