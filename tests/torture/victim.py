"""A small run that is made to suffer, in a process that forks one for each trial.

Lines of JSON on stdin say what to run, lines of JSON on stdout what became of it. torch is imported
once, so that a trial takes a fraction of a second.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import torch
import torch._dynamo  # every optimizer loads it, which takes longer than a run
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from run.plans import make_plan

from autotrain import Loss, Task
from autotrain.errors import AutotrainError
from autotrain.run.loop import train
from autotrain.run.signals import Stop

COUNT = 60
ENDS = {"interrupted": 130, "terminated": 143}


class Numbered(torch.utils.data.Dataset):
    """Samples that know their number."""

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        x = torch.randn(4, generator=torch.Generator().manual_seed(index))
        return x, (x.sum() > 0).long(), index


class Net(nn.Module):
    """Its buffer `order` is another number for every other order of samples."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.2), nn.ReLU(), nn.Linear(16, 2))
        self.register_buffer("order", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        return self.layers(x)


def loss(model, batch):
    x, y, index = batch
    if model.training:
        for number in index.tolist():
            model.order = (model.order * 1_000_003 + number + 1) % (1 << 61)
    total = nn.functional.cross_entropy(model(x), y, reduction="sum")
    return Loss(total=total, weight=len(y))


def task():
    return Task(model=Net, train=Numbered(), loss=loss)


def run(directory, *, background=False, workers=0, resume=False, every=2, keep=2, timeout=None):
    """Carry it out; every checkpoint that was reported stands in a file that needs no `write`."""
    plan = make_plan(
        train={"epochs": 3, "ema_decay": 0.9},
        checkpoint={"every_steps": every, "keep": keep, "background": background},
        loader={"workers": workers, "timeout_seconds": timeout},
    )
    place, count = os.open(f"{directory}.reported", os.O_RDWR | os.O_CREAT, 0o600), 0
    reason, healed = "", os.open(f"{directory}.healed", os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    with Stop().catch() as stop:
        for event in train(plan, task(), Path(directory), task_file=Path(directory), resume=resume,
                           stop=stop):  # fmt: skip
            if event.name == "saved":
                count += os.pwrite(place, f"{event.step}\n".encode(), count)
            reason = event.reason if event.name == "stopped" else reason
            if event.name == "healed":
                os.write(healed, f"{event.fault}\n".encode())
    return ENDS.get(reason, 0)


def child(asked):
    if asked.pop("waits", False):  # until somebody has attached to it
        os.kill(os.getpid(), signal.SIGSTOP)
    code, said = 0, ""
    try:
        code = run(**asked)
    except KeyboardInterrupt:
        code = 130
    except AutotrainError as error:
        code, said = 1, error.message
    os.pwrite(os.open(f"{asked['directory']}.said", os.O_RDWR | os.O_CREAT, 0o600),
              said.encode(), 0)  # fmt: skip
    os._exit(code)


def main():
    torch.set_num_threads(1)
    for line in sys.stdin:
        asked = json.loads(line)
        after, begun = asked.pop("kill_after", None), time.perf_counter()
        signals = asked.pop("signals", [])
        process = os.fork()
        if not process:
            try:
                os.setpgid(0, 0)
                child(asked)
            finally:
                os._exit(130)
        if asked.get("waits"):
            os.waitpid(process, os.WUNTRACED)
            print(json.dumps({"pid": process}), flush=True)
        if after is not None:
            time.sleep(after)
            os.kill(process, signal.SIGKILL)
        for wait, number, group in signals:
            time.sleep(wait)
            (os.killpg if group else os.kill)(process, number)
        _, status = os.waitpid(process, 0)
        seconds = time.perf_counter() - begun
        code = os.waitstatus_to_exitcode(status)
        print(json.dumps({"code": code, "seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
