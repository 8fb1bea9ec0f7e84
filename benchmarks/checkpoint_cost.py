"""What checkpoints cost: their size beside the predicted one, and what the loop waits for.

python benchmarks/checkpoint_cost.py [--models a,b] [--saves 8]

Each run of a model of cells.py saves every third step, in the background where the plan says that
it does so. `waits`: the median time that a save held the loop up, beside a plain copy of the same
tensors in RAM, made in the same place of the same run: before every other save, which then does not
count. `every`: the interval that the plan chose, and the wait's share of it.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import torch
from naive import planned

from autotrain.__main__ import main as autotrain
from autotrain.run.state import Run

CELLS = (
    ("resnet18", "adamw"), ("bilstm_ctc", "sgd"), ("gpt2_like", "adamw"), ("mixer", "adagrad"),
    ("densenet", "rmsprop"), ("tied_transformer", "adamw"), ("wide_resnet", "sgd"),
    ("table_net", "adam"), ("lstm_wide", "adamw"), ("unet", "adamax"),
)  # fmt: skip
EVERY = 3
BESIDE = "--beside"  # what this file is called with to be `autotrain`, with those copies


def saves(folder: Path, count: int) -> tuple[list[dict], dict, list[float]]:
    """The events of that many saves that count and of the last step; seconds of plain copies."""
    command = [sys.executable, __file__, BESIDE, "run", folder / "plan.toml", "--json", "--fresh",
               "--max-steps", str(EVERY * 2 * count)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    copies = [float(line) for line in done.stderr.splitlines() if line.startswith("0.")]
    told = [e for e in events if e["event"] == "saved" and e["label"] == "step"]
    return told[1::2], next(e for e in reversed(events) if e["event"] == "step"), copies


def copy_before_every_other() -> None:
    """Patch the loop: it says on stderr how long a plain copy took, before saves 1, 3, 5, ..."""
    snapshot, calls = Run.snapshot, []

    def beside(run: Run) -> object:
        calls.append(None)
        if len(calls) % 2:
            state = [*run.model.state_dict(keep_vars=True).values()]
            state += [part for own in run.optimizer.state.values() for part in own.values()]
            tensors = {id(part): part.detach() for part in state if isinstance(part, torch.Tensor)}
            begun = perf_counter()
            copies = [tensor.clone() for tensor in tensors.values()]
            print(f"{perf_counter() - begun:.7f}", file=sys.stderr)
            del copies
        return snapshot(run)

    Run.snapshot = beside


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default=",".join(name for name, _ in CELLS))
    parser.add_argument("--saves", type=int, default=8)
    asked = parser.parse_args()
    sizes, copies, shares = [], [], []
    with tempfile.TemporaryDirectory() as temporary:
        for name, optimizer in CELLS:
            if name not in asked.models.split(","):
                continue
            folder = Path(temporary) / name
            steps = {"optimizer.name": optimizer, "run.directory": "run"}
            asis = planned(name, 16, Path(temporary) / f"{name}-as-it-is", steps)
            often = {"checkpoint.every_steps": EVERY, "checkpoint.every_epochs": "off"}
            made = planned(name, 16, folder, {**steps, **often, "checkpoint.background": "true"})
            told, last, plain = saves(folder, asked.saves)
            size, held = told[-1]["bytes"], statistics.median(e["held_seconds"] for e in told)
            copy, off = statistics.median(plain), made["predicted"]["checkpoint_bytes"]
            apart = interval(asis, last["step_seconds"])
            sizes.append(abs(off["expected"] / size - 1))
            copies.append(held / copy)
            shares.append(held / apart)
            off_by = 100 * (off["expected"] / size - 1)
            print(f"{name:17} {optimizer:8} {size / 2**20:7.1f} MiB, predicted {off_by:+.2f} %; "
                  f"waits {1e3 * held:6.1f} ms, a copy {1e3 * copy:6.1f} ms: {held / copy:.2f} x; "
                  f"every {apart:.0f} s: {100 * held / apart:.3f} %", flush=True)  # fmt: skip
    print(f"{len(sizes)} cells: size off by {100 * max(sizes):.2f} % at most; waits "
          f"{statistics.median(copies):.2f} x a copy, {max(copies):.2f} at most; "
          f"{100 * max(shares):.3f} % of the time at most")  # fmt: skip


def interval(plan: dict, step: float) -> float:
    """Seconds of training from one save to the next, by the plan."""
    pace = plan["checkpoint"]
    per_epoch = -(-512 * 4 // 5 // plan["batch"]["global_batch"])
    steps = pace.get("every_steps") or per_epoch * pace.get("every_epochs", 1)
    return steps * step


if __name__ == "__main__":
    if sys.argv[1:2] == [BESIDE]:
        del sys.argv[1]
        copy_before_every_other()
        autotrain()
    sys.exit(main())
