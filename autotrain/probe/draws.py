"""Which training samples a measurement takes: drawn by chance from those a run would train on."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from autotrain.schema import Plan
from autotrain.task import Task, hold_out


@dataclass
class Draws:
    """Indices of the training samples, and the generator that they are drawn with."""

    samples: list[int]
    generator: torch.Generator

    @classmethod
    def of(cls, plan: Plan, task: Task, seed: int) -> Draws:
        """Without what the plan's run holds out for validation."""
        samples, share = list(range(len(task.train))), plan.data.valid_share
        if task.valid is None and share is not None:
            samples, _ = hold_out(len(samples), share, plan.run.seed)
        return cls(samples, torch.Generator().manual_seed(seed))

    def windows(self, count: int, micro_batch: int, parts: int) -> list[list[list[int]]]:
        """`count` steps of `parts` micro-batches: one shuffled epoch after the other."""
        order: list[int] = []
        while len(order) < count * parts * micro_batch:
            order += self.some(len(self.samples))
        micro = [order[i : i + micro_batch] for i in range(0, len(order), micro_batch)]
        return [micro[i * parts : (i + 1) * parts] for i in range(count)]

    def some(self, count: int) -> list[int]:
        """So many different samples, drawn anew; all of them where there are not more."""
        drawn = torch.randperm(len(self.samples), generator=self.generator)[:count]
        return [self.samples[i] for i in drawn.tolist()]
