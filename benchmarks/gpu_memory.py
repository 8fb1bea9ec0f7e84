"""Reserved peaks predicted for GPU runs that others published, beside what they measured.

    python benchmarks/gpu_memory.py [--source xmem|timm|imagenet|mlp] [--families ResNet OPT]
        [--sample 150] [--csv ../shared/data/gpu-memory.csv] [--cache DIR] [--implementation fused]

Needs `pip install transformers timm`. Nothing is run on a GPU: each row's model is traced here,
for the row's device. `--cache` keeps the traces (seconds each); empty it after a change in
`autotrain/probe`. Whole-gpu figures hold a context and idle memory too: a base is fitted, each
family's from the other families.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import random
import re
import statistics
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from autotrain import Loss, Task
from autotrain.errors import AutotrainError
from autotrain.plan import cuda
from autotrain.plan.allocator import Allocator
from autotrain.plan.memory import Setup
from autotrain.plan.sequence import Scene, run_tape
from autotrain.probe.model import ModelTracer
from autotrain.schema import Device, ModelProfile, Prediction

MIB = 1 << 20
TOKENS = 128
LANGUAGE = {
    "EleutherAI/gpt-neo-125M": (
        "GPTNeo",
        {
            "hidden_size": 768,
            "num_layers": 12,
            "num_heads": 12,
            "attention_types": [[["global", "local"], 6]],
        },
    ),
    "facebook/opt-125m": ("OPT", {}),
    "facebook/opt-350m": (
        "OPT",
        {
            "hidden_size": 1024,
            "num_hidden_layers": 24,
            "ffn_dim": 4096,
            "num_attention_heads": 16,
            "word_embed_proj_dim": 512,
            "do_layer_norm_before": False,
        },
    ),
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": (
        "Qwen2",
        {
            "vocab_size": 151936,
            "hidden_size": 1536,
            "intermediate_size": 8960,
            "num_hidden_layers": 28,
            "num_attention_heads": 12,
            "num_key_value_heads": 2,
            "max_position_embeddings": 131072,
        },
    ),
}
CAPABILITY = {"NVIDIA A100-SXM4-40GB": "8.0", "NVIDIA GeForce RTX 4060": "8.9"}


class Random(torch.utils.data.Dataset):
    """A few samples of (input, target): an image and its class, or tokens twice."""

    def __init__(self, shape: tuple[int, ...], classes: int = 0, words: int = 0) -> None:
        self.shape, self.classes, self.words = shape, classes, words

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        if self.words:
            tokens = torch.randint(0, self.words, self.shape)
            return tokens, tokens.clone()
        return torch.rand(self.shape), torch.randint(0, self.classes, ())


def images(build: Any, shape: tuple[int, ...], classes: int) -> Task:
    """A classifier whose last outputs and loss stay referenced, as in those runs."""
    kept: dict[str, Any] = {}

    def loss(model: nn.Module, batch: Any) -> Loss:
        kept["out"] = model(batch[0])
        kept["loss"] = functional.cross_entropy(kept["out"], batch[1])
        return Loss(total=kept["loss"], weight=1)

    return Task(model=build, train=Random(shape, classes), valid=Random(shape, classes), loss=loss)


def language(identity: str) -> Task:
    """A language model with random weights: labels are the inputs, the model makes the loss."""
    import transformers

    kind, sizes = LANGUAGE[identity]
    config = getattr(transformers, f"{kind}Config")(**sizes)
    kept: dict[str, Any] = {}

    def loss(model: nn.Module, batch: Any) -> Loss:
        mask = torch.ones_like(batch[0])
        kept["out"] = model(input_ids=batch[0], attention_mask=mask, labels=batch[1])
        return Loss(total=kept["out"].loss, weight=1)

    data = Random((TOKENS,), words=config.vocab_size)
    build = lambda: transformers.AutoModelForCausalLM.from_config(config)  # noqa: E731
    return Task(model=build, train=data, valid=data, loss=loss)


def perceptron(row: dict[str, str]) -> Task:
    """A stack of Linear layers, widths by architecture (the figures' README)."""
    width, out = (int(n) for n in row["input"].split("->"))
    notes = dict(part.split("=") for part in row["notes"].split())
    depth, kind = int(notes["depth"]), row["model"].removeprefix("mlp:")

    def build() -> nn.Module:
        layers: list[nn.Module] = []
        now = width
        for i in range(depth):
            then = {
                "uniform": width,
                "pyramid": max(now // 2, 1),
                "bottleneck": max(now // 2, 1),
                "gradual": width - (i + 1) * ((width - out) // depth),
            }[kind]
            norm = [nn.BatchNorm1d(then)] if notes.get("bn") in ("1", "True", "true") else []
            drop = [nn.Dropout(0.5)] if float(notes.get("dropout") or 0) else []
            layers += [nn.Linear(now, then), *norm, nn.Tanh(), *drop]
            now = then
        return nn.Sequential(*layers, nn.Linear(now, out))

    return images(build, (width,), out)


def task_of(row: dict[str, str]) -> Task:
    """The row's model and data as a task."""
    import timm
    import torchvision

    kind, _, name = row["model"].replace("torchvision ", "torchvision:").partition(":")
    if kind == "hf":
        return language(name)
    if kind == "mlp":
        return perceptron(row)
    if kind == "timm":
        made = timm.get_pretrained_cfg(name)
        shape = tuple(made.input_size) if made else (3, 224, 224)
        return images(lambda: timm.create_model(name), shape, int(row["classes"]))
    more = {"aux_logits": False, "init_weights": False} if "inception" in name else {}
    build = getattr(torchvision.models, name.split("(")[0])
    classes, shape = int(row["classes"]), tuple(int(n) for n in row["input"].split("x"))
    return images(lambda: build(num_classes=classes, **more), shape, classes)


def device_of(row: dict[str, str]) -> Device:
    """The GPU of the row, as far as a trace asks."""
    rates = {"matmul": {"fp32": 1e13}, "bandwidth": 1e12, "op_seconds": 1e-5, "source": "assumed"}
    fields = {"kind": "cuda", "name": row["gpu"], "total_bytes": 1 << 40, "free_bytes": 1 << 40}
    capability = CAPABILITY.get(row["gpu"], "8.6")
    return Device.model_validate(
        fields | {"compute_capability": capability, "native_dtypes": ("fp32",), "rates": rates}
    )


def profile_of(row: dict[str, str], cache: Path | None) -> ModelProfile:
    """The traced model at the row's batch; kept in `cache` where one is given."""
    key = " ".join(row[name] for name in ("model", "classes", "input", "batch", "gpu", "notes"))
    file = cache / f"{hashlib.sha256(key.encode()).hexdigest()[:20]}.json" if cache else None
    if file and file.exists():
        return ModelProfile.model_validate_json(file.read_text())
    tracer = ModelTracer.open(task_of(row), Path(__file__), device_of(row))
    tracer.trace(int(row["batch"]))
    profile = tracer.profile()
    if file:
        file.write_text(profile.model_dump_json())
    return profile


def setup_of(row: dict[str, str], implementation: str) -> Setup:
    """The row's optimizer with torch's default arguments."""
    guessed = row["optimizer"] == "sgd-momentum?"
    name = "sgd" if guessed else row["optimizer"].lower()
    momentum = 0.9 if guessed else None
    return Setup(
        int(row["batch"]),
        1,
        "fp32",
        name,
        implementation,
        momentum,
        decays=False,  # type: ignore[arg-type]
    )


def as_they_ran(row: dict[str, str], profile: ModelProfile) -> float:
    """Reserved MiB of those scripts' own loops: no evaluation, the batch kept, gradients late."""
    scene = Scene(
        workspaces=() if row["source"] == "xmem-2024" else (cuda.CUBLAS, cuda.CUBLAS),
        evaluates=False,
        keeps_batch=True,
        late_zero=row["zero_grad"] == "before_backward",
    )
    allocator = Allocator()
    setup = setup_of(row, "foreach")
    allocator.run(run_tape(profile.traces[0], profile.trainable_sizes, setup, scene))
    return cuda.UNSEEN * allocator.reserved_peak / MIB


class Compared(NamedTuple):
    """One row: MiB as a plan predicts, as those scripts' loop would take, and as measured."""

    row: dict[str, str]
    plan: Prediction
    theirs: float
    measured: float


def compare(rows: list[dict[str, str]], cache: Path | None, implementation: str) -> list[Compared]:
    """Predictions for every row that can be traced; the others are named."""
    made = []
    for row in rows:
        try:
            profile = profile_of(row, cache)
            setup = setup_of(row, implementation)
            nothing = Prediction(low=0, expected=0, high=0)
            plan = cuda.reserved(profile, setup, nothing, device_of(row))
            theirs = as_they_ran(row, profile)
        except (AutotrainError, KeyError, RuntimeError, AttributeError) as error:
            print(f"{row['id']} {row['model']}: left out: {error}", file=sys.stderr)
            continue
        made.append(Compared(row, plan, theirs, float(row["measured_mib"])))
    return made


def family(row: dict[str, str]) -> str:
    """xMem's own families; of timm, the name up to its first digit or underscore."""
    if not row["model"].startswith("timm:"):
        return row["family"]
    return re.split(r"[0-9_]", row["model"].removeprefix("timm:"))[0]


def bases(found: list[Compared]) -> dict[str, float]:
    """What each family's figures hold beside the allocator's, from all other families."""
    over = {c.row["id"]: c.measured - c.theirs for c in found}
    return {
        one: statistics.median([over[c.row["id"]] for c in found if family(c.row) != one] or [0.0])
        for one in {family(c.row) for c in found}
    }


def report(found: list[Compared]) -> None:
    """Every row, then median, p90 and worst error, and how many lie within the interval."""
    whole = any(c.row["measures"] == "whole-gpu" for c in found)
    base = bases(found) if whole else {}
    rows = []
    for c in found:
        measured = c.measured - base.get(family(c.row), 0.0)
        low, plan, high = (getattr(c.plan, end) / MIB for end in ("low", "expected", "high"))
        rows.append((measured, low, plan, high, c.theirs))
        print(
            f"{c.row['id']} {c.row['model'][:44]:44} {c.row['optimizer']:8} {c.row['batch']:>4} "
            f"measured {measured:7.0f}  plan {plan:7.0f} ({plan / measured - 1:+6.1%}) "
            f"[{low:.0f}, {high:.0f}]  as run {c.theirs:7.0f} ({c.theirs / measured - 1:+6.1%})"
        )
    print(
        f"\n{len(rows)} rows"
        + (f"; base {statistics.median(base.values()):.0f} MiB" if base else "")
    )
    summary("as a plan says", [plan / measured - 1 for measured, _, plan, _, _ in rows])
    summary("as they ran", [theirs / measured - 1 for measured, *_, theirs in rows])
    published = [
        float(c.row["best_published_estimate_mib"]) / c.measured - 1
        for c in found
        if c.row["best_published_estimate_mib"]
    ]
    if published:
        summary("xMem's own estimate", published)
    above = sum(measured > high for measured, _, _, high, _ in rows)
    inside = sum(low <= measured <= high for measured, low, _, high, _ in rows)
    print(f"inside [low, high] {inside / len(rows):.1%}; above high {above / len(rows):.1%}")


def summary(name: str, errors: list[float]) -> None:
    """One line of figures."""
    size = sorted(abs(e) for e in errors)
    print(
        f"{name:20} median {statistics.median(size):.1%}  p90 {size[int(0.9 * len(size))]:.1%}  "
        f"worst {size[-1]:.1%}  bias {statistics.median(errors):+.1%}"
    )


def chosen(arguments: argparse.Namespace) -> list[dict[str, str]]:
    """The rows asked for; Adafactor is none of our optimizers."""
    with arguments.csv.open() as file:
        rows = [row for row in csv.DictReader(file) if row["optimizer"] != "Adafactor"]
    wanted = {
        "xmem": lambda row: row["source"].startswith("xmem"),
        "timm": lambda row: row["model"].startswith("timm:"),
        "imagenet": lambda row: row["family"] == "imagenet",
        "mlp": lambda row: row["model"].startswith("mlp:"),
    }[arguments.source]
    rows = [row for row in rows if wanted(row)]
    rows = [row for row in rows if not arguments.families or family(row) in arguments.families]
    if arguments.sample is None or arguments.sample >= len(rows):
        return rows
    return random.Random(0).sample(rows, arguments.sample)


def main() -> int:
    """Read the arguments, trace, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--csv", type=Path, default=Path("../shared/data/gpu-memory.csv"))
    parser.add_argument("--source", choices=("xmem", "timm", "imagenet", "mlp"), default="xmem")
    parser.add_argument("--families", nargs="*", default=[])
    parser.add_argument("--sample", type=int, help="so many rows, drawn at random")
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--implementation", choices=("foreach", "fused"), default="foreach")
    arguments = parser.parse_args()
    if not arguments.csv.exists():
        print(f"{arguments.csv} is not there: these are others' figures, kept outside the project")
        print("name the file with --csv; docs/measurements/2026-11-20-gpu-figures.md has results")
        return 1
    if arguments.cache:
        arguments.cache.mkdir(parents=True, exist_ok=True)
    report(compare(chosen(arguments), arguments.cache, arguments.implementation))
    return 0


if __name__ == "__main__":
    sys.exit(main())
