"""Shortcuts against the fake kernels that they stand in for."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from autotrain.probe.trace.shortcuts import RULES

ATEN = torch.ops.aten


def calls():
    """(operator, arguments) on fake tensors: plain ones, and those out of the ordinary."""
    new = torch.empty
    for dtype in (torch.float32, torch.bfloat16):
        x = new(4, 6, 5, 5, dtype=dtype)
        c = new(6)
        for each in (x, x.to(memory_format=torch.channels_last)):
            for training in (True, False):
                yield ATEN.native_batch_norm, (each, c, c, c, c, training, 0.1, 1e-5)
                for mask in ([True] * 3, [True, True, False]):
                    stats = (c, c, c, c, c, training, 1e-5, mask)
                    yield ATEN.native_batch_norm_backward, (x, each, *stats)
        yield ATEN.native_batch_norm, (x, None, None, c, c, True, 0.1, 1e-5)
        y, w = new(3, 7, 8, dtype=dtype), new(8)
        rows = new(3, 7, 1, dtype=dtype)
        for each in (y, new(3, 8, 7, dtype=dtype).transpose(1, 2)):
            yield ATEN.native_layer_norm, (each, [8], w, w, 1e-5)
            yield ATEN.native_layer_norm, (each, [7, 8], None, None, 1e-5)
            for mask in ([True] * 3, [True, False, False]):
                backward = (y, each, [8], rows, rows, w, w, mask)
                yield ATEN.native_layer_norm_backward, backward
            yield (
                ATEN.native_layer_norm_backward,
                (y, each, [8], rows, rows, None, None, [True] * 3),
            )
        for gradient in (y, y.expand(3, 7, 8), new(8, dtype=dtype).expand(3, 7, 8)):
            yield ATEN.silu_backward, (gradient, y)
            yield ATEN.gelu_backward, (gradient, y)
            yield ATEN.threshold_backward, (gradient, y, 0)
            yield ATEN.leaky_relu_backward, (gradient, y, 0.1, False)
            yield ATEN.elu_backward, (gradient, 1.0, 1, 1, False, y)
    yield ATEN.silu_backward, (new(3, 7, 8), new(3, 7, 8, dtype=torch.bfloat16))


def sizes(outputs):
    made = outputs if isinstance(outputs, tuple) else (outputs,)
    return [None if o is None else (o.shape, o.untyped_storage().nbytes()) for o in made]


def test_a_shortcut_makes_what_the_fake_kernel_makes():
    with FakeTensorMode(), torch.no_grad():
        seen = set()
        for op, args in calls():
            name = f"{op}.default"
            seen.add(name)
            assert sizes(RULES[name](op.default, args, {})) == sizes(op.default(*args)), (
                name,
                args,
            )
    assert len(seen) == 9


@pytest.mark.parametrize("name", RULES)
def test_every_shortcut_is_an_operator_of_torch(name):
    packet, overload = name.split(".")[1:]
    assert getattr(getattr(ATEN, packet), overload)
