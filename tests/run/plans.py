"""A whole plan for tests, small enough to run in milliseconds; change any section by name."""

from autotrain.schema import Plan

# High enough for any process: no run is to be told that it takes more than was predicted.
NUMBERS = {"low": 1, "expected": 2, "high": 1 << 50}
SECTIONS = {
    "task": {"file": "task.py", "sha256": "0" * 64},
    "run": {"name": "test", "directory": "runs/test", "seed": 7, "log_every_steps": 2},
    "device": {"kind": "cpu", "index": 0, "threads": 1},
    "memory": {"share": 0.8, "budget_bytes": 1 << 30},
    "batch": {"micro_batch": 4, "accum_steps": 2, "world_size": 1, "global_batch": 8},
    "precision": {"dtype": "fp32"},
    "optimizer": {
        "name": "adamw",
        "lr": 1e-2,
        "weight_decay": 0.01,
        "implementation": "foreach",
        "clip_norm": 1.0,
    },
    "schedule": {"name": "cosine", "warmup_steps": 2, "min_lr": 0.0},
    "train": {"epochs": 3},
    "early_stop": {"min_delta": 0.0},
    "evaluate": {"every_epochs": 1},
    "checkpoint": {"every_epochs": 1, "keep": 2},
    "loader": {"workers": 0, "prefetch": 2, "pin_memory": False, "start_method": "fork"},
    "data": {"valid_share": 0.2},
    "inputs": {"hardware": "", "dataset": "", "model": ""},
    "predicted": dict.fromkeys(
        (
            "tensor_peak_bytes",
            "reserved_peak_bytes",
            "device_peak_bytes",
            "step_seconds",
            "run_seconds",
            "checkpoint_bytes",
        ),
        NUMBERS,
    ),
}


def make_plan(**changes: dict) -> Plan:
    """The plan above; `make_plan(train={"epochs": 5})` changes that key of that section."""
    sections = {name: {**section, **changes.pop(name, {})} for name, section in SECTIONS.items()}
    return Plan(schema=1, made_by="tests", recipe="none", **sections, **changes)
