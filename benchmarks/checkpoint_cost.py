"""What checkpoints cost: their size beside the predicted one, and what the loop waits for.

python benchmarks/checkpoint_cost.py [--models a,b] [--saves 8]

Each run of a model of cells.py saves every third step, in the background where the plan says that
it does so. `waits`: the median time that a save held the loop up, beside a plain copy of the same
tensors in RAM (a first copy, as a save makes: its memory is new). `at the planned cadence`: that
wait over the interval that the plan chose, as a share of the time to train.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

from naive import AUTOTRAIN, planned
from safetensors.torch import load_file

from autotrain.run.keeping.copies import own_copy

CELLS = (
    ("resnet18", "adamw"), ("bilstm_ctc", "sgd"), ("gpt2_like", "adamw"), ("mixer", "adagrad"),
    ("densenet", "rmsprop"), ("tied_transformer", "adamw"), ("wide_resnet", "sgd"),
    ("table_net", "adam"), ("lstm_wide", "adamw"), ("unet", "adamax"),
)  # fmt: skip
EVERY = 3


def saves(folder: Path, count: int) -> tuple[list[dict], dict]:
    """The events of that many saves and of the last step."""
    command = [*AUTOTRAIN, "run", folder / "plan.toml", "--json", "--fresh", "--max-steps",
               str(EVERY * count)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    return (
        [e for e in events if e["event"] == "saved" and e["label"] == "step"],
        next(e for e in reversed(events) if e["event"] == "step"),
    )


def copying(checkpoint: Path) -> float:
    """Seconds that a plain copy of a checkpoint's tensors takes."""
    took = []
    for _ in range(5):
        tensors = [
            t.clone() for f in checkpoint.glob("*.safetensors") for t in load_file(f).values()
        ]
        begun = perf_counter()
        copies = [own_copy(tensor) for tensor in tensors]
        took.append(perf_counter() - begun)
        del copies, tensors
    return statistics.median(took)


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
            told, last = saves(folder, asked.saves)
            size, held = told[-1]["bytes"], statistics.median(e["held_seconds"] for e in told)
            copy, off = copying(Path(told[-1]["path"])), made["predicted"]["checkpoint_bytes"]
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
    sys.exit(main())
