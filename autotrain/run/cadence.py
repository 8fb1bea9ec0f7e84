"""What is due at which step: a pure function of the plan, so that a resume agrees with it."""

from __future__ import annotations

from dataclasses import dataclass

from autotrain.schema import CheckpointSection, EvaluateSection, Plan


@dataclass(frozen=True)
class Cadence:
    """Logs, evaluations and checkpoints by step. All are due at the end of the last epoch."""

    steps_per_epoch: int
    total_steps: int
    log_every: int
    evaluate: EvaluateSection
    checkpoint: CheckpointSection

    @classmethod
    def of(cls, plan: Plan, steps_per_epoch: int) -> Cadence:
        """The cadence of a plan over an epoch of so many steps."""
        total = steps_per_epoch * plan.train.epochs
        every = plan.run.log_every_steps
        return cls(steps_per_epoch, total, every, plan.evaluate, plan.checkpoint)

    def epoch(self, step: int) -> int:
        """The epoch, counted from 1, that the step-th step belongs to; 0 before the first."""
        return -(-step // self.steps_per_epoch)

    def logs(self, step: int) -> bool:
        """Whether the step-th step is a log point."""
        return step > 0 and (step % self.log_every == 0 or step == self.total_steps)

    def evaluates(self, step: int) -> bool:
        """Whether an evaluation is due after the step-th step."""
        return self._due(self.evaluate, step)

    def saves(self, step: int) -> bool:
        """Whether a checkpoint is due after the step-th step."""
        return self._due(self.checkpoint, step)

    def _due(self, every: EvaluateSection | CheckpointSection, step: int) -> bool:
        if step == 0:
            return False
        epoch, within = divmod(step, self.steps_per_epoch)
        by_epoch = every.every_epochs is not None and not within and epoch % every.every_epochs == 0
        by_step = every.every_steps is not None and step % every.every_steps == 0
        return by_epoch or by_step or step == self.total_steps
