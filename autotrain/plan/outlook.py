"""What the run will take, written down with reasons."""

from __future__ import annotations

from autotrain.plan import compute, cuda, host
from autotrain.plan.ledger import Ledger
from autotrain.plan.sizing import Sizing
from autotrain.schema import CUDA_LIKE, Prediction, Reason
from autotrain.units import bytes_text, mean_text, seconds_text


def predictions(ledger: Ledger, sizing: Sizing) -> None:
    """Record what the run will take, each with how it was computed."""
    for name, value, formula, source in (*_memory(sizing), *_time(sizing)):
        tried = sizing.tried(name)
        reason = Reason(
            value=value.model_dump(),
            kind="measured" if tried else "rule",
            formula=f"{tried}: {formula}" if tried else formula,
            source="real steps on this machine: a trial of a few, or whole runs"
            if tried
            else source,
            would_change=_CHANGES[name],
        )
        ledger.record(f"predicted.{name}", value, reason)


_SMALLER = "batch.micro_batch, precision.dtype, optimizer.name, a smaller model or input"
_CHANGES = {
    "tensor_peak_bytes": _SMALLER,
    "reserved_peak_bytes": _SMALLER,
    "device_peak_bytes": f"{_SMALLER}, loader.workers",
    "checkpoint_bytes": "optimizer.name, a smaller model",
    "step_seconds": "the batch section, precision.dtype, a faster device",
    "run_seconds": "train.epochs, the batch section, a faster device",
}
_Line = tuple[str, Prediction, str, str]


def _memory(sizing: Sizing) -> list[_Line]:
    setup = sizing.planned()
    shares = sizing.parts(setup)
    kept = sizing.kept_bytes()
    tensors = sizing.tensors(setup).plus(kept)
    if kept:
        shares["samples kept"] = float(kept)
    parts = " + ".join(f"{name} {bytes_text(size)}" for name, size in shares.items())
    on_gpu = sizing.device.kind in CUDA_LIKE
    nobody = "" if on_gpu else "; only a CUDA device has such an allocator"
    saved_bytes = sizing.saved_bytes()
    base, context = host.base_bytes(sizing.model), cuda.context(sizing.device).expected
    if sizing.device.kind == "cpu":
        beside = f" ({bytes_text(saved_bytes)} more beside the steps)" if setup.background else ""
        left = host.left_bytes(sizing.model)
        before = f" + {bytes_text(left)} that the stages before leave" if left else ""
        seen = (
            f"{bytes_text(base)} of Python, torch and what the task loads{before} + what malloc "
            f"keeps for {bytes_text(max(tensors.expected, 2 * saved_bytes))} of tensors, in a step "
            f"or in a save's copy{beside} + {sizing.time.workers()} loader workers x "
            f"{bytes_text(sizing.worker_bytes())}{_kept(kept)}{_no_less(sizing.model.peak_before)}"
        )
    else:
        own = sizing.reserved(setup).plus(kept).expected
        seen = (
            f"the allocator's {bytes_text(own)} + {bytes_text(context)} of CUDA context and "
            "loaded kernels"
        )
    size = sizing.checkpoint_bytes()
    saved = " + ".join(f"{name} {bytes_text(shares[name])}" for name in ("weights", "optimizer"))
    if sizing.averages():
        saved += f" + the averaged model {bytes_text(shares['weights'])}"
    return [
        ("tensor_peak_bytes", tensors, parts, "a traced training step"),
        (
            "reserved_peak_bytes",
            sizing.reserved(setup).plus(kept),
            _reserved_parts(sizing, parts) + nobody,
            "a simulated run of the rules of c10/cuda/CUDACachingAllocator.cpp; "
            "docs/measurements/2026-11-20-gpu-figures.md",
        ),
        ("device_peak_bytes", _device_peak(sizing), seen, "docs/formulas.md"),
        ("checkpoint_bytes", size, saved, "their sizes; float tensors are stored as they are"),
    ]


def _kept(size: int) -> str:
    return f" + {bytes_text(size)} of samples kept" if size else ""


def _device_peak(sizing: Sizing) -> Prediction:
    own = sizing.device_peak(sizing.planned(), sizing.time.workers()).plus(sizing.kept_bytes())
    return host.after(own, sizing.model.peak_before, sizing.budget())


def _no_less(before: Prediction | None) -> str:
    kept = "no less than malloc keeps of the stage before, which took up to"
    return f"; {kept} {bytes_text(before.high)}" if before else ""


def _reserved_parts(sizing: Sizing, tensors: str) -> str:
    """Where a caching allocator's bytes go, and with how few the step would do."""
    setup = sizing.planned()
    if sizing.device.kind == "cpu":  # what it needs, and where it goes, takes longest to simulate
        return "what a CUDA device's allocator would take of RAM"
    found = cuda.parts(sizing.at_length(setup.length), setup, sizing.device)
    if found is None and cuda.takes(sizing.at_length(setup.length), setup, sizing.device):
        return "along the line between the sizes that were traced and simulated"
    if found is None:
        return "1.06 x tensors + 22 MiB: whole segments and workspaces"
    model = sizing.model
    known = model.parameter_bytes + model.buffer_bytes + model.trainable_bytes
    known += sizing.state_bytes() + sizing.average_bytes()
    rest = found.allocated - known - found.cublas
    head = tensors.partition(" + activations")[0]
    takes = bytes_text(found.allocated + found.idle)
    unsure = "; MPS publishes no figures: taken for CUDA, with more doubt"
    return (
        f"{head} + activations, the batch and cuDNN's workspaces {bytes_text(max(rest, 0))} + "
        f"cuBLAS {bytes_text(found.cublas)} + rounding and idle parts of segments "
        f"{bytes_text(found.idle)}; it needs {bytes_text(found.needs)}, and will take {takes}"
        f"{unsure if sizing.device.kind == 'mps' else ''}"
    )


def _time(sizing: Sizing) -> list[_Line]:
    time = sizing.time
    model, loading, workers = time.micro_seconds(), time.loading().seconds, time.workers()
    beside = f"beside it in {workers} workers" if workers else "before it"
    fed, cores = time.fed_seconds(model), time.cores()
    if workers and fed > 1.01 * max(model, loading / min(workers, cores)):
        beside += f"; on the same {cores} cores both take {seconds_text(fed)}"
    beside = "in the first epoch alone" if time.keeps() else beside
    accum = mean_text(time.micro_batches())
    update = time.update_seconds()
    evaluations, saves = time.occasions("evaluate"), time.occasions("checkpoint")
    by = f"the traced step's FLOPs and bytes over the device's {sizing.device.rates.source} rates"
    if sizing.device.rates.timings:
        by = "the traced step's operators, each by those like it that were timed on this device"
    if time.replayed():
        by = "the traced step's operators, played again on this device"
    start, mean = time.start_seconds().expected, time.mean_step_seconds().expected
    return [
        (
            "step_seconds",
            time.step_seconds(),
            f"{accum} x (model {seconds_text(model)}, loading {seconds_text(loading)} {beside}) + "
            f"optimizer {seconds_text(update)} + loop {seconds_text(compute.LOOP_SECONDS)}",
            by,
        ),
        (
            "run_seconds",
            time.run_seconds(),
            f"start {seconds_text(start)} + {sizing.total_steps()} steps x "
            f"{seconds_text(mean)} + {evaluations} evaluations x "
            f"{seconds_text(time.evaluation_seconds().expected)} + {saves} saves and the best "
            f"x {seconds_text(time.save_seconds())}",
            "docs/formulas.md; early stopping may end it sooner",
        ),
    ]
