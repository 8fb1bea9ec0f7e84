"""A real process, real signals, loader workers in the same process group."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from autotrain.events import from_json
from autotrain.run.keeping import checkpoint
from autotrain.run.loop import train

from .plans import make_plan
from .tasks import noisy_task

SCRIPT = textwrap.dedent(
    """
    import dataclasses, sys, time
    from pathlib import Path
    sys.path.insert(0, sys.argv[1])
    from run.plans import make_plan
    from run.tasks import noisy_task
    from autotrain.events import to_json
    from autotrain.run.loop import train
    from autotrain.run.signals import Stop

    task, calls = noisy_task(), []
    def slow(model, batch):
        calls.append(model.training)
        for _ in range(3000 if calls.count(True) == 8 else 0):
            time.sleep(0.0 if stop.reason else 0.01)
        return task.loss(model, batch)

    directory = Path(sys.argv[2])
    plan = make_plan(loader={"workers": 1})
    with Stop().catch() as stop:
        slow_task = dataclasses.replace(task, loss=slow)
        for event in train(plan, slow_task, directory, task_file=directory, stop=stop):
            print(to_json(event), flush=True)
    """
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


@pytest.mark.parametrize(
    ("number", "reason"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")]
)
def test_a_signal_to_the_whole_group_saves_and_the_resume_ends_the_same(tmp_path, number, reason):
    """^C at a terminal, or a supervisor's SIGTERM, which kills the workers as well."""
    tests = str(Path(__file__).parents[1])
    directory = tmp_path / "killed"
    command = [sys.executable, "-c", SCRIPT, tests, str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, process_group=0) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if from_json(line).name == "step":
                os.killpg(process.pid, number)
                break
        last = from_json([line, *process.stdout][-1])
    assert process.returncode == 0
    assert (last.name, last.reason) == ("stopped", reason)
    assert last.step in (2, 3, 4)
    (tmp_path / "whole").mkdir()
    for name in ("killed", "whole"):
        list(train(make_plan(), noisy_task(), tmp_path / name, task_file=tmp_path, resume=True))
    found = [checkpoint.newest_good(tmp_path / name)[0] for name in ("killed", "whole")]
    bytes_of = [(path / "model.safetensors").read_bytes() for path in found if path]
    assert bytes_of[0] == bytes_of[1]


def test_the_workers_of_a_run_that_is_killed_clear_their_folder_away(tmp_path):
    tests, temporary = str(Path(__file__).parents[1]), tmp_path / "temporary"
    temporary.mkdir()
    command = [sys.executable, "-c", SCRIPT, tests, str(tmp_path / "killed")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(temporary)}
    ) as process:
        assert process.stdout is not None
        next(line for line in process.stdout if from_json(line).name == "step")
        assert [*temporary.glob("autotrain-*")]
        process.kill()
    deadline = time.monotonic() + 20
    while [*temporary.glob("autotrain-*")]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
