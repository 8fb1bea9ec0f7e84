"""How OpenMP's threads should wait for one another: seconds of a step, alone and beside others.

python benchmarks/waiting.py [--models a,b] [--rounds 3] [--beside 1]

Each setting is an environment of a process that trains a model of cells.py; settings take turns.
`--beside N`: N other programs that do nothing but count run meanwhile.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

SETTINGS = {
    "as it is": {},
    "spin 1000": {"GOMP_SPINCOUNT": "1000"},
    "spin 10000": {"GOMP_SPINCOUNT": "10000"},
    "passive": {"OMP_WAIT_POLICY": "passive"},
}
MODELS = "mlp,lstm,bilstm_ctc,transformer,resnet18,mixer,shufflenet"
SECONDS, FEWEST = 2.0, 5
BUSY = [sys.executable, "-c", "while True: pass"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default=MODELS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--beside", type=int, default=0)
    parser.add_argument("--micro", type=int, default=8)
    parser.add_argument("--dtype", default="fp32")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        return step(arguments.step, arguments.micro, arguments.dtype)
    others = [subprocess.Popen(BUSY) for _ in range(arguments.beside)]
    try:
        for model in arguments.models.split(","):
            compare(model, arguments)
    finally:
        for other in others:
            other.kill()


def compare(model: str, arguments: argparse.Namespace) -> None:
    taken: dict[str, list[float]] = {name: [] for name in SETTINGS}
    for _ in range(arguments.rounds):
        for name, more in SETTINGS.items():
            command = [sys.executable, __file__, "--step", model, "--micro", str(arguments.micro),
                       "--dtype", arguments.dtype]  # fmt: skip
            done = subprocess.run(command, env=os.environ | more, capture_output=True, check=True)
            taken[name].append(json.loads(done.stdout))
    first = statistics.median(taken["as it is"])
    said = []
    for name, seconds in taken.items():
        middle = statistics.median(seconds)
        low, high = (round(x * 1e3, 2) for x in (min(seconds), max(seconds)))
        said.append(f"{name} {middle * 1e3:8.2f} ms ({low} to {high}) {middle / first:.2f}x")
    print(f"{model:14} " + " | ".join(said), flush=True)


def step(model: str, micro: int, dtype: str) -> None:
    """The median of a model's steps: forward, backward, an AdamW step."""
    import cells
    import torch
    from torch.utils.data import default_collate

    torch.manual_seed(0)
    task = cells.task(Path(), model)
    net = task.model()
    optimizer = torch.optim.AdamW(net.parameters())
    batch = (task.collate or default_collate)([task.train[i] for i in range(micro)])
    taken, end = [], time.monotonic() + SECONDS
    while time.monotonic() < end or len(taken) < FEWEST:
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bf16"):
            loss = task.loss(net, batch)
        (loss.total / loss.weight).backward()
        optimizer.step()
        optimizer.zero_grad()
        taken.append(time.perf_counter() - start)
    print(json.dumps(statistics.median(taken[2:])))


if __name__ == "__main__":
    main()
