"""What a step needs, against hand arithmetic and torch's own optimizers."""

import inspect

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autotrain.optimizer import IMPLEMENTATIONS
from autotrain.optimizer import OPTIMIZERS as CLASSES
from autotrain.plan import cuda, host, memory
from autotrain.probe.trace.counter import Counter

from .profiles import GIB, MIB, OPTIMIZERS, between, model, trace

SHAPES = [(64, 48), (64, 48), (64, 48), (48,), (32, 64), (10, 32), (3,)]


def stepped(name, implementation, momentum, decay):
    """A real optimizer after its first step, its parameters with fresh gradients."""
    torch.manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(shape)) for shape in SHAPES]
    takes = inspect.signature(CLASSES[name]).parameters
    offered = {"momentum": momentum, "weight_decay": decay}
    arguments = {k: v for k, v in offered.items() if v and k in takes}
    optimizer = CLASSES[name](parameters, lr=1e-3, **arguments, **IMPLEMENTATIONS[implementation])
    for _ in range(2):
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
    return optimizer, parameters


def state_tensors(optimizer):
    return [
        value for state in optimizer.state.values() for value in state.values()
        if isinstance(value, torch.Tensor)
    ]  # fmt: skip


def total(tensors):
    return sum(tensor.nbytes for tensor in tensors)


@pytest.mark.parametrize("momentum", [None, 0.9])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_states_are_those_that_torch_keeps(name, momentum):
    optimizer, parameters = stepped(name, "for-loop", momentum, 0.0)
    said = memory.optimizer_state_bytes(name, total(parameters), len(parameters), momentum)
    assert said == total(state_tensors(optimizer))


CASES = [
    (name, how)
    for name in OPTIMIZERS
    for how in ("fused", "foreach", "for-loop")
    if how != "fused" or name in memory.FUSED
]


@pytest.mark.parametrize("decay", [0.0, 0.01])
@pytest.mark.parametrize(("name", "how"), CASES)
def test_an_optimizer_step_makes_no_more_for_a_moment_than_is_said(name, how, decay):
    optimizer, parameters = stepped(name, how, 0.9, decay)
    counter = Counter()
    counter.hold([*parameters, *(p.grad for p in parameters), *state_tensors(optimizer)])
    counter.restart()
    before = counter.now
    with counter:
        optimizer.step()
    made = counter.peak - before
    of = model(
        total(parameters), largest_parameter_bytes=max(p.nbytes for p in parameters)
    ).model_copy(update={"trainable_bytes": total(parameters)})
    said = memory.optimizer_step_bytes(name, how, of)
    assert made <= said + 256
    if decay and name != "rprop":
        assert made >= 0.9 * said - 256


def test_the_optimizers_that_torch_can_fuse_are_known():
    takes = {
        name for name, made in CLASSES.items() if "fused" in inspect.signature(made).parameters
    }
    assert takes == memory.FUSED


# --- traced quantities ---------------------------------------------------------------------

sizes = st.lists(st.integers(1, 200), min_size=1, max_size=5)


@given(sizes, st.integers(0, GIB), st.integers(0, GIB))
def test_a_traced_size_is_given_back_exactly_and_lines_in_between(micros, fixed, each):
    traces = tuple(trace(m, fixed, each, 0) for m in micros)
    for known in traces:
        assert memory.affine(traces, lambda t: t.peak_bytes, known.micro_batch) == known.peak_bytes
    if len(set(micros)) > 1:
        for micro in (1, 7, 100, 1000):
            line = fixed + each * micro
            assert memory.affine(traces, lambda t: t.peak_bytes, micro) == pytest.approx(line)


@given(
    st.dictionaries(st.integers(1, 200), st.integers(0, 10**9), min_size=1),
    st.integers(1, 2000),
    st.integers(1, 2000),
)
def test_what_grows_where_it_was_traced_grows_everywhere(raw, one, other):
    values = dict(zip(sorted(raw), sorted(raw.values()), strict=True))
    traces = tuple(
        trace(m, 0, 0, 0).model_copy(update={"peak_bytes": v}) for m, v in values.items()
    )
    less, more = sorted((one, other))

    def read(size):
        return memory.affine(traces, lambda t: t.peak_bytes, size)

    assert 0 <= read(less) <= read(more) * (1 + 1e-12) + 1e-6


def test_the_same_size_traced_twice_counts_once():
    traces = (trace(4, 100, 10, 0), trace(4, 200, 10, 0))
    assert memory.affine(traces, lambda t: t.peak_bytes, 4) == 240
    assert memory.affine(traces, lambda t: t.peak_bytes, 8) == 480


def peak(of, micro, accum=1, optimizer="adamw", how="fused", momentum=None):
    setup = memory.Setup(micro, accum, "fp32", optimizer, how, momentum)
    return memory.tensor_peak_bytes(of, setup)


def test_the_peak_by_hand():
    of = model(weights=100 * MIB, each=10 * MIB)
    states = 200 * MIB + 20 * 4
    # 8 samples: activations of 80 MiB are less than the gradients that backward leaves behind.
    assert peak(of, 8) == states + 100 * MIB + 100 * MIB + of.traces[1].batch_bytes
    assert peak(of, 8, accum=2) == states + 200 * MIB + 80 * MIB
    # 32: activations alone.
    assert peak(of, 32) == states + 100 * MIB + 320 * MIB
    # foreach AdamW makes one copy of all parameters for a moment.
    updating = 300 * MIB + of.traces[1].batch_bytes
    assert peak(of, 8, how="foreach") == states + updating


@given(st.integers(1, 10**5), st.integers(1, 10**5), st.sampled_from(OPTIMIZERS))
def test_more_samples_or_accumulating_never_take_less(one, other, name):
    of = model()
    less, more = sorted((one, other))
    assert peak(of, less, optimizer=name) <= peak(of, more, optimizer=name)
    assert peak(of, less, optimizer=name) <= peak(of, less, accum=2, optimizer=name)


def test_small_traces_that_lie_flat_do_not_promise_that_anything_fits():
    """At 2 and 8 samples the gradients are the peak; at 4000 the activations are 8 GiB."""
    assert peak(model(weights=40 * MIB, each=2 * MIB), 4000) > 7 * GIB


# --- from tensors to the device ------------------------------------------------------------


@given(between(MIB, 200 * GIB), between(1, 10**4), st.integers(0, 9))
def test_every_interval_is_in_order_and_a_device_shows_more_than_the_tensors(weights, micro, n):
    of, setup = model(weights=weights), memory.Setup(micro, 2, "fp32", "adamw", "fused", None)
    tensors = memory.tensor_interval(memory.tensor_peak_bytes(of, setup))
    reserved = cuda.reserved(of, setup, tensors)
    on_gpu = cuda.device_peak(reserved)
    on_cpu = host.resident(of, setup, tensors, weights, n * host.FORK_WORKER_BYTES)
    for prediction in (tensors, reserved, on_gpu, on_cpu):
        assert prediction.low <= prediction.expected <= prediction.high
    assert tensors.expected < reserved.expected < on_gpu.expected
    assert tensors.expected < on_cpu.expected


@given(st.integers(0, 500), st.integers(0, 10**6), st.integers(0, 10**6))
def test_the_largest_fit_is_the_last_that_fits_and_grows_with_the_budget(most, one, other):
    def takes(size):
        return 100 + 7 * size

    less, more = sorted((one, other))
    fit = memory.largest_fit(takes, less, most)
    assert fit == 0 or takes(fit) <= less
    assert fit == most or takes(fit + 1) > less
    assert memory.largest_fit(takes, more, most) >= fit


def test_the_input_rule_counts_the_input_and_nothing_else():
    """EfficientNet-B0 at 224 x 224 on an 8 GB card: thousands, where a few hundred run."""
    assert memory.input_bytes_rule(8 * GIB, 16 * MIB, GIB, 224 * 224 * 3 * 4) == 12455
    assert memory.input_bytes_rule(1, 10, 10, 0) == 0
