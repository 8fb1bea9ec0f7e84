"""A small run that is made to suffer, in a process that forks one for each trial.

Lines of JSON on stdin say what to run, lines of JSON on stdout what became of it. torch is imported
once, so that a trial takes a fraction of a second.
"""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import torch
import torch._dynamo  # every optimizer loads it, which takes longer than a run
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from narrow import narrowed
from run.plans import make_plan

from autotrain import Loss, Task
from autotrain.errors import AutotrainError
from autotrain.run.loop import train
from autotrain.run.signals import Stop

COUNT = 60
ENDS = {"interrupted": 130, "terminated": 143}


class Numbered(torch.utils.data.Dataset):
    """Samples that know their number; `more` tensors of `wide` floats each come with them.

    To read sample `greedy` takes 300 MB. The run is suspended for `seconds` while sample `pauses`
    is read, once, and that then takes 0.4 s more.
    """

    def __init__(self, more=0, wide=1, greedy=None, pauses=None, seconds=0.0, count=COUNT):
        self.more, self.wide, self.greedy, self.count = more, wide, greedy, count
        self.pauses, self.seconds = pauses, seconds

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        x = torch.randn(4, generator=torch.Generator().manual_seed(index))
        if index == self.greedy:
            bytearray(b"1" * (300 << 20))
        if index == self.pauses:
            self.pauses = None
            stop, go_on = (f"kill -s {name} -- -{os.getpgrp()}" for name in ("STOP", "CONT"))
            said = f"sleep 0.1; {stop}; sleep {self.seconds}; {go_on}"
            subprocess.Popen(["sh", "-c", said], start_new_session=True)
            for _ in range(40):
                time.sleep(0.01)
        return x, (x.sum() > 0).long(), index, [torch.ones(self.wide) for _ in range(self.more)]


class Net(nn.Module):
    """Its buffer `order` is another number for every other order of samples."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.2), nn.ReLU(), nn.Linear(16, 2))
        self.register_buffer("order", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        return self.layers(x)


def loss(model, batch):
    x, y, index, _ = batch
    if model.training:
        for number in index.tolist():
            model.order = (model.order * 1_000_003 + number + 1) % (1 << 61)
    total = nn.functional.cross_entropy(model(x), y, reduction="sum")
    return Loss(total=total, weight=len(y))


def opened(directory, name):
    """A file beside the run that is written without `write`, which may be made to fail."""
    return os.open(f"{directory}.{name}", os.O_RDWR | os.O_CREAT, 0o600)


def run(
    directory, *, background=False, workers=0, resume=False, every=2, keep=2, timeout=None,
    samples=None, narrow=None, epochs=3,
):  # fmt: skip
    """Carry it out; every checkpoint that was reported stands in a file, and what was healed."""
    narrowed(**narrow or {})
    task = Task(model=Net, train=Numbered(**samples or {}), loss=loss)
    plan = make_plan(
        train={"epochs": epochs, "ema_decay": 0.9},
        checkpoint={"every_steps": every, "keep": keep, "background": background},
        loader={"workers": workers, "timeout_seconds": timeout},
    )
    place, count = opened(directory, "reported"), 0
    healed, told, reason = opened(directory, "healed"), 0, ""
    with Stop().catch() as stop:
        for event in train(plan, task, Path(directory), task_file=Path(directory), resume=resume,
                           stop=stop):  # fmt: skip
            if event.name == "saved":
                count += os.pwrite(place, f"{event.step}\n".encode(), count)
            reason = event.reason if event.name == "stopped" else reason
            if event.name == "healed":
                told += os.pwrite(healed, f"{event.fault}: {event.cure}\n".encode(), told)
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
        code, said = 1, str(error)
    os.pwrite(opened(asked["directory"], "said"), said.encode(), 0)
    os._exit(code)


def main():
    torch.set_num_threads(1)
    for line in sys.stdin:
        asked = json.loads(line)
        after, begun = asked.pop("kill_after", None), time.perf_counter()
        signals = asked.pop("signals", [])
        # What Python does as it forks prints a ^C, and no run is there yet to take it.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        process = os.fork()
        if not process:
            try:
                os.setpgid(0, 0)
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
                child(asked)
            finally:
                os._exit(130)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        with suppress(OSError):  # whichever of the two comes first
            os.setpgid(process, process)
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
