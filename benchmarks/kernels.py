"""Kernels that oneDNN makes in a few steps: keeping as many as the plan says, and keeping all.

python benchmarks/kernels.py [--models a,b] [--dtypes fp32,bf16]

Where both are equal, none was made twice: the plan keeps enough. Counted, not timed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from step_time import AUTOTRAIN, HERE

MODELS = (
    "mlp,resnet18,efficientnet_b0,mobilenet_v3_small,convnext_tiny,bilstm_ctc,transformer,gru,unet,"
    "densenet,vit,conformer_ctc,gpt2_like,separable_net,clip_net"
)
KEPT, ALL = "ONEDNN_PRIMITIVE_CACHE_CAPACITY", "8192"
STEPS = 4


def planned(name: str, dtype: str, folder: Path) -> int:
    """The kernels that a plan of it keeps."""
    settings = {
        "task.model": name, "batch.micro_batch": 4, "batch.global_batch": 4,
        "precision.dtype": dtype, "loader.workers": 0, "train.epochs": 1,
    }  # fmt: skip
    sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    plan = [*AUTOTRAIN, "plan", "--task", HERE / "cells.py", *sets, "-o", folder / "plan.toml"]
    done = subprocess.run(
        [*plan, "--json", "--no-trial"], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)["device"]["kernels"]


def made(folder: Path, more: dict[str, str]) -> int:
    """Kernels that a run of it made."""
    command = [*AUTOTRAIN, "run", folder / "plan.toml", "--fresh", "--max-steps", str(STEPS)]
    environment = os.environ | {"ONEDNN_VERBOSE": "2"} | more
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    return done.stdout.count("create:cache_miss") + done.stderr.count("create:cache_miss")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default=MODELS)
    parser.add_argument("--dtypes", default="fp32,bf16")
    asked = parser.parse_args()
    for name in asked.models.split(","):
        for dtype in asked.dtypes.split(","):
            with tempfile.TemporaryDirectory() as home:
                folder = Path(home)
                kept = planned(name, dtype, folder)
                own, every = made(folder, {}), made(folder, {KEPT: ALL})
            again = "" if own == every else f"  {own - every} made again"
            print(f"{name:20} {dtype}  kept {kept:5}  made {every:5}{again}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
