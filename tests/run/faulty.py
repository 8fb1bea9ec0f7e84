"""Tasks that fail on purpose, and what became of a run: for tests of healing and benchmarks."""

import dataclasses
import hashlib

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from autotrain.run import loop as looping
from autotrain.run import step
from autotrain.run.keeping import checkpoint
from autotrain.run.loop import train
from autotrain.task import Loss, Task


class Count:
    """Counts micro-batches of training, the tries again included."""

    def __init__(self):
        self.training = 0


def regression(net=None, *, count=64, valid=16, **more):
    """A small task in fp32: 8 numbers in, one out; its loss is told per sample as a part too."""
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(count + valid, 8, generator=generator)
    y = x.sin().sum(1, keepdim=True) + 0.1 * torch.randn(count + valid, 1, generator=generator)
    number = torch.arange(count + valid)
    rows = torch.utils.data.TensorDataset(x, y, number)

    def loss(model, batch):
        return Loss(total=(model(batch[0]) - batch[1]).square().sum(), weight=len(batch[0]))

    return Task(
        model=net or (lambda: nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))),
        train=torch.utils.data.Subset(rows, range(count)),
        valid=torch.utils.data.Subset(rows, range(count, count + valid)),
        loss=loss,
        **more,
    )


def failing(task, fails, error=None):
    """The task; `fails(call, model, batch)` of a training micro-batch says when it raises.

    Calls count from 1 and go on counting when a step is taken again.
    """
    calls = Count()
    error = error or torch.OutOfMemoryError

    def loss(model, batch):
        if model.training:
            calls.training += 1
            if fails(calls.training, model, batch):
                raise error("CUDA out of memory, injected")
        return task.loss(model, batch)

    return dataclasses.replace(task, loss=loss)


def spoilt(task, spoils):
    """The task; `spoils(samples)` -> what the loss of a training batch is multiplied with."""

    def loss(model, batch):
        made = task.loss(model, batch)
        by = spoils(set(batch[2].tolist())) if model.training else 1.0
        return dataclasses.replace(made, total=made.total * by)

    return dataclasses.replace(task, loss=loss)


def run(plan, task, directory, **more):
    directory.mkdir(exist_ok=True)
    return list(train(plan, task, directory, task_file=directory / "task.py", **more))


def until_error(plan, task, directory, error, **more):
    """Events, and what ended the run."""
    import pytest

    directory.mkdir(exist_ok=True)
    seen = []

    def consume():
        for event in train(plan, task, directory, task_file=directory / "task.py", **more):
            seen.append(event)

    with pytest.raises(error) as caught:
        consume()
    return seen, caught.value


def named(seen, name):
    return [event for event in seen if event.name == name]


def snapshot(directory, step=None):
    """The newest good checkpoint, or that of a step."""
    path, torn = checkpoint.newest_good(directory)
    assert not torn
    return checkpoint.load(path if step is None else checkpoint.folder(directory, step))


def weights(directory, step=None):
    return snapshot(directory, step).model.tensors


def furthest(one, other):
    """The largest difference of any weight, over the largest weight of its tensor."""
    return max(
        float((one[k] - other[k]).abs().max() / one[k].abs().max().clamp(min=1e-12)) for k in one
    )


def digest(directory, step=None):
    """SHA-256 of the weights and of what the optimizer keeps."""
    found, sha = snapshot(directory, step), hashlib.sha256()
    for flat in (found.model, found.optimizer):
        for name in sorted(flat.tensors):
            sha.update(name.encode())
            sha.update(flat.tensors[name].reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


class HostReads(TorchDispatchMode):
    """Counts what would make the host wait for a device: of a value, or of a tensor as a whole."""

    WHOLE = ("numpy", "tolist", "cpu")  # these never come to a dispatch mode

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))

    def __enter__(self):
        for name in self.WHOLE:
            setattr(torch.Tensor, name, self._counted(getattr(torch.Tensor, name)))
        return super().__enter__()

    def __exit__(self, *error):
        for name in self.WHOLE:
            delattr(torch.Tensor, name)  # what it inherits stands there again
        return super().__exit__(*error)

    def _counted(self, method):
        def counted(tensor, *args, **kwargs):
            self.count += 1
            return method(tensor, *args, **kwargs)

        return counted


def judging(monkeypatch, mode):
    """Runs whose guard is of that mode: "host", "device" or "log"."""
    assembled = looping.assemble

    def assemble(*arguments, **more):
        made = assembled(*arguments, **more)
        made.guard.mode = mode
        return made

    monkeypatch.setattr(looping, "assemble", assemble)


def on_a_device(monkeypatch, mode="device"):
    """Figures stay tensors, as on a GPU: the same code, on a CPU."""

    def bare(value):
        return value.detach() if isinstance(value, torch.Tensor) else value

    monkeypatch.setattr(step, "detached", bare)
    judging(monkeypatch, mode)
