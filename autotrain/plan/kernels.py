"""Kernels that a processor keeps: oneDNN makes code for each shape that it meets, and keeps 1,024.

Each takes some 300 kB to 10 MB, and up to half a millisecond to make. Where samples differ in size
nearly every micro-batch brings new shapes, and they add up to gigabytes that no tensor accounts
for: as many as a step needs serve as well, as what comes next has another shape anyhow. Where
batches are padded to a few sizes, these come again, and keeping those of all saves the time
(docs/memory.md).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, NamedTuple

from autotrain.plan.ledger import Ledger
from autotrain.plan.orders import mean_length, sorted_pieces
from autotrain.schema import Dtype, ModelProfile, Prediction, Race, StepTrace
from autotrain.units import MIB, bytes_text, seconds_text

if TYPE_CHECKING:
    from autotrain.plan.sizing import Sizing

KEY = "device.kernels"
# What oneDNN keeps where nobody says how many.
USUAL = 1024
# Of shapes that differ, and of those that come again: twice a step's, as evaluation has its own.
LEAST, LEAST_AGAIN, TURNS = 8, 32, 2
# The parts of a layer, weights turned into its own order included, each in a kernel of its own; of
# a recurrent layer those of both directions.
_MADE_OF = {
    "convolution": 3,
    "convolution_backward": 4,
    "depthwise": 3,
    "depthwise_backward": 4,
    "rnn": 4,
    "rnn_backward": 5,
}
_SOURCE = "measured: docs/measurements/2026-11-29-kernels.md"
# Bytes of one: low, expected, high. Measured: _SOURCE.
_EACH = (0.0, 0.35 * MIB, 0.9 * MIB)
# Seconds to make one. Measured: docs/measurements/2026-11-30-many-sizes.md.
_MAKING = {
    "matmul in half": 0.47e-3,
    "convolution": 0.24e-3,
    "depthwise": 0.08e-3,
    "rnn": 0.11e-3,
    "rnn in half": 0.35e-3,
}
_HALF = ("bf16", "fp16")


def needed(model: ModelProfile, dtype: Dtype) -> int:
    """How many a step needs, so that none is made twice in it. 0: it is not known."""
    traces = model.at(dtype)
    if not traces or not traces[0].work:
        return 0
    of_each = of_one(traces[-1]).number
    return max(of_each, LEAST) if model.differ else max(TURNS * of_each, LEAST_AGAIN)


class Made(NamedTuple):
    """A number of kernels, and the seconds that it takes to make them."""

    number: int
    seconds: float


@functools.lru_cache(maxsize=64)
def of_one(trace: StepTrace, instead: Dtype = "fp32") -> Made:
    """Those of one shape of a batch, in training and in evaluation. `instead` of fp32."""
    met = {(w.kind, w.dtype, w.shape) for w in (*trace.work, *trace.evaluate_work)}
    kinds = [(kind, instead if dtype == "fp32" else dtype) for kind, dtype, _ in met]
    counts = [_made_of(kind, dtype) for kind, dtype in kinds]
    each = (_making(kind, dtype) for kind, dtype in kinds)
    return Made(sum(counts), sum(n * s for n, s in zip(counts, each, strict=True)))


def _made_of(kind: str, dtype: str) -> int:
    """Products in fp32 are MKL's."""
    if kind == "matmul":
        return int(dtype in _HALF)
    return _MADE_OF.get(kind, 0)


def _making(kind: str, dtype: str) -> float:
    """Seconds to make one kernel."""
    family = kind.removesuffix("_backward")
    return _MAKING.get(f"{family} in half" if dtype in _HALF else family, _MAKING.get(family, 0.0))


def decide(ledger: Ledger, model: ModelProfile, dtype: Dtype) -> None:
    """Settle `device.kernels`, as few as do."""
    on_cpu = ledger.values["device"]["kind"] == "cpu"
    count = needed(model, dtype) if on_cpu else 0
    ledger.settle(
        KEY,
        count or None,
        formula=_said(model, count, on_cpu=on_cpu),
        source=_SOURCE,
        would_change=f"--set {KEY}={USUAL}, as oneDNN has it",
    )


def _said(model: ModelProfile, count: int, *, on_cpu: bool) -> str:
    if not on_cpu:
        return "they are the library's own business where the device is no processor"
    if not count:
        return "as many as the library keeps: the trace does not tell what a step computes"
    if model.differ:
        return (
            f"a step needs {count}; more would be of sizes that seldom come again, and hold memory"
        )
    return f"{count} are what two steps need; none comes that is not among them"


def in_force(ledger: Ledger) -> int:
    """How many are kept, as far as it is decided; 0: as many as the library keeps."""
    return int(ledger.values["device"].get("kernels") or 0)


def keep_all(ledger: Ledger, sizing: Sizing, workers: int) -> None:
    """Keep those of all sizes that batches come in, where these come again and memory is left for
    it, beside so many loader workers and a save's copy. Decided last: nothing else gives way.
    """
    dtype: Dtype = ledger.value("precision.dtype")
    count = of_all(sizing.model, dtype, len(sizing.buckets()))
    kept = in_force(ledger)
    if sizing.device.kind != "cpu" or not kept < count <= USUAL:
        return
    seconds = of_one(sizing.model.at(dtype)[-1]).seconds
    peak = sizing.device_peak(sizing.planned()._replace(kernels=count), workers).high
    room = sizing.budget() - sizing.kept_bytes() - sizing.saved_bytes()
    more = held(sizing.model, count).expected - held(sizing.model, kept).expected
    if peak > room:
        return
    ledger.settle(
        KEY,
        count,
        formula=(
            f"a batch of one size needs {kept}, and batches come in few sizes that come again: "
            f"those of all are kept ({bytes_text(more)} more), so that none is made anew, which "
            f"would take {seconds_text(seconds)} of each micro-batch"
        ),
        source=_SOURCE,
        would_change=f"--set {KEY}={kept}, less memory",
    )


def of_all(model: ModelProfile, dtype: Dtype, buckets: int) -> int:
    """Those of every size that a batch may have; where two buckets meet, of both numbers of
    samples. 0: sizes do not come again, or nothing is known of them."""
    if not model.differ or not model.sizes or not needed(model, dtype):
        return 0
    return max(of_one(model.at(dtype)[-1]).number * (model.sizes + buckets), LEAST)


def making_seconds(model: ModelProfile, dtype: Dtype, kept: int, buckets: int) -> float:
    """Of one micro-batch: kernels for its size, where the last one's had another and they are not
    kept. `kept`: 0: as many as the library keeps."""
    if not model.differ or not needed(model, dtype):
        return 0.0
    every = of_all(model, dtype, buckets)
    again = every and every <= (kept or USUAL)
    return 0.0 if again else of_one(model.at(dtype)[-1]).seconds


def toll(model: ModelProfile, dtype: Dtype, micro_batch: int, *, buckets: int) -> float:
    """Seconds of a micro-batch that steps of one size, of the longest samples, leave out: kernels
    made anew for each size. By as much more as such a step takes longer than a usual one.

    `model` may have been traced in fp32 alone: in another dtype its products are in that.
    """
    own = model.at(dtype)
    traces = own or model.at("fp32")
    if not model.differ or not traces or not traces[-1].work:
        return 0.0
    made = of_one(traces[-1], "fp32" if own else dtype)
    if model.sizes and made.number * (model.sizes + buckets) <= USUAL:
        return 0.0
    known, longer = model.lengths, 1.0
    if known is not None and not buckets:
        longer = known.maximum / mean_length(sorted_pieces(known, micro_batch, known.count))
    return longer * made.seconds


def charged(race: Race, model: ModelProfile, buckets: int) -> Race:
    """The race with what its steps of one size leave out, which is not the same in each dtype."""
    dtypes = {raced.variant.dtype for raced in race.runs}
    tolls = {d: toll(model, d, race.micro_batch, buckets=buckets) for d in dtypes}
    runs = (r._replace(micro_seconds=r.micro_seconds + tolls[r.variant.dtype]) for r in race.runs)
    cuts = (
        c._replace(seconds=c.seconds + race.micro_batch / c.micro_batch * tolls[c.variant.dtype])
        for c in race.cuts
    )
    return race.model_copy(update={"runs": tuple(runs), "cuts": tuple(cuts), "tolls": tolls})


def held(model: ModelProfile, kernels: int) -> Prediction:
    """Bytes of those that samples of many sizes bring; alike ones bring no more than a step's."""
    count = (kernels or USUAL) if model.differ else 0
    low, expected, high = (count * each for each in _EACH)
    return Prediction(low=low, expected=expected, high=high)
