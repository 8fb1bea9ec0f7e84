"""Figures to W&B, by its own package: `WANDB_MODE=offline` keeps them in the run's folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from autotrain.report.tracking import About, Row, Sender, new_identity

PROJECT = "autotrain"


@contextmanager
def opened(about: About) -> Iterator[Sender]:
    """A run of W&B. Offline it is written anew and whole: there two parts of one are not joined."""
    import wandb

    identity = about.identity or new_identity()
    offline = os.environ.get("WANDB_MODE") == "offline"
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        name=about.name,
        id=identity,
        resume=None if offline else "allow",
        config=about.plain,
        dir=os.environ.get("WANDB_DIR", str(about.folder)),
        settings=wandb.Settings(console="off", silent=True),
    )
    run.define_metric("step", hidden=True)
    run.define_metric("*", step_metric="step")

    def send(rows: list[Row]) -> None:
        for row in rows:
            run.log({**row.figures, "step": row.step, "time": row.time})

    try:
        yield Sender(identity, send, whole=offline)
    finally:
        run.finish()
