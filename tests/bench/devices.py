"""Rows of devices, for tests of what is said and drawn of them."""

from autotrain.bench.cpu_vs_gpu import Point, Row
from autotrain.schema import Prediction


def around(value, spread=1.1):
    return Prediction(low=value / spread, expected=value, high=value * spread)


def curve(rates, spread=1.1):
    return tuple(
        Point(micro_batch=size, samples_per_second=around(each, spread))
        for size, each in rates.items()
    )


def cpu(seconds=100.0, rates=None, **more):
    fields = {"machine": "here", "device": "EPYC", "kind": "cpu", "source": "measured"}
    known = curve(rates or {1: 10, 2: 12, 4: 13, 8: 13})
    return Row(**fields | {"run_seconds": around(seconds), "curve": known} | more)


def gpu(seconds=10.0, rates=None, spread=2.0, **more):
    fields = {"machine": "t4-16gb", "device": "NVIDIA T4", "kind": "cuda", "source": "predicted"}
    known = curve(rates or {1: 3, 2: 6, 4: 12, 8: 24, 16: 48}, spread)
    return Row(**fields | {"run_seconds": around(seconds, spread), "curve": known} | more)


def lost(**more):
    fields = {"machine": "rtx-3050", "device": "3050", "kind": "cuda", "source": "predicted"}
    return Row(**fields | {"outcome": "does_not_fit", "why": "too large"} | more)
