"""What a training step needs: parameters, gradients, optimizer states and activations.

All sizes in bytes. Activations come from traced steps (`schema.StepTrace`), which are
affine in the micro_batch; everything else is arithmetic on the model's sizes.
"""

from __future__ import annotations

from collections.abc import Callable

from autotrain.schema import Device, Dtype, ModelProfile, OptimizerName, Prediction, StepTrace
from autotrain.units import MIB

# Parameter-sized tensors each torch.optim class keeps. Source: torch/optim/*.py, `_init_group`.
STATES: dict[OptimizerName, int] = {
    "adamw": 2,
    "adam": 2,
    "nadam": 2,
    "radam": 2,
    "adamax": 2,
    "adadelta": 2,
    "rprop": 2,
    "rmsprop": 1,
    "adagrad": 1,
    "sgd": 0,
}
# Tensors that a step with weight decay makes for a moment, counted in torch 2.11: foreach as
# many times all parameters, for-loop as many times the largest one, fused none.
FOREACH_TEMPORARIES: dict[OptimizerName, int] = {
    "adamw": 1,
    "adam": 1,
    "nadam": 2,
    "radam": 1,
    "adamax": 1,
    "adadelta": 3,
    "rprop": 2,
    "rmsprop": 2,
    "adagrad": 2,
    "sgd": 1,
}
LOOP_TEMPORARIES: dict[OptimizerName, int] = {
    "adamw": 3,
    "adam": 4,
    "nadam": 4,
    "radam": 3,
    "adamax": 2,
    "adadelta": 4,
    "rprop": 3,
    "rmsprop": 3,
    "adagrad": 3,
    "sgd": 1,
}
# Those that keep one more with momentum.
KEEP_MOMENTUM: frozenset[OptimizerName] = frozenset({"sgd", "rmsprop"})
FUSED: frozenset[OptimizerName] = frozenset({"adamw", "adam", "sgd", "adagrad"})

# A Python process that has imported torch, numpy and what a run needs, before its model.
# Measured: docs/measurements/2026-11-20-cpu.md.
CPU_BASE_BYTES = 675 * MIB
# RSS over the bytes of the tensors: oneDNN's scratch and what malloc keeps. Same measurements.
CPU_SLACK = 1.15
# A forked loader worker's own pages; a spawned one imports torch again.
FORK_WORKER_BYTES, SPAWN_WORKER_BYTES = 120 * MIB, 420 * MIB
# The CUDA context, cuBLAS and cuDNN handles and kernels: what nvidia-smi shows beyond the
# caching allocator. DESIGN.md section 10 and the A100 rows of the published measurements.
CUDA_CONTEXT = Prediction(low=250 * MIB, expected=450 * MIB, high=700 * MIB)


def optimizer_state_bytes(
    name: OptimizerName, trainable_bytes: int, tensors: int, momentum: float | None
) -> int:
    """Bytes an optimizer keeps between steps.

    All but SGD add a 4-byte step counter per tensor, NAdam a 4-byte product of momenta too.
    """
    copies = STATES[name]
    if name in KEEP_MOMENTUM and momentum:
        copies += 1
    counters = {"sgd": 0, "nadam": 8}.get(name, 4) * tensors
    return copies * trainable_bytes + counters


def optimizer_step_bytes(name: OptimizerName, implementation: str, model: ModelProfile) -> int:
    """Bytes that an optimizer step makes for a moment."""
    if implementation == "fused":
        return 0
    if implementation == "foreach":
        return FOREACH_TEMPORARIES[name] * model.trainable_bytes
    return LOOP_TEMPORARIES[name] * model.largest_parameter_bytes


def affine(
    traces: tuple[StepTrace, ...], read: Callable[[StepTrace], float], micro_batch: int
) -> float:
    """A traced quantity at any micro_batch: exact where traced, else along the nearest line."""
    known = {t.micro_batch: t for t in traces}
    if micro_batch in known:
        return read(known[micro_batch])
    line = [known[size] for size in sorted(known)]
    if len(line) == 1:
        return read(line[0]) * micro_batch / line[0].micro_batch
    above = [i for i, t in enumerate(line) if t.micro_batch > micro_batch]
    right = min(max(above[0] if above else len(line) - 1, 1), len(line) - 1)
    a, b = line[right - 1], line[right]
    slope = (read(b) - read(a)) / (b.micro_batch - a.micro_batch)
    return max(read(a) + slope * (micro_batch - a.micro_batch), 0.0)


def step_peak_bytes(model: ModelProfile, micro_batch: int, accum_steps: int, dtype: Dtype) -> int:
    """Most bytes alive in forward and backward, without what the optimizer keeps.

    Small traces may all peak where every gradient is there, and lie flat. A later micro-batch
    holds the gradients from its start: less these, it shows how activations grow.
    """
    traces = model.at(dtype)
    first = affine(traces, lambda t: t.peak_bytes, micro_batch)
    later = affine(traces, lambda t: t.accumulate_peak_bytes, micro_batch)
    if all(t.micro_batch != micro_batch for t in traces):
        first = max(first, later - model.trainable_bytes)
    evaluate = affine(traces, lambda t: t.evaluate_peak_bytes, micro_batch)
    return round(max(first, later if accum_steps > 1 else 0.0, evaluate))


def tensor_peak_bytes(
    model: ModelProfile,
    *,
    micro_batch: int,
    accum_steps: int,
    dtype: Dtype,
    optimizer: OptimizerName,
    implementation: str,
    momentum: float | None,
) -> int:
    """Most bytes of tensors alive at once in a training step.

    The larger of two moments: backward (activations) and the optimizer's step (all
    gradients and its temporaries). Its states are there in both.
    """
    state = optimizer_state_bytes(optimizer, model.trainable_bytes, model.tensors, momentum)
    resident = model.parameter_bytes + model.buffer_bytes
    batch = round(affine(model.at(dtype), lambda t: t.batch_bytes, micro_batch))
    temporaries = optimizer_step_bytes(optimizer, implementation, model)
    updating = resident + batch + model.trainable_bytes + temporaries
    return state + max(step_peak_bytes(model, micro_batch, accum_steps, dtype), updating)


def tensor_interval(peak: int) -> Prediction:
    """What operators use inside (oneDNN scratch and reorders) is not traced: high is wider.

    Measured on 8 models x 2 precisions: -0.7 to +19 %; docs/measurements/2026-11-20-cpu.md.
    """
    return Prediction(low=0.98 * peak, expected=peak, high=1.25 * peak)


def reserved_interval(tensors: Prediction) -> Prediction:
    """What the CUDA caching allocator holds for those tensors.

    It rounds to 512 bytes, takes 2 MiB segments for small and 20 MiB or more for large
    tensors (c10/cuda/CUDACachingAllocator.cpp), and cuDNN and cuBLAS take workspaces.
    """
    return Prediction(
        low=tensors.low,
        expected=1.06 * tensors.expected + 22 * MIB,
        high=1.15 * tensors.high + 64 * MIB,
    )


def device_interval(
    device: Device, tensors: Prediction, reserved: Prediction, saved_bytes: int, worker_bytes: int
) -> Prediction:
    """What the system sees: process RSS on a CPU, reserved and context on a GPU.

    On a CPU a save may be the peak: `saved_bytes` of weights and states, and a copy of them.
    """
    if device.kind == "cpu":
        alive = max(tensors.expected, 2.0 * saved_bytes)
        own = CPU_BASE_BYTES + CPU_SLACK * alive
        return Prediction(low=0.8 * own, expected=own + worker_bytes, high=1.3 * own + worker_bytes)
    return Prediction(
        low=reserved.low + CUDA_CONTEXT.low,
        expected=reserved.expected + CUDA_CONTEXT.expected,
        high=reserved.high + CUDA_CONTEXT.high,
    )


def largest_fit(peak: Callable[[int], float], budget: float, most: int) -> int:
    """The largest micro_batch up to `most` whose peak is within the budget; 0 when none is.

    `peak` must not fall as its argument grows.
    """
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if peak(middle) <= budget:
            low = middle
        else:
            high = middle - 1
    return low


def input_bytes_rule(total: float, model_bytes: float, reserve: float, sample: float) -> int:
    """The formula everyone starts from: (total - model - reserve) / input bytes a sample.

    It counts the input and forgets the activations, which are tens to thousands of times
    larger. Shown beside ours by `explain`; never used.
    """
    return max(int((total - model_bytes - reserve) // max(sample, 1)), 0)
