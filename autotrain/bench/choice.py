"""The way in which a plan takes a step, beside the other ways: rows, and what follows.

Pure: how steps were timed is `bench.rounds`' business.
"""

from __future__ import annotations

from collections.abc import Sequence

from autotrain.bench.spread import Spread
from autotrain.schema import MemoryFormat, Prediction, Record, Variant
from autotrain.units import seconds_text


class Row(Record):
    """A way to take a step of `micro_batch` x `accum_steps` samples, and what it takes.

    `chosen`: the plan's own. `plain`: fp32 on all threads, as much at once as is planned. Those
    that are not `final` were slower after a few rounds, and not measured any further.
    """

    dtype: str
    memory_format: MemoryFormat
    threads: int
    micro_batch: int
    accum_steps: int
    chosen: bool = False
    plain: bool = False
    final: bool = False
    step_seconds: Prediction
    samples_per_second: Prediction
    rounds: int
    processes: int

    @property
    def said(self) -> str:
        """`8 x 4, bf16, channels_last, 2 threads`."""
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        words = [f"{self.micro_batch} x {self.accum_steps}", self.dtype]
        words += ["channels_last"] if self.memory_format == "channels_last" else []
        return ", ".join([*words, threads])

    def settings(self, beside: Row) -> list[str]:
        """`key=value` for all in which it differs from another way."""
        pairs = {
            "batch.micro_batch": (self.micro_batch, beside.micro_batch),
            "batch.accum_steps": (self.accum_steps, beside.accum_steps),
            "precision.dtype": (self.dtype, beside.dtype),
            "model.memory_format": (self.memory_format, beside.memory_format),
            "device.threads": (self.threads, beside.threads),
        }
        return [f"{key}={own}" for key, (own, other) in pairs.items() if own != other]


def row(variant: Variant, micro_batch: int, accum_steps: int, found: Spread, **marks: bool) -> Row:
    """A way with what its rounds took."""
    samples = micro_batch * accum_steps
    return Row(
        dtype=variant.dtype,
        memory_format=variant.memory_format,
        threads=variant.threads,
        micro_batch=micro_batch,
        accum_steps=accum_steps,
        step_seconds=Prediction.around(found.low, found.middle, found.high),
        samples_per_second=Prediction.around(
            samples / found.high, samples / found.middle, samples / found.low
        ),
        rounds=found.rounds,
        processes=found.processes,
        **marks,
    )


def ordered(rows: Sequence[Row]) -> list[Row]:
    """Those that were measured to the end, the fastest first; then the others."""
    return sorted(rows, key=lambda each: (not each.final, -each.samples_per_second.expected))


def share(rows: Sequence[Row]) -> float | None:
    """The plan's samples a second over those of the fastest way; None where it was not measured."""
    final = [each for each in rows if each.final]
    own = next((each for each in final if each.chosen), None)
    if own is None:
        return None
    return own.samples_per_second.expected / max(e.samples_per_second.expected for e in final)


def advice(rows: Sequence[Row]) -> str:
    """One sentence: whether to change the plan, and why."""
    final = [each for each in ordered(rows) if each.final]
    own = next((each for each in final if each.chosen), None)
    if own is None:
        return "the plan's own way was not measured to the end"
    best, tried = final[0], len(rows)
    if best == own:
        return f"keep the plan: none of the {tried} ways is faster{_plain(final, own)}"
    gain = best.samples_per_second.expected / own.samples_per_second.expected - 1
    if best.samples_per_second.low <= own.samples_per_second.high:
        return (
            f"keep the plan: of {tried} ways {best.said} is {gain:.1%} faster, which their spread "
            f"does not tell apart{_plain(final, own)}"
        )
    flags = " ".join(f"--set {pair}" for pair in best.settings(own))
    took = seconds_text(best.step_seconds.expected), seconds_text(own.step_seconds.expected)
    return f"change the plan: {best.said} takes {took[0]} a step and the plan {took[1]}; {flags}"


def _plain(final: Sequence[Row], own: Row) -> str:
    plain = next((each for each in final if each.plain and not each.chosen), None)
    if plain is None:
        return ""
    ratio = own.samples_per_second.expected / plain.samples_per_second.expected
    return f"; it is {ratio:.2f} x as fast as the plain way ({plain.said})"
