"""A fake step on the CPU through CUDA's kernels: what each operator allocates and keeps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from autotrain import Loss, Task
from autotrain.errors import AutotrainError
from autotrain.probe.model import ModelTracer
from autotrain.probe.trace import as_cuda, attention, recurrent
from autotrain.probe.trace import autocast as policy
from autotrain.schema import Device, Rates
from tests.probe.steps import HERE, TASKS, Rows, classifier

HALF, BF16, FP32 = torch.float16, torch.bfloat16, torch.float32
FAKE = FakeTensorMode()


def device(capability="8.6", kind="cuda"):
    rates = Rates(matmul={"fp32": 1e12}, bandwidth=1e11, op_seconds=1e-6, source="assumed")
    return Device(
        kind=kind, name="a GPU", total_bytes=1 << 33, free_bytes=1 << 33, rates=rates,
        compute_capability=capability, native_dtypes=("fp32", "bf16", "fp16"),
    )  # fmt: skip


class Seen(TorchDispatchMode):
    """Notes every operator with its results."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        rule = recurrent.RULES.get(str(func))
        run = lambda *a, **k: rule(func, a, k) if rule else func(*a, **k)  # noqa: E731
        out = run(*args, **(kwargs or {}))
        results = out if isinstance(out, tuple | list) else [out]
        self.calls.append((str(func), [r for r in results if isinstance(r, torch.Tensor)], args))
        return out

    def names(self):
        return [name.split(".")[1] for name, _, _ in self.calls]

    def of(self, name):
        return next(results for each, results, _ in self.calls if each.split(".")[1] == name)

    def args(self, name):
        return next(args for each, _, args in self.calls if each.split(".")[1] == name)


def run(step, *, capability="8.6", kind="cuda", dtype=None):
    """The step on fake tensors, as on a GPU; what was dispatched."""
    with FAKE, as_cuda.seen_as(device(capability, kind)) as lens, Seen() as calls:
        with as_cuda.autocast(lens, dtype):
            out = step()
        if isinstance(out, torch.Tensor) and out.requires_grad:
            out.sum().backward()
    return calls


def heads(*shape, dtype=BF16, grad=True):
    return torch.empty(shape, dtype=dtype, requires_grad=grad)


# --- dropout -------------------------------------------------------------------------------


def test_dropout_keeps_a_boolean_mask():
    calls = run(lambda: functional.dropout(torch.empty(8, 64, requires_grad=True), 0.1))
    out, mask = calls.of("native_dropout")
    assert (out.dtype, mask.dtype, mask.shape) == (FP32, torch.bool, (8, 64))
    assert "native_dropout_backward" in calls.names()
    assert "bernoulli_" not in calls.names()


@pytest.mark.parametrize(("p", "training"), [(0.0, True), (1.0, True), (0.5, False)])
def test_dropout_that_draws_nothing_makes_no_mask(p, training):
    calls = run(lambda: functional.dropout(torch.empty(8, 64, requires_grad=True), p, training))
    assert "native_dropout" not in calls.names()


@pytest.mark.parametrize(
    "drop",
    [torch.feature_dropout, torch.alpha_dropout, torch.dropout_],
)
def test_other_kinds_of_dropout_draw_noise_as_on_a_cpu(drop):
    calls = run(lambda: drop(torch.empty(2, 8, 4, 4, requires_grad=True) * 1, 0.5, True))
    assert "bernoulli_" in calls.names()
    assert "native_dropout" not in calls.names()


def test_dropout_inside_of_attention_with_weights_keeps_a_boolean_mask():
    def step():
        layer = nn.MultiheadAttention(64, 4, dropout=0.1, batch_first=True)
        words = torch.empty(2, 10, 64)
        return layer(words, words, words, need_weights=True)[0]

    assert run(step).of("native_dropout")[1].shape == (8, 10, 10)


# --- attention -----------------------------------------------------------------------------

CHOICES = {
    "half": ({}, "8.6", "flash"),
    "float": ({"dtype": FP32}, "8.6", "efficient"),
    "mask": ({"mask": True}, "8.6", "efficient"),
    "turing takes no bf16": ({}, "7.5", "math"),
    "turing, fp16": ({"dtype": HALF}, "7.5", "efficient"),
    "hopper": ({}, "9.0", "cudnn"),
    "hopper, mask": ({"mask": True}, "9.0", "cudnn"),
    "hopper, a mask that learns": ({"mask": "learns"}, "9.0", "efficient"),
    "hopper, float": ({"dtype": FP32}, "9.0", "efficient"),
    "blackwell": ({}, "10.0", "cudnn"),
    "consumer blackwell": ({}, "12.0", "flash"),
    "width not of 8": ({"width": 20}, "8.6", "flash"),
    "float, width not of 4": ({"width": 18, "dtype": FP32}, "8.6", "math"),
    "wide": ({"width": 320}, "8.0", "efficient"),
    "wide, in training, on a consumer GPU": ({"width": 208}, "8.6", "efficient"),
    "wide, in training, on an A100": ({"width": 208}, "8.0", "flash"),
    "causal, unequal lengths": ({"causal": True, "other": 20}, "8.6", "efficient"),
    "grouped": ({"kv": 2, "grouped": True}, "8.6", "flash"),
    "grouped, float": ({"kv": 2, "grouped": True, "dtype": FP32}, "8.6", "math"),
}


def call(dtype=BF16, mask=False, width=64, causal=False, other=16, kv=4, grouped=False):
    query = heads(2, 4, 16, width, dtype=dtype)
    key, value = (heads(2, kv, other, width, dtype=dtype) for _ in range(2))
    bias = torch.zeros(16, other, dtype=torch.bool) if mask else None
    bias = heads(16, other) if mask == "learns" else bias
    return attention.Call(query, key, value, bias, 0.0, causal, None, grouped)


@pytest.mark.parametrize("case", CHOICES)
def test_the_kernel_follows_from_dtype_mask_shape_and_device(case):
    options, capability, kernel = CHOICES[case]
    major, minor = map(int, capability.split("."))
    assert attention.choose(call(**options), (major, minor)) == kernel


def test_a_kernel_that_the_user_chose_is_taken():
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.EFFICIENT_ATTENTION):
        assert attention.choose(call(), (9, 0)) == "efficient"
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        assert attention.choose(call(), (8, 6)) == "math"


def attend(**options):
    given = call(**options)
    return lambda: functional.scaled_dot_product_attention(
        *given[:3], attn_mask=given.mask, is_causal=given.causal, enable_gqa=given.grouped
    )


def test_flash_keeps_one_fp32_statistic_for_a_row():
    with FAKE:
        step = attend()
    calls = run(step)
    out, statistics = calls.of("_scaled_dot_product_flash_attention")[:2]
    assert (out.dtype, out.shape) == (BF16, (2, 4, 16, 64))
    assert (statistics.dtype, statistics.shape) == (FP32, (2, 4, 16))
    assert [g.dtype for g in calls.of("_scaled_dot_product_flash_attention_backward")] == [BF16] * 3


def test_flash_sums_the_gradient_of_queries_in_fp32():
    with FAKE:
        calls = run(attend())
    args = calls.args("_scaled_dot_product_flash_attention_backward")
    used = attention.INSIDE["aten._scaled_dot_product_flash_attention_backward.default"](args)
    rows = 2 * 4 * 128  # 16 steps are rounded up to 128
    assert used >= 4 * rows * 64 + 4 * rows


def test_grouped_queries_widen_the_gradients_of_keys():
    with FAKE:
        plain, grouped = run(attend()), run(attend(kv=2, grouped=True))
    name = "_scaled_dot_product_flash_attention_backward"
    inside = attention.INSIDE[f"aten.{name}.default"]
    more = inside(grouped.args(name)) - inside(plain.args(name))
    assert more == 2 * (2 * 4 * 16 * 64) * 2


def test_a_width_that_is_no_multiple_of_8_is_padded_by_copies():
    with FAKE:
        calls = run(attend(width=20))
    assert calls.names().count("constant_pad_nd") >= 3
    assert calls.of("_scaled_dot_product_flash_attention")[0].shape[-1] == 24


def test_a_boolean_mask_becomes_a_bias_padded_to_8():
    with FAKE:
        calls = run(attend(mask=True, other=20))
    assert calls.of("constant_pad_nd")[0].shape == (16, 24)
    bias = calls.args("_scaled_dot_product_efficient_attention")[3]
    assert (bias.dtype, bias.shape, bias.stride()[:2]) == (BF16, (2, 4, 16, 20), (0, 0))


def test_efficient_attention_rounds_its_statistics_up_to_32_and_needs_none_without_backward():
    with FAKE:
        trained = run(attend(dtype=FP32))
        with torch.no_grad():
            evaluated = run(attend(dtype=FP32))
    name = "_scaled_dot_product_efficient_attention"
    assert trained.of(name)[1].shape == (2, 4, 32)
    assert evaluated.of(name)[1].numel() == 0


def test_efficient_attention_in_fp32_multiplies_gradient_and_output():
    with FAKE:
        calls = run(attend(dtype=FP32))
    name = "_scaled_dot_product_efficient_attention_backward"
    used = attention.INSIDE[f"aten.{name}.default"](calls.args(name))
    assert used >= 4 * (2 * 4 * 16 * 64)


# --- recurrent -----------------------------------------------------------------------------

KINDS = {"lstm": nn.LSTM, "gru": nn.GRU, "tanh": nn.RNN}


@pytest.mark.parametrize(
    ("kind", "kept", "busy"),
    [("lstm", 736_000_000, 17_730_560), ("gru", 864_000_000, 13_169_920)],
)
def test_cudnn_space_is_what_was_printed_by_others(kind, kept, busy):
    """Pytorch issue 2895; 4 layers of 320 on 123 features, 250 steps of 100 are inferred."""
    gates, mode = {"lstm": (4, 2), "gru": (3, 3)}[kind]
    weights = gates * (320 * (123 + 320) + 3 * 320 * 640)
    shape = recurrent.Layers(mode, 250, 100, 320, 320, 4, 1, True, 4, weights)
    assert (shape.reserve(), shape.workspace()) == (kept, busy)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [None, BF16, HALF])
def test_a_recurrent_layer_is_one_operator_with_a_reserve(kind, dtype):
    def step():
        layer = KINDS[kind](40, 64, num_layers=2, bidirectional=True, batch_first=True)
        return layer(torch.empty(4, 30, 40))[0]

    calls = run(step, dtype=dtype)
    output, state, _, reserve, _ = calls.of("_cudnn_rnn")
    assert (output.shape, state.shape) == ((4, 30, 128), (4, 4, 64))
    assert output.dtype == (dtype or FP32)
    kept = {"lstm": 5, "gru": 6, "tanh": 1}[kind]
    units = 2 * 64 * kept + 64
    assert reserve.nbytes == 30 * 4 * 2 * units * output.element_size()
    assert "_cudnn_rnn_backward" in calls.names()


def test_the_gradients_of_a_recurrent_layer_lie_in_one_buffer():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.LSTM(40, 64, num_layers=2, batch_first=True)

        def forward(self, frames):
            return self.body(frames)[0].mean(1)

    traced = ModelTracer.open(classifier(Net, 50, 40), HERE, device()).trace(4)
    whole = 4 * 4 * (64 * (40 + 64) + 64 * 128 + 2 * 2 * 64)
    assert traced.tape.count(whole) == 2  # of the first micro-batch and of the later one


def test_autocast_copies_the_weights_of_a_recurrent_layer_into_one_buffer():
    with FAKE:
        layer = nn.LSTM(40, 64)
        calls = run(lambda: layer(torch.empty(30, 4, 40))[0], dtype=BF16)
    weights = calls.args("_cudnn_rnn")[1]
    assert {w.dtype for w in weights} == {BF16}
    assert len({w.untyped_storage()._cdata for w in weights}) == 1
    assert layer.weight_ih_l0.grad.dtype == FP32


def test_a_packed_sequence_goes_through_cudnn_as_well():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.LSTM(40, 64, batch_first=True), nn.Linear(64, 10)

        def forward(self, frames):
            lengths = torch.arange(50, 50 - len(frames), -1)
            packed = nn.utils.rnn.pack_padded_sequence(frames, lengths, batch_first=True)
            return self.head(self.body(packed)[1][0][-1])

    tracer = ModelTracer.open(classifier(Net, 50, 40), HERE, device())
    traced = tracer.trace(4)
    assert tracer.mode is not None
    assert 4 * 50 * 4 * 64 * 5 in traced.tape  # the reserve: by the longest, as cuDNN sizes it


@pytest.mark.parametrize(("cell", "name"), [(nn.LSTMCell, "lstm"), (nn.GRUCell, "gru")])
@pytest.mark.parametrize("dtype", [None, BF16])
def test_the_gates_of_a_cell_are_one_kernel(cell, name, dtype):
    def step():
        out = cell(40, 64)(torch.empty(4, 40))
        return out[0] if isinstance(out, tuple) else out

    calls = run(step, dtype=dtype)
    workspace = calls.of(f"_thnn_fused_{name}_cell")[-1]
    assert workspace.shape == (4, {"lstm": 256, "gru": 320}[name])
    assert workspace.dtype == (dtype or FP32)


# --- other kernels -------------------------------------------------------------------------


def test_softmax_of_fp16_makes_no_copy_of_its_input_in_fp32():
    step = lambda: torch.empty(4, 8, dtype=HALF, requires_grad=True).softmax(-1)  # noqa: E731
    calls = run(step, dtype=HALF)
    assert calls.of("_softmax")[0].dtype == FP32
    assert "_to_copy" not in calls.names()


def test_softmax_of_bf16_copies_its_input_first():
    step = lambda: torch.empty(4, 8, dtype=BF16, requires_grad=True).softmax(-1)  # noqa: E731
    assert run(step, dtype=BF16).of("_to_copy")[0].dtype == FP32


def test_rms_norm_keeps_one_statistic_for_a_row():
    calls = run(lambda: nn.RMSNorm(64)(torch.empty(4, 10, 64, requires_grad=True)))
    assert "rsqrt" not in calls.names()
    assert (4, 10, 1) in {tuple(r.shape) for _, results, _ in calls.calls for r in results}


def test_max_pool1d_makes_indices_even_without_gradients():
    def step():
        with torch.no_grad():
            return functional.max_pool1d(torch.empty(2, 3, 8), 2)

    assert run(step).of("max_pool2d_with_indices")[1].dtype == torch.int64


def test_indexing_backward_sorts_its_indices():
    rows = torch.empty(100, device="meta", dtype=torch.int64)
    put = as_cuda.INSIDE["aten.index_put.default"]
    table = torch.empty(50, 8, device="meta")
    assert put((table, [rows], table, True)) == 8 * 5 * 100
    assert put((table, [rows], table, False)) == put((table, [rows], table)) == 0


@pytest.mark.parametrize(
    ("name", "args", "size"),
    [
        ("_softmax_backward_data", ((8, 16), (8, 16)), 4 * 8 * 16),
        ("embedding_dense_backward", ((64, 100, 32), (64, 100), 500, -1, False),
         8 * 4 * 6400 + 4 * (640 + 500) * 32),
        ("embedding_dense_backward", ((8, 100, 32), (8, 100), 500, -1, False), 0),
    ],
)  # fmt: skip
def test_bytes_inside_of_a_backward_kernel(name, args, size):
    given = [torch.empty(a, device="meta") if isinstance(a, tuple) else a for a in args]
    assert as_cuda.INSIDE[f"aten.{name}.default"](given) == size


# --- autocast ------------------------------------------------------------------------------


def test_every_operator_of_cudas_autocast_has_its_policy():
    named = {name for names in policy.POLICIES.values() for name in names}
    theirs = policy.registered("AutocastCUDA")
    assert named <= theirs
    # `_cudnn_rnn` has a wrapper of its own, in `recurrent`.
    assert theirs - policy.registered("AutocastCPU") - named == {"_cudnn_rnn"}


HEADER = Path(torch.__file__).parent / "include/ATen/autocast_mode.h"
LISTS = {
    "lower": "AT_FORALL_LOWER_PRECISION_FP",
    "fp32": "AT_FORALL_FP32",
    "fp32_dtype": "AT_FORALL_FP32_SET_OPT_DTYPE",
    "promote": "AT_FORALL_PROMOTE",
}


@pytest.mark.parametrize("kind", LISTS)
def test_the_policies_are_those_of_torchs_own_lists(kind):
    if not HEADER.exists():
        pytest.skip("this torch brings no headers")
    text = HEADER.read_text().split(f"#define {LISTS[kind]}(_)")[1].split("\n\n")[0]
    entries = [line.strip(" \\")[2:-1].split(", ") for line in text.splitlines()[1:]]
    theirs = {".".join(parts) for parts in entries if parts[-1] != "deprecated"}
    ours = {n for n in policy.POLICIES[kind] if not n.startswith("cudnn_")}
    assert ours <= theirs
    assert theirs - ours <= policy.registered("AutocastCPU")  # the CPU casts these alike


def low(*shape):
    return torch.empty(shape, dtype=BF16)


def full(*shape):
    return torch.empty(shape)


DTYPES = {
    "linear": (lambda: functional.linear(full(2, 4), full(3, 4)), BF16),
    "conv2d": (lambda: functional.conv2d(full(1, 3, 8, 8), full(4, 3, 3, 3)), BF16),
    "conv2d, padding by name": (
        lambda: functional.conv2d(full(1, 3, 8, 8), full(4, 3, 3, 3), padding="same"), BF16
    ),
    "matmul": (lambda: full(2, 4) @ full(4, 3), BF16),
    "mv": (lambda: torch.mv(full(2, 4), full(4)), BF16),
    "addr": (lambda: torch.addr(full(2, 4), full(2), full(4)), BF16),
    "einsum": (lambda: torch.einsum("ij,jk->ik", full(2, 4), full(4, 3)), BF16),
    "prelu": (lambda: functional.prelu(full(2, 4), full(1)), BF16),
    "layer_norm": (lambda: functional.layer_norm(low(2, 4), (4,)), FP32),
    "group_norm": (lambda: functional.group_norm(low(2, 4, 3), 2), FP32),
    "softmax": (lambda: low(2, 4).softmax(-1), FP32),
    "softmax, dtype given": (lambda: low(2, 4).softmax(-1, dtype=BF16), BF16),
    "log_softmax": (lambda: functional.log_softmax(low(2, 4), -1), FP32),
    "cross_entropy": (
        lambda: functional.cross_entropy(low(2, 4), torch.zeros(2, dtype=torch.int64)), FP32
    ),
    "mse_loss": (lambda: functional.mse_loss(low(2, 4), low(2, 4)), FP32),
    "bce with logits": (
        lambda: functional.binary_cross_entropy_with_logits(low(2, 4), low(2, 4)), FP32
    ),
    "exp": (lambda: low(2).exp(), FP32),
    "log": (lambda: low(2).log(), FP32),
    "pow": (lambda: low(2) ** 3, FP32),
    "rsqrt": (lambda: low(2).rsqrt(), FP32),
    "sum": (lambda: low(2).sum(), FP32),
    "sum, dim": (lambda: low(2, 3).sum(1), FP32),
    "prod": (lambda: low(2).prod(), FP32),
    "cumsum": (lambda: low(2).cumsum(0), FP32),
    "norm": (lambda: torch._VF.norm(low(2), 2), FP32),
    "norm, dim": (lambda: torch._VF.norm(low(2, 3), 2, [1], True), FP32),
    "vector norm": (lambda: torch.linalg.vector_norm(low(2)), FP32),
    "interpolate": (
        lambda: functional.interpolate(low(1, 1, 4, 4), scale_factor=2, mode="bilinear"), FP32
    ),
    "addcmul of both": (lambda: torch.addcmul(full(2), low(2), low(2)), FP32),
    "addcmul of low": (lambda: torch.addcmul(low(2), low(2), low(2)), BF16),
    "grid_sample of low": (
        lambda: functional.grid_sample(low(1, 1, 4, 4), low(1, 4, 4, 2), align_corners=False), BF16
    ),
    "mean": (lambda: low(2).mean(), BF16),
    "relu": (lambda: low(2).relu(), BF16),
    "gelu": (lambda: functional.gelu(low(2)), BF16),
    "batch_norm": (
        lambda: functional.batch_norm(low(2, 3, 4), full(3), full(3), full(3), full(3), True), BF16
    ),
    "avg_pool3d": (lambda: functional.avg_pool3d(low(1, 1, 4, 4, 4), 2), BF16),
    "cat of both": (lambda: torch.cat([low(2), full(2)]), FP32),
    "fp64 is left alone": (lambda: torch.empty(2, dtype=torch.float64).exp(), torch.float64),
}  # fmt: skip


@pytest.mark.parametrize("case", DTYPES)
def test_autocast_gives_cudas_dtype(case):
    made, expected = DTYPES[case]
    given = []
    run(lambda: given.append(made()), dtype=BF16)
    assert given[0].dtype == expected


def test_a_weight_is_cast_once_and_its_copy_lives_until_the_forward_pass_ends():
    casts = policy.Casts()
    weight = torch.empty(4, 4, requires_grad=True)
    with torch.autocast("cpu", BF16):
        first = casts.cast(BF16, weight)
        assert casts.cast(BF16, weight) is first
        assert casts.cast(BF16, weight * 1) is not casts.cast(BF16, weight * 1)
    with policy.reading_cuda(casts, BF16):
        assert casts.made
    assert not casts.made


def test_what_autocast_refuses_on_a_gpu_is_refused_here():
    step = lambda: functional.binary_cross_entropy(low(2), low(2))  # noqa: E731
    with pytest.raises(AutotrainError, match="binary_cross_entropy") as refused:
        run(step, dtype=BF16)
    assert "with_logits" in refused.value.hint


def test_a_region_without_autocast_for_cuda_is_one_here():
    def step():
        with torch.autocast("cuda", enabled=False):
            return full(2, 4) @ full(4, 3)

    given = []
    run(lambda: given.append(step()), dtype=BF16)
    assert given[0].dtype == FP32


def test_code_that_asks_whether_autocast_is_on_hears_yes():
    given = []
    run(
        lambda: given.append((torch.is_autocast_enabled(), torch.get_autocast_dtype("cuda"))),
        dtype=BF16,
    )
    assert given == [(True, BF16)]
    assert not torch.is_autocast_enabled()


# --- the lens itself -----------------------------------------------------------------------


@pytest.mark.parametrize("seen", [None, device(kind="mps"), device(kind="cpu")])
def test_other_devices_are_traced_as_a_cpu(seen):
    with as_cuda.seen_as(seen) as lens:
        assert lens is None


def test_rocm_is_taken_for_cuda():
    calls = run(lambda: functional.dropout(torch.empty(4, requires_grad=True)), kind="rocm")
    assert "native_dropout" in calls.names()


def test_afterwards_torch_is_as_it_was():
    with as_cuda.seen_as(device()):
        pass
    with FAKE, Seen() as calls:
        functional.dropout(torch.empty(4, requires_grad=True))
        with torch.autocast("cpu", BF16):
            assert low(2).exp().dtype == BF16
    assert "bernoulli_" in calls.names()


def test_real_tensors_go_through_the_cpus_kernels():
    torch.manual_seed(0)
    expected = functional.dropout(torch.ones(64))
    torch.manual_seed(0)
    with as_cuda.seen_as(device()), Seen() as calls:
        assert torch.equal(functional.dropout(torch.ones(64)), expected)
        queries = torch.randn(1, 2, 8, 16)
        out = functional.scaled_dot_product_attention(queries, queries, queries)
    assert not isinstance(out, FakeTensor)
    assert "native_dropout" not in calls.names()


def test_an_operator_that_cannot_be_emulated_runs_as_it_would_without(monkeypatch):
    monkeypatch.setattr(attention, "choose", lambda *_: 1 / 0)
    with FAKE:
        calls = run(attend(dtype=FP32))
    assert "_scaled_dot_product_flash_attention_for_cpu" in calls.names()


def test_a_second_forward_pass_in_backward_goes_through_the_lens_too():
    def step():
        block = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5))
        data = torch.empty(4, 8, requires_grad=True)
        return torch.utils.checkpoint.checkpoint(block, data, use_reentrant=False)

    calls = run(step)
    assert calls.names().count("native_dropout") == 2


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_every_task_traces_as_on_a_gpu(name, dtype):
    tracer = ModelTracer.open(TASKS[name](), HERE, device())
    assert tracer.trace(4, dtype).peak_bytes > 0
    assert tracer.mode is not None


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.1, batch_first=True)
        self.body, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(64, 10)

    def forward(self, frames):
        return self.head(self.body(frames).mean(1))


def test_dropouts_masks_make_a_step_smaller_than_on_a_cpu():
    def traced(seen):
        return ModelTracer.open(classifier(Encoder, 50, 64), HERE, seen).trace(8)

    assert traced(device()).peak_bytes < 0.8 * traced(None).peak_bytes
    masks = traced(device()).tape.count(8 * 50 * 64)  # a byte for each element, twice a layer
    assert masks >= 4


def test_a_gpu_counts_what_recurrent_layers_compute():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.LSTM(40, 64, batch_first=True)

        def forward(self, frames):
            return self.body(frames)[0].mean(1)

    traced = ModelTracer.open(classifier(Net, 50, 40), HERE, device()).trace(4)
    assert traced.matmul_flops == 3 * 2 * 4 * 50 * 4 * 64 * (40 + 64)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_gpu_counts_what_grouped_attention_computes(dtype):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(32, 2 * 64 * 16)

        def forward(self, given):
            key = self.first(given).view(-1, 2, 64, 16)
            query = key.repeat(1, 2, 1, 1)
            out = functional.scaled_dot_product_attention(query, key, key, enable_gqa=True)
            return out.mean((1, 2))

    tracer = ModelTracer.open(classifier(Net, 32), HERE, device())
    linear, attended = 2 * 2 * 4 * 32 * 2048, 2 * 4 * 4 * 64 * 64 * 16
    flops = tracer.trace(4, dtype).matmul_flops
    assert tracer.mode is not None
    assert flops >= linear + 6 * attended  # forward 2 products, backward at least 4


def test_the_loss_runs_inside_of_autocast_and_backward_outside():
    seen = []

    def loss(model, batch):
        logits = model(batch[0])
        if logits.requires_grad:
            logits.register_hook(lambda _: seen.append(torch.is_autocast_enabled()))
        seen.append(torch.is_autocast_enabled())
        return Loss(total=functional.cross_entropy(logits, batch[1], reduction="sum"), weight=4)

    task = Task(model=lambda: nn.Linear(64, 10), train=Rows(64), loss=loss)
    ModelTracer.open(task, HERE, device()).trace(4, "bf16")
    assert seen[:2] == [True, False]
