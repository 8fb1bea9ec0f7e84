"""Steps of the real loop on a task, for tests of what a task file is made of."""

import torch
from run.plans import make_plan

from autotrain.run.assemble import assemble
from autotrain.run.loop import train
from autotrain.run.signals import Stop
from autotrain.run.step import take_step

SGD = {"name": "sgd", "lr": 0.1, "weight_decay": 0.0, "momentum": 0.0, "clip_norm": None}
CONSTANT = {"name": "constant", "warmup_steps": 0}
END = {"every_epochs": None}


def weights_after(task, folder, micro, whole, steps=3, **changes):
    """The weights after some plain SGD steps of `whole` samples in micro-batches of `micro`."""
    batch = {"micro_batch": micro, "accum_steps": -(-whole // micro), "global_batch": whole}
    plan = make_plan(
        **{"optimizer": SGD, "schedule": CONSTANT, "evaluate": END, "batch": batch, **changes}
    )
    run = assemble(plan, task, folder, task_file=folder / "task.py", resume=False, max_steps=None)
    for _ in range(steps):
        take_step(run, Stop())
    run.feed.close()
    return torch.cat([p.detach().flatten() for p in run.model.parameters()])


def events_of(task, folder, **changes):
    """A whole run; its events."""
    return list(train(make_plan(**changes), task, folder, task_file=folder / "task.py"))
