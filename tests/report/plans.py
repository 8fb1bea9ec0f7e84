"""A filled-in plan, profiles and the events of a plausible run, for the tests of `report`."""

import math
from typing import Any

from autotrain.events import Evaluated, Event, Saved, Started, Step, Stopped
from autotrain.schema import (
    Cpu,
    DatasetProfile,
    Device,
    Disk,
    Fault,
    HardwareProfile,
    ModelProfile,
    Percentiles,
    Plan,
    Rates,
    StepTrace,
)

MIB, GIB = 1 << 20, 1 << 30
START = 1_700_000_000.0


def reason(value: Any, kind: str = "rule", **more: Any) -> dict[str, Any]:
    return {"value": value, "kind": kind, "formula": "4 x 2 = 8", "source": "DESIGN.md", **more}


def between(expected: float, spread: float = 0.2) -> dict[str, float]:
    low, high = expected * (1 - spread), expected * (1 + spread)
    return {"low": low, "expected": expected, "high": high}


SETTINGS: dict[str, dict[str, Any]] = {
    "task": {"template": "speech-autoencoder", "sha256": "0" * 64, "data": "clips", "options": {}},
    "run": {"name": "clips", "directory": "runs/clips", "seed": 1, "log_every_steps": 1},
    "device": {"kind": "cpu", "index": 0, "threads": 2},
    "memory": {"share": 0.8, "budget_bytes": 5 * GIB},
    "batch": {"micro_batch": 4, "accum_steps": 2, "world_size": 1, "global_batch": 8},
    "precision": {"dtype": "fp32"},
    "optimizer": {
        "name": "adamw",
        "lr": 0.0015,
        "weight_decay": 0.01,
        "betas": [0.9, 0.999],
        "implementation": "foreach",
        "clip_norm": 1.0,
    },
    "schedule": {"name": "plateau", "warmup_steps": 20, "factor": 0.5, "patience": 3},
    "train": {"epochs": 50},
    "early_stop": {"patience": 5, "min_delta": 1e-4},
    "evaluate": {"every_epochs": 1},
    "checkpoint": {"every_epochs": 10, "keep": 3},
    "loader": {"workers": 1, "prefetch": 2, "pin_memory": False, "start_method": "spawn"},
    "data": {"valid_share": 0.2},
}

BECAUSE: dict[str, dict[str, Any]] = {
    section: {key: reason(value) for key, value in keys.items()}
    for section, keys in SETTINGS.items()
}
BECAUSE["batch"]["micro_batch"] = reason(
    4,
    formula="clips up to 50 -> 4; memory would allow 31: (5 GiB - 600 MiB) / 142 MiB = 31",
    source="the origin's table of sizes",
    limited_by="the number of clips (20)",
    would_change="more than 50 clips: 8",
    beside=[
        {
            "name": "free memory over input size",
            "value": 2816,
            "formula": "(8 GiB - 0.1 GiB - 1 GiB) / 2.5 MiB = 2816",
            "why_not": "it counts the input and forgets the activations, which take far more",
        }
    ],
)
BECAUSE["precision"]["dtype"] = reason(
    "fp32", "measured", formula="fp32 24 samples/s, bf16 16 samples/s", limited_by="the processor"
)
BECAUSE["train"]["epochs"] = reason(50, "user", formula="given: train.epochs = 50", source="you")


def a_plan(**sections: Any) -> Plan:
    """Keyword = section, value = keys to change in it; other keywords replace a plan's field."""
    content = {key: {**keys, **sections.pop(key, {})} for key, keys in SETTINGS.items()}
    content |= {
        "schema": 1,
        "made_by": "autotrain 0.1.0",
        "recipe": "speech-autoencoder",
        "inputs": {"hardware": "a" * 64, "dataset": "b" * 64, "model": "c" * 64},
        "predicted": {
            "tensor_peak_bytes": between(300 * MIB),
            "reserved_peak_bytes": between(330 * MIB),
            "device_peak_bytes": between(1.2 * GIB),
            "step_seconds": between(0.2),
            "run_seconds": between(100),
            "checkpoint_bytes": between(67 * MIB, 0.02),
        },
        "notes": ["BatchNorm sees micro-batches of 4: accumulation is not exact"],
        "because": BECAUSE,
        **sections,
    }
    return Plan.model_validate(content)


def hardware(**more: Any) -> HardwareProfile:
    rates = Rates(
        matmul={"fp32": 1.1e11, "bf16": 1.9e11},
        bandwidth=1.2e10,
        op_seconds=4e-6,
        source="measured",
    )
    cpu = Device(
        kind="cpu",
        name="AMD EPYC 7B13",
        total_bytes=8 * GIB,
        free_bytes=6 * GIB,
        native_dtypes=("fp32", "bf16"),
        rates=rates,
    )
    fields = {
        "name": "laptop",
        "cpu": Cpu(name="AMD EPYC 7B13", cores=2, logical=64, features=("avx2", "avx512")),
        "ram_total_bytes": 8 * GIB,
        "ram_available_bytes": 6 * GIB,
        "disk": Disk(path="runs", total_bytes=100 * GIB, free_bytes=40 * GIB, write_bandwidth=4e8),
        "devices": (cpu,),
        "versions": {"python": "3.11.2", "torch": "2.11.0"},
    }
    return HardwareProfile(**{**fields, **more})


def dataset(**more: Any) -> DatasetProfile:
    fields = {
        "kind": "speech",
        "root": "clips",
        "took_for": "audio with a transcript table (metadata.csv)",
        "count": 20,
        "bytes": 4 * MIB,
        "length": Percentiles(unit="seconds", minimum=1.1, p50=2.4, p95=4.9, maximum=5.2),
        "faults": (Fault(path="clips/021.wav", problem="empty"),),
        "fingerprint": "f" * 64,
    }
    return DatasetProfile(**{**fields, **more})


def model() -> ModelProfile:
    trace = StepTrace(
        micro_batch=1,
        dtype="fp32",
        peak_bytes=100 * MIB,
        accumulate_peak_bytes=122 * MIB,
        evaluate_peak_bytes=60 * MIB,
        batch_bytes=MIB,
        matmul_flops=1e9,
        convolution_flops=0,
        moved_bytes=1e8,
        ops=500,
    )
    return ModelProfile(
        name="speech-autoencoder",
        parameters=5_812_345,
        parameter_bytes=5_812_345 * 4,
        trainable_bytes=5_812_345 * 4,
        largest_parameter_bytes=4 * MIB,
        tensors=20,
        buffer_bytes=0,
        traced="fake",
        traces=(trace,),
        train_count=16,
        valid_count=4,
        sample_seconds=0.002,
        sample_bytes=MIB,
    )


def started(step: int = 0, epochs: int = 50, per_epoch: int = 10, **more: Any) -> Started:
    fields: dict[str, Any] = {
        "step": step,
        "epoch": step // per_epoch,
        "time": START,
        "total_steps": epochs * per_epoch,
        "epochs": epochs,
        "steps_per_epoch": per_epoch,
        "device": "cpu",
        "monitor": "loss",
        "better": "lower",
        "train_count": 80,
        "valid_count": 20,
    }
    return Started(**{**fields, **more})


def a_step(step: int, per_epoch: int = 10, **more: Any) -> Step:
    """A log point after each step: 0.2 s a step of 8 samples, the loss falling from 1."""
    wobble = 0.04 * math.sin(step * 12.9898) + 0.03 * math.sin(step * 78.233)
    loss = (0.06 + 0.94 * math.exp(-step / (12 * per_epoch))) * (1 + wobble)
    fields: dict[str, Any] = {
        "step": step,
        "epoch": (step - 1) // per_epoch,
        "time": START + 0.2 * step,
        "loss": loss,
        "parts": {"reconstruction": loss},
        "lr": 0.0015 * min(1, step / 20) * 0.5 ** (step // (20 * per_epoch)),
        "grad_norm": 0.4 + 2 * loss * (1 + 4 * wobble),
        "samples": 8,
        "weight": 8.0,
        "step_seconds": 0.2 * (1 + wobble),
        "wait_seconds": 0.006 * (1 + 8 * abs(wobble)),
        "device_bytes": int(0.9 * GIB + 50 * MIB * wobble),
        "peak_bytes": int(1.25 * GIB * min(1, 0.9 + step / 400)),
    }
    return Step(**{**fields, **more})


def evaluated(step: int, loss: float, *, best: bool, per_epoch: int = 10, **more: Any) -> Evaluated:
    fields: dict[str, Any] = {
        "step": step,
        "epoch": (step - 1) // per_epoch,
        "time": START + 0.2 * step,
        "loss": loss,
        "metrics": {},
        "best": best,
        "bad_evaluations": 0 if best else 1,
        "seconds": 0.1,
    }
    return Evaluated(**{**fields, **more})


def saved(step: int, label: str, per_epoch: int = 10) -> Saved:
    return Saved(
        step=step,
        epoch=(step - 1) // per_epoch,
        time=START + 0.2 * step,
        path=f"runs/clips/checkpoints/step-{step:08d}",
        label=label,
        bytes=67 * MIB,
        seconds=0.3,
    )


def stopped(step: int, reason: str = "finished", **more: Any) -> Stopped:
    fields: dict[str, Any] = {
        "step": step,
        "epoch": step // 10,
        "time": START + 0.2 * step,
        "reason": reason,
        "detail": "",
        "best": None,
        "best_step": None,
        "seconds": 0.2 * step,
        "checkpoint": f"runs/clips/checkpoints/step-{step:08d}",
    }
    return Stopped(**{**fields, **more})


def a_run(epochs: int = 50, per_epoch: int = 10) -> list[Event]:
    """Training loss falls by over 80 %; the validation loss turns up after 60 % of the epochs."""
    events: list[Event] = [started(epochs=epochs, per_epoch=per_epoch)]
    best, best_step = math.inf, 0
    for step in range(1, epochs * per_epoch + 1):
        events.append(a_step(step, per_epoch))
        if step % per_epoch:
            continue
        late = max(0.0, step / (epochs * per_epoch) - 0.6)
        loss = 1.1 * a_step(step, per_epoch).loss + 0.5 * late**2
        events.append(evaluated(step, loss, best=loss < best, per_epoch=per_epoch))
        if loss < best:
            best, best_step = loss, step
            events.append(saved(step, "best", per_epoch))
    events.append(saved(epochs * per_epoch, "last", per_epoch))
    events.append(stopped(epochs * per_epoch, best=best, best_step=best_step))
    return events
