"""Our loop beside a bare one, Accelerate, Lightning and the HF Trainer, on the same arithmetic.

python benchmarks/peers.py [--models tiny,resnet18,lstm_ctc,transformer] [--rounds 5] [--plan]

Each trains the same model on the same samples by the same DataLoader settings, micro_batch,
accumulation, clipping, fused AdamW and cosine schedule, in one process, in turns; the median time
of a step counts, the first ones left out. Ours has everything armed: logging every 50 steps,
healing, and checkpoints four times within the steps that count (a plan's own rule is five in a
run); what they hold a run up for is spread over its steps and added to the median, which alone
would leave it out. `--plan`: ours as `autotrain plan` decides, theirs as a person would leave them:
fp32, the batch at once.

The peers are an extra: pip install autotrain[peers].
"""

import argparse
import itertools
import json
import logging
import math
import os
import statistics
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import cells
import torch
from choice import as_way, planned, way_of
from torch.utils.data import DataLoader, TensorDataset

from autotrain import Loss, Task, planfile
from autotrain.events import Saved, Step
from autotrain.run.loop import train

HERE = Path(__file__).parent
LOG_EVERY, LEFT_OUT, SAVES = 50, 2, 4
LR, CLIP = 1e-3, 1.0


class Setting(NamedTuple):
    """What one run is to do. `log_every`: steps between two looks at the clock."""

    micro_batch: int
    accum_steps: int
    steps: int
    log_every: int


def tiny():
    """A step of 0.2 ms: what a loop adds shows."""
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(8192, 32), torch.randint(0, 10, (8192,)))
    return Task.classification(
        model=lambda: torch.nn.Sequential(
            torch.nn.Linear(32, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10)
        ),
        train=data, valid=TensorDataset(*data[:64]),
    )  # fmt: skip


def task_of(name):
    return tiny() if name == "tiny" else cells.task(None, name)


SETTINGS = {"tiny": Setting(16, 1, 2000, LOG_EVERY), "tiny x 2": Setting(16, 2, 2000, LOG_EVERY)}
REAL = Setting(16, 2, 12, 1)


def loader(task, setting):
    return DataLoader(
        task.train, batch_size=setting.micro_batch, shuffle=True, collate_fn=task.collate
    )


def optimizer_of(model, setting):
    made = torch.optim.AdamW(model.parameters(), lr=LR, fused=True)
    total = setting.steps
    share = lambda step: 0.5 * (1 + math.cos(math.pi * min(step / total, 1.0)))  # noqa: E731
    return made, torch.optim.lr_scheduler.LambdaLR(made, share)


def mean_loss(task, model, batch):
    made: Loss = task.loss(model, batch)
    return made.total / made.weight


def endless(made):
    while True:
        yield from made


def bare(task, setting):
    """Seconds a step of each stretch: the loop that one writes by hand."""
    model = task.model()
    optimizer, schedule = optimizer_of(model, setting)
    batches, clock = endless(loader(task, setting)), [perf_counter()]
    for step in range(setting.steps):
        for _ in range(setting.accum_steps):
            (mean_loss(task, model, next(batches)) / setting.accum_steps).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if (step + 1) % setting.log_every == 0:
            clock.append(perf_counter())
    return stretches(clock, setting)


def stretches(clock, setting):
    return [(b - a) / setting.log_every for a, b in itertools.pairwise(clock)]


def accelerate(task, setting):
    from accelerate import Accelerator

    accelerator = Accelerator(gradient_accumulation_steps=setting.accum_steps, cpu=True)
    model = task.model()
    optimizer, schedule = optimizer_of(model, setting)
    model, optimizer, batches, schedule = accelerator.prepare(
        model, optimizer, loader(task, setting), schedule
    )
    clock, step = [perf_counter()], 0
    for batch in endless(batches):
        with accelerator.accumulate(model):
            accelerator.backward(mean_loss(task, model, batch))
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        if accelerator.sync_gradients:
            step += 1
            if step % setting.log_every == 0:
                clock.append(perf_counter())
            if step == setting.steps:
                return stretches(clock, setting)
    raise AssertionError


def lightning(task, setting):
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.inner = task.model()

        def training_step(self, batch, _index):
            return mean_loss(task, self.inner, batch)

        def configure_optimizers(self):
            optimizer, schedule = optimizer_of(self, setting)
            return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    class Clock(lightning.Callback):
        def __init__(self):
            self.times, self.last = [perf_counter()], 0

        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step > self.last and trainer.global_step % setting.log_every == 0:
                self.times.append(perf_counter())
            self.last = trainer.global_step

    clock = Clock()
    lightning.Trainer(
        accelerator="cpu", max_steps=setting.steps, accumulate_grad_batches=setting.accum_steps,
        gradient_clip_val=CLIP, logger=False, enable_checkpointing=False, callbacks=[clock],
        enable_progress_bar=False, enable_model_summary=False,
    ).fit(Module(), loader(task, setting))  # fmt: skip
    return stretches(clock.times, setting)


def hf_trainer(task, setting):
    from transformers import Trainer, TrainerCallback, TrainingArguments

    collate = task.collate or torch.utils.data.default_collate

    class Wrapped(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = task.model()

        def forward(self, batch):
            return {"loss": mean_loss(task, self.inner, batch)}

    class Clock(TrainerCallback):
        def __init__(self):
            self.times = [perf_counter()]

        def on_step_end(self, _args, state, _control, **_more):
            if state.global_step % setting.log_every == 0:
                self.times.append(perf_counter())

    clock, model = Clock(), Wrapped()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, per_device_train_batch_size=setting.micro_batch,
            gradient_accumulation_steps=setting.accum_steps, max_grad_norm=CLIP,
            optim="adamw_torch_fused", learning_rate=LR, lr_scheduler_type="cosine",
            max_steps=setting.steps, logging_steps=LOG_EVERY, save_strategy="no",
            report_to="none", use_cpu=True, disable_tqdm=True, remove_unused_columns=False,
            dataloader_pin_memory=False,
        )  # fmt: skip
        Trainer(
            model=model, args=arguments, train_dataset=task.train, callbacks=[clock],
            data_collator=lambda samples: {"batch": collate(samples)},
        ).train()  # fmt: skip
    return stretches(clock.times, setting)


def ours(task, setting, plan, name):
    """The same of our own loop, and what saves add to a step; the clock is that of the events."""
    epochs = -(-setting.steps // max(len(task.train) // plan.batch.global_batch, 1)) + 1
    plan = plan.model_copy(
        update={
            "run": plan.run.model_copy(update={"log_every_steps": setting.log_every}),
            "train": plan.train.model_copy(update={"epochs": epochs}),
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        events = train(
            plan, task, Path(folder), task_file=HERE / "cells.py", max_steps=setting.steps
        )
        told = [*events]
    clock = [event.time for event in told if isinstance(event, Step)]
    held = [event.held_seconds for event in told if isinstance(event, Saved)]
    assert len(held) >= SAVES
    return stretches(clock, setting), sum(held) / setting.steps


def plan_of(name, setting, folder, *flags):
    """A plan of that model; without flags with the peers' settings."""
    place, batch = (
        Path(folder) / f"{len(os.listdir(folder))}.toml",
        setting.micro_batch * setting.accum_steps,
    )
    made = planned(
        "mlp" if name.startswith("tiny") else name, batch, place, *(flags or ["--no-trial"])
    )
    plan = planfile.load(place)
    if not flags:
        plain = way_of(made)._replace(
            micro_batch=setting.micro_batch, dtype="fp32", memory_format="contiguous",
            compile=False, workers=0, threads=torch.get_num_threads(),
        )  # fmt: skip
        plan = as_way(plan, plain)
    sections = {
        "optimizer": {
            "name": "adamw",
            "lr": LR,
            "clip_norm": CLIP,
            "implementation": "fused",
            "decays": "all",
        },
        "schedule": {"name": "cosine", "warmup_steps": 0, "min_lr": 0.0},
        "evaluate": {"every_epochs": 10**6, "every_steps": None},
        "checkpoint": {"every_epochs": None, "every_steps": setting.steps // SAVES},
    }
    return plan.model_copy(
        update={key: getattr(plan, key).model_copy(update=new) for key, new in sections.items()}
    )


PEERS = {"bare": bare, "accelerate": accelerate, "lightning": lightning, "hf trainer": hf_trainer}


def measured(name, rounds, folder, *, by_plan):
    """{who: seconds a step}: medians over interleaved rounds."""
    setting = SETTINGS.get(name, REAL)
    task = task_of(name.split(" x ")[0])
    plan = plan_of(name, setting, folder, *(["--trial"] if by_plan else []))
    theirs = setting._replace(micro_batch=setting.micro_batch * setting.accum_steps, accum_steps=1)
    found, held = {who: [] for who in ("ours", *PEERS)}, []
    for _ in range(rounds):
        for who, run in PEERS.items():
            found[who] += run(task, theirs if by_plan else setting)[LEFT_OUT:]
        seconds, saves = ours(task, setting, plan, name)
        found["ours"] += seconds[LEFT_OUT - 1 :]
        held.append(saves)
    middle = {who: statistics.median(seconds) for who, seconds in found.items()}
    return middle | {"ours": middle["ours"] + statistics.median(held)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default="tiny,tiny x 2,resnet18,bilstm_ctc,transformer")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--plan", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # the child of one model
    arguments = parser.parse_args()
    if arguments.one:
        return child(arguments)
    ratios = []
    for name in arguments.models.split(","):
        command = [sys.executable, __file__, "--one", name, "--rounds", str(arguments.rounds)]
        command += ["--threads", str(arguments.threads)] + ["--plan"] * arguments.plan
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        base = found["bare"]
        told = [f"{who} {s * 1e6:10.1f} us ({(s - base) * 1e6:+8.1f})" for who, s in found.items()]
        print(f"{name:14} " + ", ".join(told), flush=True)
        if not name.startswith("tiny"):
            ratios.append(
                min(s for w, s in found.items() if w not in ("ours", "bare")) / found["ours"]
            )
    if ratios:
        print(f"ours beside the fastest peer: {statistics.geometric_mean(ratios):.2f} x on the "
              f"geometric mean, {min(ratios):.2f} x at least")  # fmt: skip
    return None


def child(arguments):
    warnings.simplefilter("ignore")
    for noisy in ("lightning", "lightning.pytorch", "transformers", "accelerate"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        found = measured(arguments.one, arguments.rounds, folder, by_plan=arguments.plan)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
