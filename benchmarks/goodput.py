"""How much of the time goes into training where a run is killed every few minutes, and resumed.

python benchmarks/goodput.py [--every 300] [--kills 4] [--template speech-autoencoder]

The plan is told how often it is interrupted. A supervisor starts `autotrain run --resume`, sends
SIGKILL after each `--every` seconds, and starts it again at once. Goodput: the seconds that the
steps and evaluations which count took, over all seconds. Lost are starts, what was undone and is
done again, and what saves hold up.
"""

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path

from naive import AUTOTRAIN


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=float, default=300)
    parser.add_argument("--kills", type=int, default=4)
    parser.add_argument("--template", default="speech-autoencoder")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        plan = Path(temporary) / "plan.toml"
        sets = {
            "checkpoint.interruption_hours": asked.every / 3600, "train.epochs": 100_000,
            "early_stop.patience": "off", "run.directory": "run", "run.log_every_steps": 1,
        }  # fmt: skip
        more = [part for key, value in sets.items() for part in ("--set", f"{key}={value}")]
        command = [*AUTOTRAIN, "plan", "--template", asked.template, "-o", plan, *more]
        subprocess.run(command, check=True, capture_output=True)
        begun, run = time.perf_counter(), [*AUTOTRAIN, "run", plan, "--resume", "--json"]
        for number in range(asked.kills):
            with open(Path(temporary) / f"{number}.jsonl", "wb") as out:
                process = subprocess.Popen(run, stdout=out, stderr=subprocess.DEVNULL)
                time.sleep(asked.every)
                process.kill()
                process.wait()
        took = time.perf_counter() - begun
        events = [
            json.loads(line)
            for number in range(asked.kills)
            for line in (Path(temporary) / f"{number}.jsonl").read_text().splitlines(keepends=True)
            if line.endswith("\n")
        ]
        kept = max(event["step"] for event in events if event["event"] == "saved")
        seconds = {e["step"]: e["step_seconds"] for e in events if e["event"] == "step"}
        per_step = sorted(seconds.values())[len(seconds) // 2]
        useful = sum(seconds.get(step, per_step) for step in range(1, kept + 1))
        judged = {e["step"]: e["seconds"] for e in events if e["event"] == "evaluated"}
        useful += sum(judged[step] for step in judged if step <= kept)
        held = sum(event["held_seconds"] for event in events if event["event"] == "saved")
        undone = [max(steps) - last for steps, last in cut(events)]
        print(f"{asked.kills} kills, one every {asked.every:.0f} s: {kept} steps of "
              f"{1e3 * per_step:.1f} ms kept, {useful:.0f} of {took:.0f} s: "
              f"goodput {100 * useful / took:.1f} %; saves held it up for {held:.1f} s, "
              f"{per_step * sum(undone):.1f} s of steps were undone")  # fmt: skip


def cut(events: list[dict]) -> list[tuple[list[int], int]]:
    """Of each start: its steps, and the last one that was saved."""
    found: list[tuple[list[int], int]] = []
    for event in events:
        if event["event"] == "started":
            found.append(([event["step"]], event["step"]))
        elif event["event"] == "step":
            found[-1][0].append(event["step"])
        elif event["event"] == "saved" and event["label"] != "mirrored":
            found[-1] = (found[-1][0], event["step"])
    return found


if __name__ == "__main__":
    main()
