"""Frozen parts and averaged weights in a traced step, and in one that torch's allocator counted."""

import pytest
import torch
from steps import NEED_DATA, classifier, cnn, opened
from torch import nn

from autotrain import freezing, optimizer
from autotrain.averaging import Average
from autotrain.errors import AutotrainError
from autotrain.plan import memory
from autotrain.probe.allocated import most_alive
from autotrain.schema import OptimizerSection

WIDTH = 24
SECTION = OptimizerSection(name="adamw", lr=1e-3, weight_decay=0.01, implementation="fused")


def task():
    return classifier(lambda: cnn(WIDTH), 3, 16, 16)


def counted(patterns, micro, accum, *, ema):
    """The most bytes alive in the third step of a real training, by the allocator's account."""
    torch.manual_seed(0)
    of = task()
    model = of.model().train()
    freezing.freeze(model, patterns)
    made, average = optimizer.build(SECTION, model), Average(model, 0.99) if ema else None
    picked = [of.train[i] for i in range(micro)]
    inputs = torch.stack([x for x, _ in picked]), torch.stack([y for _, y in picked])

    def step():
        batch = tuple(tensor.clone() for tensor in inputs)
        for _ in range(accum):
            loss = of.loss(model, batch)
            (loss.total / loss.weight).backward()
        made.step()
        if average is not None:
            average.update()
        made.zero_grad(set_to_none=True)

    step()
    step()
    kept = [] if average is None else [*average.tensors().values()]
    return most_alive(model, made, step, kept)


@pytest.mark.parametrize("ema", [False, True])
@pytest.mark.parametrize("patterns", [(), ("0.*", "1.*"), ("[01].*", "4.weight"), ("*.bias",)])
@pytest.mark.parametrize(("micro", "accum"), [(8, 1), (3, 2)])
def test_the_tensor_peak_of_a_partly_frozen_averaged_model_is_predicted(
    patterns, ema, micro, accum
):
    tracer = opened(task())
    tracer.freeze(patterns)
    tracer.trace(2)
    tracer.trace(micro)
    setup = memory.Setup(micro, accum, "fp32", "adamw", "fused", None, ema=ema)
    said = memory.tensor_peak_bytes(tracer.profile(), setup)
    assert said == pytest.approx(counted(patterns, micro, accum, ema=ema), rel=0.01)


def test_a_frozen_bottom_takes_less_of_everything():
    plain, frozen = opened(task()), opened(task())
    frozen.freeze(("0.*", "1.*", "4.*", "5.*"))
    whole, part = plain.trace(8), frozen.trace(8)
    assert part.peak_bytes < whole.peak_bytes
    assert part.convolution_flops < 0.7 * whole.convolution_flops
    said, known = frozen.profile(), plain.profile()
    assert said.trainable_bytes == (2 * WIDTH * 10 + 10) * 4
    assert (said.parameters, said.blocks) == (known.parameters, known.blocks)
    assert (said.batch_norm, known.batch_norm) == (False, True)
    assert (said.statistics_bytes, known.statistics_bytes) == (2 * 3 * WIDTH * 4,) * 2


def test_what_is_frozen_can_be_changed_between_two_traces():
    tracer = opened(task())
    before = tracer.trace(4)
    tracer.freeze(("0.*", "1.*"))
    assert tracer.trace(4).peak_bytes < before.peak_bytes
    tracer.freeze(())
    assert tracer.trace(4) == before


def test_a_model_that_must_run_for_real_is_frozen_too():
    tracer = opened(NEED_DATA["item"]())
    tracer.freeze(("layer.bias",))
    tracer.trace(2)
    assert tracer.mode is None
    wanted = {name: p.requires_grad for name, p in tracer.model.named_parameters()}
    assert wanted == {"layer.weight": True, "layer.bias": False}


def test_a_pattern_that_matches_nothing_is_one_error():
    with pytest.raises(AutotrainError, match=r"train\.freeze: 'head\.\*' matches no parameter"):
        opened(task()).freeze(("head.*",))


def test_what_a_model_is_made_of_is_told_for_the_optimizers_groups():
    tracer = opened(classifier(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), 64))
    tracer.trace(2)
    profile = tracer.profile()
    assert profile.trainable_dims == (2, 1)
    assert profile.trainable_depths == (0, 0)
