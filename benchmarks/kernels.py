"""Kernels that oneDNN makes in a few steps: keeping as many as the plan says, and keeping all.

python benchmarks/kernels.py [--models a,b] [--dtypes fp32,bf16]

Where both are equal, none was made twice: the plan keeps enough. Counted, not timed.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from step_time import AUTOTRAIN, planned

MODELS = (
    "mlp,resnet18,efficientnet_b0,mobilenet_v3_small,convnext_tiny,bilstm_ctc,transformer,gru,unet,"
    "densenet,vit,conformer_ctc,gpt2_like,separable_net,clip_net"
)
KEPT, ALL = "ONEDNN_PRIMITIVE_CACHE_CAPACITY", "8192"
MICRO_BATCH, STEPS = 4, 4


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
                kept = planned(name, (MICRO_BATCH, dtype), 2, folder, [])["device"]["kernels"]
                own, every = made(folder, {}), made(folder, {KEPT: ALL})
            again = "" if own == every else f"  {own - every} made again"
            print(f"{name:20} {dtype}  kept {kept:5}  made {every:5}{again}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
