"""What autotrain's loop adds to a step."""

from autotrain.bench.loop import added, advice
from autotrain.bench.looping import LoopRequest, looped
from autotrain.probe.child import Request
from tests.run.plans import make_plan

READS = """
import time

import torch

from autotrain import Task


class Numbers(torch.utils.data.Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, index):
        time.sleep({seconds})
        return torch.randn(64), torch.randn(64)


def task(data):
    wide = lambda: torch.nn.Sequential(torch.nn.Linear(64, 4096), torch.nn.Linear(4096, 64))
    return Task.regression(model=wide, train=Numbers())
"""


def waited(folder, seconds):
    """Shares of a step, and seconds a step, that our loop waits for samples that take so long."""
    folder.mkdir()
    (folder / "task.py").write_text(READS.format(seconds=seconds))
    plan = make_plan(
        task={"file": str(folder / "task.py")}, batch={"accum_steps": 1, "micro_batch": 8},
        optimizer={"implementation": "fused"},
    )  # fmt: skip
    take = Request(plan=plan, task_file=str(folder / "task.py"), data=None)
    *_, found = looped(LoopRequest(take=take, stretches=3, every=2, seconds=0.1))
    assert found.outcome == "ok", found.message
    assert len(found.waits) == len(found.ours) >= 3
    made = added(found.bare, found.ours, found.waits)
    return made.waits, made.waits * made.ours.expected


def test_how_long_our_loop_waited_is_what_its_log_points_say(tmp_path):
    """Eight samples a step: those that take 10 ms to read hold it up for 80, of a step of little
    more; those in memory for less."""
    memory, _ = waited(tmp_path / "memory", 0.0)
    share, seconds = waited(tmp_path / "slow", 0.01)
    assert 0 <= memory < share < 1
    assert seconds > 0.06


def test_rounds_are_compared_pair_by_pair():
    """A machine that slows down between rounds does not hide what the loop adds in each."""
    bare = [0.1 * (1 + 0.2 * n) for n in range(10)]
    found = added(bare, [seconds + 0.001 for seconds in bare], [0.03, 0.01, 0.02])
    assert (found.low, found.middle, found.high) == tuple([found.middle] * 3) or (
        found.high - found.low < 1e-9
    )
    assert abs(found.middle - 0.001) < 1e-9
    assert (found.rounds, found.waits) == (10, 0.02)
    said = advice(found)
    assert said.startswith("autotrain's loop adds 1 ms (1 ms to 1 ms) to a step of ")


def test_what_the_scatter_hides_costs_nothing_that_shows():
    bare, ours = [0.1, 0.11, 0.09, 0.1], [0.1, 0.1, 0.1, 0.101]
    assert "costs nothing that shows" in advice(added(bare, ours, [0.01] * 4))


def test_a_faster_loop_saves():
    found = added([0.1] * 5, [0.09] * 5, [0.01] * 5)
    assert found.share < 0
    assert advice(found).startswith("autotrain's loop saves 10 ms")
