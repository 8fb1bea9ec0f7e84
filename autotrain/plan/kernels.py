"""Kernels that a processor keeps: oneDNN makes code for each shape that it meets, and keeps 1,024.

Each takes some 300 kB to 10 MB. Where samples differ in size nearly every micro-batch brings new
shapes, and they add up to gigabytes that no tensor accounts for. As many as a step needs serve as
well: what comes next has another shape anyhow (docs/memory.md).
"""

from __future__ import annotations

from autotrain.plan.ledger import Ledger
from autotrain.schema import Dtype, ModelProfile, Prediction
from autotrain.units import MIB

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
# Bytes of one: low, expected, high. Measured: docs/measurements/2026-11-29-kernels.md.
_EACH = (0.0, 0.35 * MIB, 0.9 * MIB)


def needed(model: ModelProfile, dtype: Dtype) -> int:
    """How many a step needs, so that none is made twice in it. 0: it is not known."""
    traces = model.at(dtype)
    if not traces or not traces[0].work:
        return 0
    trace = traces[-1]
    met = {(w.kind, w.dtype, w.shape) for w in (*trace.work, *trace.evaluate_work)}
    of_each = sum(_made_of(kind, dtype) for kind, dtype, _ in met)
    return max(of_each, LEAST) if model.differ else max(TURNS * of_each, LEAST_AGAIN)


def _made_of(kind: str, dtype: str) -> int:
    """Products in fp32 are MKL's."""
    if kind == "matmul":
        return int(dtype in ("bf16", "fp16"))
    return _MADE_OF.get(kind, 0)


def decide(ledger: Ledger, model: ModelProfile, dtype: Dtype) -> None:
    """Settle `device.kernels`."""
    on_cpu = ledger.values["device"]["kind"] == "cpu"
    count = needed(model, dtype) if on_cpu else 0
    ledger.settle(
        "device.kernels",
        count or None,
        formula=_said(model, count, on_cpu=on_cpu),
        source="measured: docs/measurements/2026-11-29-kernels.md",
        would_change=f"--set device.kernels={USUAL}, as oneDNN has it",
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


def held(model: ModelProfile, kernels: int) -> Prediction:
    """Bytes of those that samples of many sizes bring; alike ones bring no more than a step's."""
    count = (kernels or USUAL) if model.differ else 0
    low, expected, high = (count * each for each in _EACH)
    return Prediction(low=low, expected=expected, high=high)
