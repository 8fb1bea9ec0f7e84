"""What a training step needs: parameters, gradients, optimizer states and activations.

All sizes in bytes. Activations come from traced steps (`schema.StepTrace`), which are
affine in the micro_batch; everything else is arithmetic on the model's sizes.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice, pairwise
from typing import NamedTuple

from autotrain.schema import (
    Dtype,
    ModelProfile,
    ModelSection,
    OptimizerName,
    Prediction,
    StepTrace,
)

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
# Of these the for-loop still holds so many of the parameter before; and one less is made where
# nothing decays.
LOOP_LEFT: frozenset[OptimizerName] = frozenset(
    {"adamw", "adam", "nadam", "adadelta", "rmsprop", "adagrad"}
)
FOREACH_DECAY: frozenset[OptimizerName] = frozenset({"nadam", "adadelta", "rmsprop", "sgd"})
LOOP_DECAY: frozenset[OptimizerName] = frozenset(STATES) - {"adamw", "rprop"}
# Those that keep one more with momentum.
KEEP_MOMENTUM: frozenset[OptimizerName] = frozenset({"sgd", "rmsprop"})
FUSED: frozenset[OptimizerName] = frozenset({"adamw", "adam", "sgd", "adagrad"})


class Setup(NamedTuple):
    """What a step is run with, as far as memory goes.

    `length` of its longest sample: 0 for the longest there is, or where none is known. The
    model is to be seen at it (`lengths.at_length`). `decays`: with weight decay. `form`: how the
    model is run; its profile is to be that of the form (`ModelProfile.run_as`). `ema`: with
    averaged weights. `groups`: of how many parameters each of the optimizer's groups is, in its
    order, and whether they decay; none: one of all. `several`: processes train together, each
    with all of the model. `world`: so many. `shard`: it is divided among them, and after which
    micro-batches gradients are added up (`parallel.reduce`). `background`: in RAM there may be a
    copy of what is saved beside it. `kernels` are kept at most; 0: as many as their library keeps.
    `keep_freed`: as in the plan (`ModelSection.keeps_freed`).
    """

    micro_batch: int
    accum_steps: int
    dtype: Dtype
    optimizer: OptimizerName
    implementation: str
    momentum: float | None
    length: float = 0.0
    decays: bool = True
    form: ModelSection = ModelSection()
    ema: bool = False
    groups: tuple[tuple[int, bool], ...] = ()
    several: bool = False
    world: int = 1
    shard: str = ""
    background: bool = False
    kernels: int = 0
    keep_freed: bool | None = None


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


def average_bytes(model: ModelProfile) -> int:
    """Bytes of averaged weights: one more of each that is trained, and of norms' statistics."""
    return model.trainable_bytes + model.statistics_bytes


def optimizer_step_bytes(
    name: OptimizerName,
    implementation: str,
    model: ModelProfile,
    *,
    decays: bool = True,
    groups: tuple[tuple[int, bool], ...] = (),
) -> int:
    """Bytes that an optimizer step makes for a moment: of several groups, the most of one."""
    if implementation == "fused":
        return 0
    if implementation == "for-loop":
        largest = model.largest_parameter_bytes
        sizes = model.trainable_sizes or (largest, largest)
        return max(_loop_bytes(name, *part) for part in in_groups(sizes, groups, decays=decays))
    if not groups or not model.trainable_sizes:
        return _foreach_bytes(name, model.trainable_bytes, model.largest_parameter_bytes, decays)
    parts = in_groups(model.trainable_sizes, groups, decays=decays)
    return max(_foreach_bytes(name, sum(sizes), max(sizes), own) for sizes, own in parts)


def in_groups(
    sizes: tuple[int, ...], groups: tuple[tuple[int, bool], ...], *, decays: bool
) -> list[tuple[tuple[int, ...], bool]]:
    """Each group's sizes, and whether it decays; `decays`: of all, where there are no groups."""
    if sum(count for count, _ in groups) != len(sizes):
        return [(sizes, decays)]
    rest = iter(sizes)
    return [(tuple(islice(rest, count)), own) for count, own in groups]


def _foreach_bytes(name: OptimizerName, total: int, largest: int, decays: bool) -> int:
    """Rprop works on all gradients' signs, and on one parameter and its mask at a time."""
    if name == "rprop":
        return total + largest * 5 // 4
    return (FOREACH_TEMPORARIES[name] - (name in FOREACH_DECAY and not decays)) * total


def _loop_bytes(name: OptimizerName, sizes: tuple[int, ...], decays: bool) -> int:
    left = int(name in LOOP_LEFT)
    own = LOOP_TEMPORARIES[name] - left - (name in LOOP_DECAY and not decays)
    return max(own * size + left * before for before, size in pairwise((0, *sizes)))


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


def tensor_peak_bytes(model: ModelProfile, setup: Setup) -> int:
    """Most bytes of tensors alive at once in a training step.

    The larger of two moments: backward (activations) and the optimizer's step (all
    gradients and its temporaries). Its states and averaged weights are there in both.
    """
    micro, dtype, optimizer = setup.micro_batch, setup.dtype, setup.optimizer
    state = optimizer_state_bytes(optimizer, model.trainable_bytes, model.tensors, setup.momentum)
    average = average_bytes(model) if setup.ema else 0
    resident = model.parameter_bytes + model.buffer_bytes
    batch = round(affine(model.at(dtype), lambda t: t.batch_bytes, micro))
    temporaries = optimizer_step_bytes(
        optimizer, setup.implementation, model, decays=setup.decays, groups=setup.groups
    )
    updating = resident + batch + model.trainable_bytes + temporaries
    passing = step_peak_bytes(model, micro, setup.accum_steps, dtype)
    # DistributedDataParallel's buckets stay; each rank's own gradients move into them in the
    # last backward pass.
    passing += model.trainable_bytes if setup.several else 0
    return state + average + max(passing, updating)


def as_tensors_grow(
    model: ModelProfile,
    setup: Setup,
    traces: tuple[StepTrace, ...],
    read: Callable[[StepTrace], float],
) -> float:
    """What a step takes, by what those of the traced sizes do: on the line between two of them,
    beyond the largest by as much more as its tensors are.

    Small steps are rounded up, to whole segments or pages: a line through two of them rises by
    that too.
    """
    last = traces[-1]
    if setup.micro_batch <= last.micro_batch:
        return affine(traces, read, setup.micro_batch)
    of_last = tensor_peak_bytes(model, setup._replace(micro_batch=last.micro_batch))
    return read(last) * max(tensor_peak_bytes(model, setup) / of_last, 1.0)


def tensor_interval(peak: int, *, compiled: bool = False) -> Prediction:
    """A trace counts what the allocator does, and what operators use inside is measured.

    Cells and their errors: docs/measurements/2026-11-20-cpu-memory.md. A compiled model keeps and
    makes other tensors, which no trace sees: it took 0 to 16 % more of three (docs/memory.md).
    """
    if compiled:
        return Prediction(low=0.6 * peak, expected=1.05 * peak, high=1.3 * peak)
    return Prediction(low=0.99 * peak, expected=peak, high=1.03 * peak)


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
