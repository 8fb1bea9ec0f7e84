"""Our loop beside a bare one, Accelerate, Lightning and the HF Trainer, on the same arithmetic.

python benchmarks/peers.py [--models tiny,resnet18,lstm_ctc,transformer] [--rounds 5] [--plan]

Each trains the same model on the same samples by the same DataLoader settings, micro_batch,
accumulation, clipping, fused AdamW and cosine schedule, in one process, in turns; the median time
of a step counts, the first ones left out. Ours has everything armed: logging every 50 steps,
healing, and checkpoints within the steps that count; what one holds a run up for is
spread over the steps that its plan lets pass between two and added to the median, which alone would
leave it out. `--plan`: ours as `autotrain plan` decides, in a process of its own; theirs as one
would leave them: fp32, the batch at once, torch's own number of threads.

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
from choice import AUTOTRAIN, as_way, planned, way_of
from torch.utils.data import DataLoader, TensorDataset

from autotrain import Loss, Task, planfile
from autotrain.events import Saved, Step
from autotrain.run.loop import train

HERE = Path(__file__).parent
LOG_EVERY, LEFT_OUT = 50, 2
LR, CLIP = 1e-3, 1.0


class Setting(NamedTuple):
    """What one run is to do: `log_every` steps between two looks at the clock, `saves` of ours."""

    micro_batch: int
    accum_steps: int
    steps: int
    log_every: int
    saves: int


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


SETTINGS = {
    "tiny": Setting(16, 1, 2000, LOG_EVERY, 4),
    "tiny x 2": Setting(16, 2, 2000, LOG_EVERY, 4),
}
REAL = Setting(16, 2, 12, 1, 2)


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


def ours(task, setting, plan):
    """The same of our own loop by the clock of its events, and what a save holds it up for."""
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
    assert len(held) >= setting.saves
    return stretches(clock, setting), statistics.fmean(held)


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
        "checkpoint": {"every_epochs": None, "every_steps": setting.steps // setting.saves},
    }
    return plan.model_copy(
        update={key: getattr(plan, key).model_copy(update=new) for key, new in sections.items()}
    )


def between_saves(name, setting, task, folder):
    """Steps that a plan with no wishes of its own lets pass between two saves."""
    batch, place = setting.micro_batch * setting.accum_steps, Path(folder) / "own.toml"
    model = "mlp" if name.startswith("tiny") else name
    wishes = ["--set", f"task.model={model}", "--set", f"batch.global_batch={batch}"]
    command = [*AUTOTRAIN, "plan", "--task", HERE / "cells.py", *wishes, "--no-trial"]
    subprocess.run([*command, "-o", place], capture_output=True, check=True)
    saved = planfile.load(place).checkpoint
    return saved.every_steps or saved.every_epochs * -(-len(task.train) // batch)


PEERS = {"bare": bare, "accelerate": accelerate, "lightning": lightning, "hf trainer": hf_trainer}


def measured(name, who, rounds, *, by_plan):
    """{who: seconds a step, of all rounds in turns}; with ours, `saves`: what each held up."""
    setting = SETTINGS.get(name, REAL)
    whole = setting._replace(micro_batch=setting.micro_batch * setting.accum_steps, accum_steps=1)
    task = task_of(name.split(" x ")[0])
    found, held = {each: [] for each in who}, []
    with tempfile.TemporaryDirectory() as folder:
        if "ours" in who:
            plan = plan_of(name, setting, folder, *(["--trial"] if by_plan else []))
        for _ in range(rounds):
            for each in who:
                if each == "ours":
                    seconds, saves = ours(task, setting, plan)
                    found[each] += seconds[LEFT_OUT - 1 :]
                    held.append(saves)
                else:
                    run = PEERS[each]
                    found[each] += run(task, whole if by_plan else setting)[LEFT_OUT:]
        if held:
            between = between_saves(name, setting, task, folder)
            found["saves"] = [seconds / between for seconds in held]
    return found


def taken(name, arguments):
    """The medians of all rounds, each {who: seconds a step}. By a plan ours has a process of its
    own each round: what it sets of the process, the allocator's manners too, is no peer's default.
    """
    groups, rounds = [[*PEERS, "ours"]], [arguments.rounds]
    if arguments.plan:
        groups, rounds = [[*PEERS], ["ours"]], [1] * arguments.rounds
    threads = arguments.threads or (torch.get_num_threads() if arguments.plan else 1)
    found = {}
    for many, group in itertools.product(rounds, groups):
        command = [sys.executable, __file__, "--one", name, "--who", ",".join(group), "--rounds",
                   str(many), "--threads", str(threads)] + ["--plan"] * arguments.plan  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        for who, seconds in json.loads(done.stdout.splitlines()[-1]).items():
            found.setdefault(who, []).extend(seconds)
    middle = {who: statistics.median(seconds) for who, seconds in found.items()}
    return middle | {"ours": middle["ours"] + middle["saves"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default="tiny,tiny x 2,resnet18,bilstm_ctc,transformer")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="default: 1; with --plan torch's own")
    parser.add_argument("--plan", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # the child of one model
    parser.add_argument("--who", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        return child(arguments)
    ratios = {who: [] for who in PEERS}
    for name in arguments.models.split(","):
        found = taken(name, arguments)
        base, saves = found["bare"], found.pop("saves")
        told = [f"{who} {s * 1e6:10.1f} us ({(s - base) * 1e6:+8.1f})" for who, s in found.items()]
        print(f"{name:14} " + ", ".join(told) + f"; of ours {saves * 1e6:.1f} us are saves",
              flush=True)  # fmt: skip
        if not name.startswith("tiny"):
            for who, each in ratios.items():
                each.append(found[who] / found["ours"])
    for who, each in ratios.items():
        if each:
            print(f"ours beside {who}: {statistics.geometric_mean(each):.2f} x on the geometric "
                  f"mean, {min(each):.2f} x at least")  # fmt: skip
    return None


def child(arguments):
    warnings.simplefilter("ignore")
    for noisy in ("lightning", "lightning.pytorch", "transformers", "accelerate"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    torch.set_num_threads(arguments.threads)
    who = arguments.who.split(",")
    print(json.dumps(measured(arguments.one, who, arguments.rounds, by_plan=arguments.plan)))


if __name__ == "__main__":
    main()
