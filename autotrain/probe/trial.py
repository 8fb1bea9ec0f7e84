"""The child process of a trial: a few optimizer steps for real, on the longest real batch.

`probe.child` starts it as `python -m autotrain.probe.trial`: a Request on stdin, a Trial on
stdout. What the task prints meets stderr. It dies with the process that started it.
"""

from __future__ import annotations

import importlib
import os
import signal
import statistics
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

import psutil
import torch

from autotrain.child import SO_FAR
from autotrain.device import device_of, out_of_memory, settings
from autotrain.nvml import used_bytes
from autotrain.prepare import varies
from autotrain.probe.allocated import most_alive
from autotrain.probe.child import Request, setup_of
from autotrain.probe.reading import explained
from autotrain.probe.steps import NotFiniteError, Stepper, insist_on_input, longest_samples
from autotrain.schema import CUDA_LIKE, Plan, Record, Trial
from autotrain.task import Task, load_task

# Steps in all, of which so many beyond those that tell the peak are enough to time; and how long
# those may go on.
MOST_STEPS, LEAST_TIMED, TIMED_SECONDS = 20, 3, 1.5


def main() -> None:
    """Read the request, take the steps, answer."""
    serve(lambda line: tried(Request.model_validate_json(line)))


def serve(work: Callable[[bytes], Record | Iterator[Record]]) -> None:
    """A child's life: one line from stdin, its answer to stdout; what it prints meets stderr.

    Of several answers each says more than the one before: the last is the answer, the others are
    for whoever cannot wait for it.
    """
    lifeline, answer = _apart()
    line = _line(lifeline)
    threading.Thread(target=_die_with_parent, args=(lifeline,), daemon=True).start()
    said, last = work(line), b""
    with open(answer, "wb") as out:
        for each in said if isinstance(said, Iterator) else (said,):
            last = each.model_dump_json().encode() + b"\n"
            out.write(SO_FAR + last)
            out.flush()
        out.write(last)


def converse(work: Callable[[bytes], Record]) -> None:
    """The same of one that is asked again and again, until stdin ends."""
    asked, answer = _apart()
    with open(asked, "rb") as lines, open(answer, "wb") as out:
        for line in lines:
            out.write(work(line).model_dump_json().encode() + b"\n")
            out.flush()


def _apart() -> tuple[int, int]:
    """What stdin and stdout were: to the task the one is empty, the other leads to stderr."""
    asked, answer = os.dup(0), os.dup(1)
    os.dup2(2, 1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    with suppress(OSError):  # Linux: where memory runs out, this process is to go first
        Path("/proc/self/oom_score_adj").write_text("1000")
    return asked, answer


def tried(request: Request) -> Trial:
    """The trial, whatever comes of it."""
    setup, path = setup_of(request.plan), Path(request.task_file)
    stepper: Stepper | None = None
    try:
        task = load_task(path, request.data, request.plan.task.options)
        device = device_of(request.plan.device)
        stepper = Stepper(request, task, device)
        before = used_bytes_of(device)  # before this process is known to the driver
        with settings(request.plan):
            measured = _measured(stepper, before)
        return Trial.model_validate({**setup, "outcome": "ok", **measured})
    except Exception as error:
        said = fault(path, error, stepper.doing if stepper is not None else "")
        if said["outcome"] == "out_of_memory":
            said |= _seen(stepper)
    return Trial.model_validate({**setup, **said})


def fault(path: Path, error: Exception, doing: str) -> dict[str, Any]:
    """`outcome`, `message` and `hint` of what went wrong in a child while it was `doing`."""
    if isinstance(error, NotFiniteError):
        hint = "look at the data and at the loss; a lower optimizer.lr, or bf16 in place of fp16"
        return {"outcome": "not_finite", "message": f"{path}: {error}", "hint": hint}
    if out_of_memory(error):
        first = str(error).splitlines()[:1]
        return {"outcome": "out_of_memory", "message": " ".join([doing.rstrip(": "), *first])}
    theirs = explained(path, error, doing)
    return {"outcome": "failed", "message": theirs.message, "hint": theirs.hint}


def _measured(stepper: Stepper, before: int | None) -> dict[str, Any]:
    """All that a trial measures."""
    request, task, device = stepper.request, stepper.task, stepper.device
    for name in request.imports:
        importlib.import_module(name)
    on_cpu = device.type == "cpu"
    base = psutil.Process().memory_info().rss if on_cpu else 0
    stepper.build()
    stepper.doing = "the task's length: "
    window = _window(request.plan, task)
    longest = window[-1]
    for _ in range(request.steps):
        stepper.step(window)
    held_out = task.train if task.valid is None else task.valid
    which = "training" if task.valid is None else "validation"
    indices = longest if task.valid is None else [*range(min(len(longest), len(task.valid)))]
    batch = stepper.batch(held_out, indices, which)
    stepper.validate(batch)
    copies = stepper.copy() if on_cpu else []
    assert stepper.memory is not None
    peak, tensors = stepper.memory.now_and_peak()[1], stepper.memory.tensor_peak()
    copies.clear()
    lent = lent_bytes(before, used_bytes_of(device)) if device.type == "cuda" else peak
    insist_on_input(stepper, batch)
    seconds, steps = _timed(stepper, window), len(stepper.update_seconds)
    if request.tensors and on_cpu:
        tensors = most_alive(
            stepper.model, stepper.optimizer, lambda: stepper.step(window), stepper.averaged()
        )
    return {
        "message": "; ".join(stepper.unread),
        "steps": steps,
        "base_bytes": base,
        "device_peak_bytes": lent,
        "reserved_peak_bytes": peak if request.plan.device.kind in CUDA_LIKE else None,
        "tensor_peak_bytes": tensors,
        **seconds,
        "losses": stepper.losses,
    }


def _timed(stepper: Stepper, window: list[list[int]]) -> dict[str, float]:
    """Seconds of a micro-batch and of an update, once steps are warm.

    Short steps are not after as few as a peak takes: some more, while there is time for them. Not
    where samples differ in size, unless a step takes them all: those of a run are never as warm as
    one batch again and again.
    """
    task, total = stepper.task, stepper.request.plan.batch.global_batch
    taken, differ = len(stepper.update_seconds), varies(task) and len(task.train) > total
    deadline = monotonic() + (0.0 if differ else TIMED_SECONDS)
    while len(stepper.update_seconds) < MOST_STEPS and monotonic() < deadline:
        stepper.step(window)
    enough = len(stepper.update_seconds) >= taken + LEAST_TIMED
    warm = taken if enough else min(1, taken - 1)
    return {
        "micro_seconds": statistics.median(stepper.micro_seconds[warm * len(window) :]),
        "update_seconds": statistics.median(stepper.update_seconds[warm:]),
    }


def _seen(stepper: Stepper | None) -> dict[str, Any]:
    """What had been taken when memory ran out."""
    if stepper is None or stepper.memory is None:
        return {}
    peak = stepper.memory.now_and_peak()[1]
    on_gpu = stepper.request.plan.device.kind in CUDA_LIKE
    return {"reserved_peak_bytes" if on_gpu else "device_peak_bytes": peak}


def _window(plan: Plan, task: Task) -> list[list[int]]:
    """The samples of each micro-batch of a step: one, two where more accumulate, or one a bucket.

    The longest there are; of each bucket its own longest, the longest bucket last.
    """
    if plan.batch.buckets and task.length is not None:
        return [longest_samples(task, size, end) for end, size in plan.batch.buckets]
    longest = longest_samples(task, plan.batch.micro_batch)
    return [longest] * min(plan.batch.accum_steps, 2)


def used_bytes_of(device: torch.device) -> int | None:
    """Bytes in use on an NVIDIA GPU, by everyone."""
    if device.type != "cuda" or torch.version.hip is not None:
        return None
    return used_bytes(str(torch.cuda.get_device_properties(device).uuid))


def lent_bytes(before: int | None, after: int | None) -> int | None:
    """What the driver lent meanwhile; None where it does not tell."""
    return None if before is None or after is None else max(after - before, 0)


def _line(handle: int) -> bytes:
    """The first line of a pipe that stays open."""
    line = b""
    while not line.endswith(b"\n") and (part := os.read(handle, 1 << 16)):
        line += part
    return line


def _die_with_parent(lifeline: int) -> None:
    """Whoever started this process holds the pipe's other end: its end is ours.

    And of all that was started here, in a group of its own or not.
    """
    with suppress(OSError):
        os.read(lifeline, 1)
    for each in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            each.kill()
    if hasattr(os, "killpg") and os.getpgid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    main()
    sys.exit()
