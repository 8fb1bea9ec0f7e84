"""What operators use inside, measured one by one, beside what whole steps really allocate."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from steps import classifier, opened
from torch import nn

from autotrain.probe.trace import scratch
from autotrain.probe.trace.scratch import Call, Shape, _allocated, _at, _between
from autotrain.probe.trace.tape import inserted
from autotrain.schema import Device, Rates, StepTrace

aten = torch.ops.aten


def depthwise():
    return nn.Sequential(
        nn.Conv2d(8, 64, 1), nn.Conv2d(64, 64, 5, padding=2, groups=64), nn.BatchNorm2d(64),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip


class Last(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(24, 48, batch_first=True), nn.Linear(48, 10)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


TASKS = {
    "depthwise": lambda: classifier(depthwise, 8, 12, 12),
    "lstm": lambda: classifier(Last, 20, 24),
}


def real_peak(tracer, micro_batch, dtype):
    """Most bytes alive in a later forward and backward, gradients not yet there."""
    model, batch = tracer.task.model().train(), tracer._batch(micro_batch)

    def step():
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bf16"):
            loss = tracer.task.loss(model, batch)
        (loss.total / loss.weight).backward()

    step()
    model.zero_grad(set_to_none=True)
    held = [*model.parameters(), *model.buffers(), *batch]
    grown = _allocated(step)  # the peak, less the gradients, which stay
    return sum(t.nbytes for t in held) + grown + sum(p.nbytes for p in model.parameters())


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("name", TASKS)
def test_a_trace_peaks_where_the_allocator_does(name, dtype):
    tracer = opened(TASKS[name]())
    for micro_batch in (2, 8):
        made = tracer.trace(micro_batch, dtype)
        assert made.peak_bytes == pytest.approx(real_peak(tracer, micro_batch, dtype), rel=0.005)


def test_where_an_operator_is_too_large_to_run_two_smaller_ones_tell(monkeypatch):
    whole = opened(TASKS["depthwise"]())
    exact = [whole.trace(size).peak_bytes for size in (4, 16)]
    monkeypatch.setattr(scratch, "_RUN_BYTES", 400_000)
    cut = opened(TASKS["depthwise"]())
    cut.trace(2)  # a line needs two points
    assert [cut.trace(size).peak_bytes for size in (4, 16)] == pytest.approx(exact, rel=0.05)


def test_a_gpus_trace_holds_nothing_of_what_this_cpu_uses():
    rates = Rates(matmul={"fp32": 1e12}, bandwidth=1e11, op_seconds=1e-6, source="assumed")
    gpu = Device(
        kind="mps", name="a GPU", total_bytes=2**33, free_bytes=2**33, native_dtypes=("fp32",),
        rates=rates,
    )  # fmt: skip
    assert scratch.runs_here(None)
    assert not scratch.runs_here(gpu)


def test_an_operator_that_refuses_to_run_counts_as_nothing():
    shape = Shape((2, 3), (3, 1), torch.float32)
    wrong = Shape((5, 7), (7, 1), torch.float32)
    _, tree = torch.utils._pytree.tree_flatten(((0, 0), {}))
    assert scratch.measured(aten.mm.default, (shape, wrong), tree, None) == 0


@given(st.integers(0, 50), st.integers(0, 50), st.integers(3, 30), st.integers(1, 40))
def test_a_shape_is_found_on_the_line_through_two_micro_batches(each, fixed, high, size):
    def at(batch):
        return Shape((each * batch + fixed, 7), (7, 1), torch.float32)

    assert _between(at(2), at(high), 2, high, size) == at(size)


def test_what_is_on_no_line_is_not_made_up():
    assert _between(3, 4, 2, 8, 4) is None
    calls = [
        Call(aten.relu.default, (Shape((size,), (1,), torch.float32),), None, 0, 0, 0.0, 0)
        for size in (3, 4)
    ]
    assert _at(4, 8, 0, {2: calls[:1], 8: calls[1:]}) is None


def test_inside_bytes_are_born_and_die_where_they_are_used():
    made = StepTrace(
        micro_batch=1, dtype="fp32", peak_bytes=150, accumulate_peak_bytes=130,
        evaluate_peak_bytes=110, batch_bytes=10, matmul_flops=0, convolution_flops=0,
        moved_bytes=0, ops=4, tape=(100, 10, 40, -3, 20, -4), marks=(1, 2, 4, 6),
    )  # fmt: skip
    more = inserted(made, {3: 5, 5: 50})
    assert more.tape == (100, 10, 40, 5, -4, -3, 20, 50, -6, -5)
    assert more.marks == (1, 2, 6, 10)
    assert (more.peak_bytes, more.accumulate_peak_bytes) == (155, 180)
    assert more.evaluate_peak_bytes == 110
