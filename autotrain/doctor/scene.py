"""What checks look at: this process and its machine, where runs go, and a plan where one is named.

The root of the file system is a part of it, so that tests hand over another one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotrain.doctor.asking import Asked
from autotrain.doctor.spelling import shown

if TYPE_CHECKING:
    from autotrain.schema import Plan

STEP_SECONDS = 2.0  # for each device


def word(path: Path) -> str:
    """What a small file says, without the space around it; empty where it cannot be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


@dataclass
class Scene:
    """`where`: the folder that runs go to. `named`: the plan's file, as it was typed."""

    where: Path
    named: str | None = None
    step: bool = True
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    root: Path = Path("/")
    asked: Asked = field(default_factory=Asked)

    @cached_property
    def plan(self) -> Plan:
        """The plan that was named. Raises what reading it raises."""
        from autotrain import planfile

        assert self.named is not None
        return planfile.load(Path(self.named))

    @cached_property
    def stages(self) -> dict[str, Plan]:
        """Of each stage its own, by name; a plan without stages alone, without one."""
        from autotrain import planfile

        return {each.name: own for each, own in planfile.stages(self.plan)} or {"": self.plan}

    @property
    def plans(self) -> list[Plan]:
        """Of each stage its own; a plan without stages alone."""
        return [*self.stages.values()]

    @property
    def here(self) -> Path:
        """Where the command was typed; the root where that was removed meanwhile."""
        try:
            return Path.cwd()
        except OSError:
            return Path(os.sep)

    @property
    def plan_name(self) -> str:
        """As a shell takes it."""
        return shown(self.named or "plan.toml")

    @property
    def plan_folder(self) -> Path:
        """What the plan's paths begin at."""
        return (self.here / (self.named or "plan.toml")).resolve().parent

    def dtype(self, kind: str) -> str:
        """The precision to try on such a device: the plan's for its own, else what it has.

        Of several stages it is the first that is not fp32, which is tried anyhow.
        """
        with suppress(ImportError):  # without pydantic no plan can be read
            plans = self.plans if self.named is not None else []
            own = [p for p in plans if p.device.kind.replace("rocm", "cuda") == kind]
            if own:
                return next((d for p in own if (d := p.precision.dtype) != "fp32"), "fp32")
        return {"cpu": "bf16", "mps": "fp16"}.get(kind, "auto")

    def text(self, path: str) -> str:
        """A file of the system, below the root; empty where it cannot be read."""
        return word(self.root / path.lstrip("/"))

    def torch(self) -> dict[str, Any]:
        """What torch says of itself. Raises NoAnswerError where it cannot be imported."""
        return self.asked.answer("torch")

    def nvml(self) -> dict[str, Any]:
        """What NVIDIA's driver says. Raises NoAnswerError where asking it ends the process."""
        return self.asked.answer("nvml")
