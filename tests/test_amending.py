"""What a run changes in its plan: on disk at once, used by a resume, a person's word before it."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest

from autotrain import amending, planfile
from autotrain.events import Healed
from autotrain.schema import Amendment, BatchSection
from tests.run.plans import make_plan

CUT = {"batch.micro_batch": [4, 2], "batch.accum_steps": [2, 4]}
FINER = {"batch.micro_batch": [2, 1], "batch.accum_steps": [4, 8]}


def healed(amends, step=3):
    return Healed(
        step=step, epoch=1, fault="out of memory", cure="cut", cost_seconds=0.1, amends=amends
    )


def batch(plan):
    return plan.batch.micro_batch, plan.batch.accum_steps, plan.batch.split


@pytest.fixture
def kept(tmp_path):
    """The run's copy of a plan, amended twice."""
    path = tmp_path / "plan.toml"
    planfile.save(make_plan(), path)
    for amends in (CUT, FINER):
        amending.write(healed(amends), path)
    return path


def test_amendments_survive_the_file(kept):
    """Also one of a setting that was absent before."""
    amending.write(healed({"batch.split": [None, 2]}), kept)
    plan = planfile.load(kept)
    assert batch(plan) == (1, 8, 2)
    assert plan.amendments[-1] == Amendment(
        step=3, key="batch.split", before=None, after=2, why="out of memory"
    )
    assert [each.key for each in plan.amendments] == [*CUT, *FINER, "batch.split"]


def test_a_resume_uses_them_again_and_again(kept):
    """From the person's own plan, and from the run's copy."""
    before = planfile.load(kept)
    once = amending.applied(make_plan(), before)
    assert batch(once) == (1, 8, None)
    assert amending.applied(make_plan(), once) == once
    assert amending.applied(once, once) == once


@pytest.mark.parametrize(
    "mine",
    [
        {"micro_batch": 8, "accum_steps": 1}, {"micro_batch": 2, "accum_steps": 4},
        {"world_size": 2, "accum_steps": 1}, {"split": 2},
    ],
)  # fmt: skip
def test_a_person_who_cut_anew_is_believed(kept, mine):
    """The cut is one thing: nothing is mixed, and what was amended there is forgotten."""
    plan = make_plan(batch=mine)
    now = amending.applied(plan, planfile.load(kept))
    assert now.batch == plan.batch
    assert now.amendments == ()
    again = amending.amended(now, [])
    assert amending.applied(plan, again).batch == plan.batch


def test_what_a_person_changed_elsewhere_leaves_the_cut_amended(kept):
    """And the other way round."""
    amending.write(healed({"loader.workers": [0, 1], "precision.dtype": ["fp32", "bf16"]}), kept)
    before = planfile.load(kept)
    now = amending.applied(make_plan(loader={"workers": 3}, optimizer={"lr": 0.5}), before)
    assert batch(now) == (1, 8, None)
    assert (now.loader.workers, now.optimizer.lr, now.precision.dtype) == (3, 0.5, "bf16")
    assert "loader.workers" not in [each.key for each in now.amendments]


def test_an_amendment_after_a_persons_change_is_used_too(kept):
    """They set 8, memory ran out, 4 it is."""
    mine = make_plan(batch={"micro_batch": 8, "accum_steps": 1})
    now = amending.applied(mine, planfile.load(kept))
    more = [
        Amendment(step=9, key=key, before=a, after=b, why="")
        for key, (a, b) in {"batch.micro_batch": (8, 4), "batch.accum_steps": (1, 2)}.items()
    ]
    assert batch(amending.applied(mine, amending.amended(now, more))) == (4, 2, None)


def test_a_fresh_run_forgets_them(kept):
    """The run's own copy too; what a person set there stays."""
    plan = planfile.load(kept)
    assert amending.forgotten(plan) == make_plan()
    mine = plan.model_copy(
        update={"batch": BatchSection(micro_batch=8, accum_steps=1, world_size=1, global_batch=8)}
    )
    assert amending.forgotten(mine).batch == mine.batch
    assert amending.forgotten(make_plan()) == make_plan()


TASK = """
    import os, signal, torch
    from pathlib import Path
    from autotrain import Loss, Task

    def task(data, **options):
        rows = torch.utils.data.TensorDataset(torch.arange(48.).reshape(48, 1) / 48)
        sizes = Path(__file__).with_name("sizes")
        def loss(model, batch):
            if model.training:
                with open(sizes, "a") as file:
                    file.write(f"{len(batch[0])}\\n")
                if len(batch[0]) > 2:
                    raise torch.OutOfMemoryError("CUDA out of memory")
            return Loss(total=(model(batch[0]) - 1).square().sum(), weight=len(batch[0]))
        return Task(model=lambda: torch.nn.Linear(1, 1), train=rows, valid=rows, loss=loss)
"""


@pytest.fixture
def house(tmp_path):
    """A plan for a task that more than 2 samples at once do not fit."""
    (tmp_path / "task.py").write_text(textwrap.dedent(TASK))
    plan = make_plan(checkpoint={"every_epochs": None, "every_steps": 4})
    planfile.save(plan, tmp_path / "plan.toml")
    return tmp_path


def command(*arguments):
    return [sys.executable, "-m", "autotrain", "run", *arguments, "--trust", "--json"]


def carry_out(house, *arguments, plan="plan.toml"):
    (house / "sizes").unlink(missing_ok=True)
    done = subprocess.run(
        command(str(house / plan), *arguments), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [int(line) for line in (house / "sizes").read_text().split()]


@pytest.mark.slow
def test_a_kill_right_after_the_event_loses_no_amendment(house):
    """kill -9; a resume, a second one; then --fresh, from both plans."""
    process = subprocess.Popen(command(str(house / "plan.toml")), stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if '"healed"' in line:
            os.kill(process.pid, signal.SIGKILL)
            break
    process.wait()
    process.stdout.close()
    copy = "runs/test/plan.toml"
    assert batch(planfile.load(house / copy)) == (2, 4, None)
    assert max(carry_out(house, "--resume", "--max-steps", "5")) == 2
    assert max(carry_out(house, "--resume", "--max-steps", "8")) == 2
    assert max(carry_out(house, "--resume", "--max-steps", "9", plan=copy)) == 2
    assert planfile.load(house / copy).amendments
    assert carry_out(house, "--fresh", "--max-steps", "2")[0] == 4
    assert carry_out(house, "--fresh", "--max-steps", "2", plan=copy)[0] == 4
