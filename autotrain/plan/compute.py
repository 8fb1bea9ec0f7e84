"""How long a step takes, from its traced work and the device's rates."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable

from autotrain.plan import pricing
from autotrain.plan.memory import affine
from autotrain.schema import Device, Dtype, ModelProfile, Prediction, Rates, Replay, StepTrace

# The share of a calibrated (or datasheet) rate that whole training steps reach. Operators
# outside the products read and write each tensor about once.
EFFICIENCY = {"measured": 0.75, "datasheet": 0.4, "assumed": 0.3}
SPREAD = {"measured": 2.0, "datasheet": 3.0, "assumed": 5.0}
DISTURBED_SPREAD = 4.0
# Where a machine's file gives no rate for fp32, products in it are taken for so many times slower
# than in the formats that it does give: of the GPUs in `profiles/` 2 to 16 times, and 1 to 8.
SLOWER: dict[Dtype, float] = {"fp32": 1.0, "tf32": 2.0, "bf16": 4.0, "fp16": 4.0}
TIMED_SPREAD, REPLAYED_SPREAD = 1.5, 1.2
# An operator was timed by itself at its best; among the others of a step it takes this much more:
# of ten models 1.00 to 1.24 (docs/measurements/2026-11-20-step-time.md).
IN_STEP = 1.15

# A forward pass without gradients, as a share of forward and backward: one product of three.
FORWARD_SHARE = 1 / 3
# What a device multiplies while it moves one byte: 6 to 106 in fp32 of those in `profiles/`.
FLOPS_A_BYTE = 16.0
# What the loop costs whatever the model, measured on 2 cores with a one-layer model: one step's
# bookkeeping; the first steps of a run, which warm kernels and caches up.
LOOP_SECONDS = 0.2e-3
START_SECONDS = 1.0

# Rates of a whole CPU shrink with so much of the cores' share: fewer cores run at a higher clock,
# and a quarter of them takes half of what memory brings.
CORE_SCALING, MEMORY_SCALING = 0.85, 0.5

# Of a model on a device at a micro_batch, in a dtype, on so many threads.
Seconds = Callable[[ModelProfile, Device, int, Dtype, int], float]


def micro_batch_seconds(
    model: ModelProfile, device: Device, micro_batch: int, dtype: Dtype, threads: int
) -> float:
    """Forward and backward of one micro-batch: by timed operators, or else by rates.

    Where a step of this model was played again, operators take as much longer or shorter as there.
    """
    if not _timed(model, device, dtype):
        return roofline_seconds(model, device, micro_batch, dtype)
    known = pricing.prices(device.rates.timings)
    seen = [(r.micro_batch, r.seconds / r.priced) for r in replays(model, dtype, threads)]

    def priced(trace: StepTrace, times: float) -> float:
        return known.seconds(trace.work, threads, times)

    return _pace(seen, micro_batch) * _at(model.at(dtype), priced, micro_batch)


def forward_seconds(
    model: ModelProfile, device: Device, micro_batch: int, dtype: Dtype, threads: int
) -> float:
    """One micro-batch without gradients."""
    if not _timed(model, device, dtype):
        return FORWARD_SHARE * roofline_seconds(model, device, micro_batch, dtype)
    known = pricing.prices(device.rates.timings)
    seen = [
        (r.micro_batch, r.evaluate_seconds / r.evaluate_priced)
        for r in replays(model, dtype, threads)
    ]

    def priced(trace: StepTrace, times: float) -> float:
        return known.seconds(trace.evaluate_work, threads, times)

    return _pace(seen, micro_batch) * _at(model.at(dtype), priced, micro_batch)


def _at(
    traces: tuple[StepTrace, ...], priced: Callable[[StepTrace, float], float], micro_batch: int
) -> float:
    """Seconds at any micro_batch: on the line between traced sizes; beyond them the nearest one's,
    where each operator has as many times as much to do as the step computes or moves more.

    A line through the seconds of two sizes would not do beyond: of products twice as fast the one
    size may gain more than the other, and what lies before or behind both would take longer.
    """
    least, most = traces[0], traces[-1]
    if least.micro_batch <= micro_batch <= most.micro_batch:
        return affine(traces, lambda t: priced(t, 1.0), micro_batch)
    end = least if micro_batch < least.micro_batch else most
    known = [read for read in (_products, _moved) if read(end)]
    grown = (affine(traces, read, micro_batch) / read(end) for read in known)
    return priced(end, max(min(micro_batch / end.micro_batch, 1.0), *grown))


def amount(model: ModelProfile, micro_batch: int, dtype: Dtype) -> float:
    """How much a step has to do, whatever the device: the bytes that it moves and, as bytes moved
    meanwhile, its products."""

    def read(trace: StepTrace) -> float:
        return _moved(trace) + _products(trace) / FLOPS_A_BYTE

    return affine(model.at(dtype), read, micro_batch)


def _products(trace: StepTrace) -> float:
    return trace.matmul_flops + trace.convolution_flops


def _moved(trace: StepTrace) -> float:
    return trace.moved_bytes


def replays(model: ModelProfile, dtype: Dtype, threads: int) -> list[Replay]:
    """Those of the model as it is to be run, by micro_batch."""
    same = "fp32" if dtype == "tf32" else dtype
    form = model.form.uncompiled()
    found = (r for r in model.replays if (r.dtype, r.form, r.threads) == (same, form, threads))
    return sorted(found, key=lambda r: r.micro_batch)


def _pace(seen: list[tuple[int, float]], micro_batch: int) -> float:
    """How much longer than the sum of its operators a step takes: between what was seen."""
    if not seen:
        return IN_STEP
    place = bisect_left(seen, (micro_batch, 0.0))
    if place in (0, len(seen)):
        return seen[min(place, len(seen) - 1)][1]
    (a, one), (b, other) = seen[place - 1 : place + 1]
    return one + (other - one) * math.log(micro_batch / a) / math.log(b / a)


def _timed(model: ModelProfile, device: Device, dtype: Dtype) -> bool:
    return bool(device.rates.timings) and all(trace.work for trace in model.at(dtype))


def roofline_seconds(model: ModelProfile, device: Device, micro_batch: int, dtype: Dtype) -> float:
    """Products at their rate, the rest by bytes: where no operators were timed."""
    traces, rates = model.at(dtype), device.rates
    matmul_rate = product_rate(rates, dtype)
    convolution_rate = (
        rates.convolution.get(dtype) or rates.convolution.get("fp32") or 0.6 * matmul_rate
    )
    share = EFFICIENCY[rates.source]
    products = affine(traces, lambda t: t.matmul_flops, micro_batch) / (
        share * matmul_rate
    ) + affine(traces, lambda t: t.convolution_flops, micro_batch) / (share * convolution_rate)
    moved = affine(traces, _moved, micro_batch) / (share * rates.bandwidth)
    launches = affine(traces, lambda t: t.ops, micro_batch) * rates.op_seconds
    if device.kind == "cpu":
        return products + moved + launches
    return max(products + moved, launches)


def on_threads(device: Device, threads: int, cores: int, processes: int = 1) -> Device:
    """A CPU of so many cores as it is to so many threads of each of the processes on it.

    No faster than all of it to any number; processes have their parts of it. Rates are of all
    cores; what was timed operator by operator tells by itself of fewer threads.
    """
    if device.kind != "cpu" or threads >= cores:
        return device
    share, most = max(threads, 1) / cores, 1 / processes
    computes = min(math.pow(share, CORE_SCALING), most)
    brings = min(math.pow(share, MEMORY_SCALING), most)
    rates = device.rates
    fewer = rates.model_copy(
        update={
            "matmul": {dtype: rate * computes for dtype, rate in rates.matmul.items()},
            "convolution": {dtype: rate * computes for dtype, rate in rates.convolution.items()},
            "bandwidth": rates.bandwidth * brings,
        }
    )
    return device.model_copy(update={"rates": fewer})


def product_rate(rates: Rates, dtype: Dtype) -> float:
    """FLOP/s of products in a format: its own, else fp32's, else derived from those there are."""
    derived = min(rate / SLOWER[known] for known, rate in rates.matmul.items())
    return rates.matmul.get(dtype) or rates.matmul.get("fp32") or derived


def derived(model: ModelProfile, device: Device, dtype: Dtype) -> bool:
    """Whether a step's seconds rest on a rate that nobody gave."""
    return not _timed(model, device, dtype) and not {dtype, "fp32"} & device.rates.matmul.keys()


def optimizer_seconds(model: ModelProfile, device: Device, state_bytes: int) -> float:
    """One optimizer step: it reads and writes weights, gradients and states once each."""
    touched = 2 * (model.trainable_bytes * 2 + state_bytes)
    return touched / (EFFICIENCY[device.rates.source] * device.rates.bandwidth)


def interval(seconds: float, device: Device, spread: float | None = None) -> Prediction:
    """Its honest spread: a factor of 1.5 by timed operators, 2 by measured rates, 3 by a datasheet.

    `spread`: of a figure that knows better.
    """
    rates = device.rates
    if spread is None and rates.disturbed:
        spread = DISTURBED_SPREAD
    spread = spread or (TIMED_SPREAD if rates.timings else SPREAD[rates.source])
    return Prediction(low=seconds / spread, expected=seconds, high=seconds * spread)
