"""Planning and running a model whose activations do not fit: they are computed again."""

import json
import sys
from pathlib import Path

import pytest

from .house import cli

TASK = """
import torch
from torchvision.models import VisionTransformer
from autotrain import Task

class Scans(torch.utils.data.Dataset):
    def __init__(self, side):
        self.side = side
    def __len__(self):
        return 60
    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        return torch.randn(3, self.side, self.side, generator=generator), index % 5

def task(data, side=512, layers=6, width=384):
    def model():
        return VisionTransformer(side, 8, layers, width // 64, width, 4 * width, num_classes=5)
    return Task.classification(model=model, train=Scans(side))
"""


PLAN = ("plan", "--task", "scans.py", "--no-trial", "--json", "-o", "plan.toml")


def test_a_step_that_does_not_fit_a_small_card_fits_with_activations_computed_again(
    tmp_path, monkeypatch, at
):
    monkeypatch.chdir(tmp_path)
    Path("scans.py").write_text(TASK)
    card = ("--machine", "rtx-3050-laptop-4gb", "--set", "task.layers=3",
            "--set", "batch.micro_batch=18")  # fmt: skip
    said = at(*PLAN, *card)
    assert said.code == 0
    plan = json.loads(said.out)
    assert plan["model"]["activation_checkpointing"] is True
    assert plan["predicted"]["device_peak_bytes"]["high"] <= plan["memory"]["budget_bytes"]
    why = plan["because"]["model"]["activation_checkpointing"]
    assert why["limited_by"] == "memory.budget_bytes"
    assert "3 blocks that keep their input alone" in why["formula"]
    kept = at(*PLAN, *card, "--set", "model.activation_checkpointing=false")
    assert kept.code == 4 or "more than the budget" in kept.out


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the limit is one of Linux")
def test_a_run_keeps_the_budget_that_only_computing_again_fits(tmp_path):
    budget = 1_100_000_000
    small = ("--set", "task.side=192", "--set", "task.layers=8", "--set", "task.width=192",
             "--set", "loader.workers=0", "--set", f"memory.budget_bytes={budget}",
             "--set", "batch.micro_batch=8")  # fmt: skip
    (tmp_path / "scans.py").write_text(TASK)
    done = cli(*PLAN, *small, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert plan["model"]["activation_checkpointing"] is True
    ran = cli("run", "plan.toml", "--max-steps", "2", "--json", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    stopped = json.loads(ran.stdout.splitlines()[-1])
    assert stopped["peak_bytes"] <= budget
