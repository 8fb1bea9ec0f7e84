"""Machines, models, data and goals to plan for: plain ones, and hypothesis strategies."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st

from autotrain.plan.planner import make_plan
from autotrain.schema import (
    Cpu,
    DatasetProfile,
    Device,
    Disk,
    Goal,
    HardwareProfile,
    ModelProfile,
    Plan,
    Rates,
    Recipe,
    StepTrace,
    TaskSection,
)

MIB, GIB = 1 << 20, 1 << 30
OPTIMIZERS = (
    "adamw", "adam", "sgd", "rmsprop", "adagrad", "adadelta", "adamax", "nadam", "radam", "rprop",
)  # fmt: skip
SCHEDULES = ("constant", "cosine", "cosine_restarts", "plateau", "exponential", "inverse_sqrt")


def rates(scale: float = 1.0, source: str = "measured") -> Rates:
    return Rates.model_validate(
        {
            "matmul": {"fp32": 1e11 * scale, "bf16": 2e11 * scale},
            "bandwidth": 2e10 * scale,
            "op_seconds": 5e-6,
            "source": source,
        }
    )


def device(kind: str = "cpu", free: float = 8 * GIB, **more: Any) -> Device:
    fields = {
        "kind": kind,
        "name": f"a {kind}",
        "total_bytes": int(1.1 * free) + 1,
        "free_bytes": int(free),
        "native_dtypes": ("fp32",) if kind == "cpu" else ("fp32", "bf16"),
        "rates": rates(),
    }
    return Device.model_validate(fields | more)


def machine(*devices: Device, cores: int = 4, disk: float = 100 * GIB, **more: Any):
    ram = int(more.pop("ram", 16 * GIB))
    fields = {
        "name": "bench",
        "cpu": Cpu(name="a cpu", cores=cores, logical=cores),
        "ram_total_bytes": ram,
        "ram_available_bytes": ram // 2,
        "disk": Disk(path="/runs", total_bytes=int(disk), free_bytes=int(disk)),
        "devices": devices or (device(),),
    }
    return HardwareProfile.model_validate(fields | more)


def trace(micro: int, fixed: float, each: float, gradients: float, dtype: str = "fp32"):
    """A step of `each` bytes of activations a sample over `fixed` bytes of weights."""
    activations = int(each * micro)
    return StepTrace.model_validate(
        {
            "micro_batch": micro,
            "dtype": dtype,
            "peak_bytes": int(fixed) + max(activations, int(gradients)),
            "accumulate_peak_bytes": int(fixed + gradients) + activations,
            "evaluate_peak_bytes": int(fixed) + activations // 4,
            "batch_bytes": activations // 50,
            "matmul_flops": 6e6 * micro,
            "convolution_flops": 0.0,
            "moved_bytes": 4.0 * activations,
            "ops": 200,
        }
    )


def model(
    weights: float = 40 * MIB, each: float = 2 * MIB, train: int = 1000, valid: int = 100,
    dtypes: tuple[str, ...] = ("fp32", "bf16"), micros: tuple[int, ...] = (2, 8), **more: Any,
) -> ModelProfile:  # fmt: skip
    weights = int(weights) // 4 * 4
    fields = {
        "name": "Net",
        "parameters": weights // 4,
        "parameter_bytes": weights,
        "trainable_bytes": weights,
        "largest_parameter_bytes": max(weights // 10, 4),
        "tensors": 20,
        "buffer_bytes": 0,
        "traced": "fake",
        "traces": tuple(
            trace(m, weights, each * (0.6 if d != "fp32" else 1), weights, d)
            for d in dtypes
            for m in micros
        ),
        "train_count": train,
        "valid_count": valid,
        "sample_seconds": 1e-3,
        "sample_bytes": max(int(each / 50), 1),
    }
    return ModelProfile.model_validate(fields | more)


def dataset(count: int = 1100, **more: Any) -> DatasetProfile:
    fields = {"kind": "task", "count": count, "fingerprint": "f" * 64}
    return DatasetProfile.model_validate(fields | more)


def goal(*recipes: Recipe, options: dict[str, Any] | None = None, **user: Any) -> Goal:
    """`batch__micro_batch=8` is the user's `batch.micro_batch`."""
    return Goal(
        task=TaskSection(file="task.py", sha256="0" * 64, data="data", options=options or {}),
        recipes=recipes,
        user={key.replace("__", "."): value for key, value in user.items()},
    )


def recipe(*sizes: Any, source: str = "a paper", **settings: Any) -> Recipe:
    named = {key.replace("__", "."): value for key, value in settings.items()}
    return Recipe(name="tried", source=source, settings=named, sizes=sizes)


def planned(
    hardware: HardwareProfile | None = None,
    of: ModelProfile | None = None,
    wish: Goal | None = None,
    data: DatasetProfile | None = None,
) -> Plan:
    of = of or model()
    data = data or dataset(of.train_count + of.valid_count)
    return make_plan(hardware or machine(), data, of, wish or goal(), version="0.1.0")


def reason(plan: Plan, key: str):
    section, name = key.split(".")
    return plan.because[section][name]


def between(low: float, high: float) -> st.SearchStrategy[int]:
    """Whole numbers, every order of magnitude as likely as the next."""
    return st.floats(math.log(low), math.log(high)).map(lambda power: round(math.exp(power)))


# --- any of them ---------------------------------------------------------------------------


@st.composite
def machines(draw) -> HardwareProfile:
    kinds = draw(st.sampled_from([("cpu",), ("cuda", "cpu"), ("rocm",), ("mps", "cpu")]))
    natives = st.sampled_from([("fp32",), ("fp32", "fp16"), ("fp32", "tf32", "bf16", "fp16")])
    devices = [
        device(
            kind,
            free=draw(between(GIB // 2, 200 * GIB)),
            native_dtypes=draw(natives),
            rates=rates(
                draw(st.floats(0.01, 1e4)), draw(st.sampled_from(["measured", "datasheet"]))
            ),
        )
        for kind in kinds
    ]
    bandwidth = draw(st.none() | st.floats(1e6, 1e10))
    free = draw(between(GIB // 2, 10_000 * GIB))
    return machine(
        *devices,
        cores=draw(st.integers(1, 128)),
        system=draw(st.sampled_from(["linux", "darwin", "windows", "wsl"])),
        ram=draw(between(GIB, 1000 * GIB)),
        disk=free,
    ).model_copy(
        update={
            "disk": Disk(path="/", total_bytes=free, free_bytes=free, write_bandwidth=bandwidth)
        }
    )


@st.composite
def models(draw) -> ModelProfile:
    sizes = st.sets(st.integers(1, 300), min_size=1, max_size=4)
    weights = draw(between(1, GIB)) * 4
    return model(
        weights,
        draw(between(1, 2 * GIB)),
        draw(between(2, 10**7)),
        draw(st.integers(0, 10**5)),
        ("fp32", "bf16", "fp16"),
        tuple(draw(sizes)),
        tensors=draw(st.integers(1, 500)),
        largest_parameter_bytes=max(weights // 3, 4),
        batch_norm=draw(st.booleans()),
        mixes=draw(st.integers(0, 4)) == 0,
        traced=draw(st.sampled_from(["fake", "concrete"])),
        sample_seconds=draw(st.floats(0, 10)),
    )


_SETTINGS: dict[str, st.SearchStrategy[Any]] = {
    "device.kind": st.sampled_from(["cpu", "cuda", "mps", "rocm"]),
    "memory.share": st.floats(0.3, 1),
    "memory.budget_bytes": between(GIB, 100 * GIB),
    "batch.micro_batch": between(1, 512),
    "batch.accum_steps": st.sampled_from([1, 2, 4, 7]),
    "batch.global_batch": between(1, 4096),
    "batch.world_size": st.sampled_from([1, 2, 4, 8]),
    "parallel.strategy": st.sampled_from(["ddp", "shard"]),
    "parallel.reduce": st.sampled_from(["last", "each"]),
    "precision.dtype": st.sampled_from(["fp32", "tf32", "bf16", "fp16"]),
    "optimizer.name": st.sampled_from(OPTIMIZERS),
    "optimizer.momentum": st.none() | st.floats(0, 0.99),
    "optimizer.lr": st.floats(1e-8, 10),
    "optimizer.betas": st.none() | st.tuples(st.floats(0, 0.999), st.floats(0, 0.9999)),
    "optimizer.eps": st.none() | st.floats(1e-16, 1),
    "optimizer.weight_decay": st.floats(0, 1),
    "optimizer.implementation": st.sampled_from(["fused", "foreach", "for-loop"]),
    "optimizer.clip_norm": st.none() | st.floats(0.01, 10),
    "schedule.name": st.sampled_from(SCHEDULES),
    "schedule.warmup_steps": st.integers(0, 10_000),
    "schedule.period_epochs": st.floats(0.01, 50),
    "schedule.factor": st.floats(0.01, 0.99),
    "train.epochs": st.integers(1, 1000),
    "early_stop.patience": st.none() | st.integers(1, 100),
    "evaluate.every_steps": st.none() | st.integers(1, 10_000),
    "evaluate.every_epochs": st.none() | st.integers(1, 10),
    "checkpoint.every_steps": st.none() | st.integers(1, 10_000),
    "checkpoint.keep": st.integers(1, 100),
    "loader.workers": st.integers(0, 16),
    "data.valid_share": st.floats(0.01, 0.99),
}


def some_settings(most: int = 6) -> st.SearchStrategy[dict[str, Any]]:
    """A few settings, of any keys that may be given together or not."""
    pairs = st.sampled_from(sorted(_SETTINGS)).flatmap(
        lambda k: st.tuples(st.just(k), _SETTINGS[k])
    )
    return st.lists(pairs, max_size=most).map(dict)


@st.composite
def goals(draw) -> Goal:
    recipes = [
        Recipe(name=name, source=f"{name}'s paper", settings=draw(some_settings(4)))
        for name in draw(st.sampled_from([(), ("one",), ("one", "two")]))
    ]
    # A recipe does not choose the machine.
    for each in recipes:
        each.settings.pop("device.kind", None)
    return goal(*recipes).model_copy(update={"user": draw(some_settings())})
