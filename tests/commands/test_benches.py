"""`autotrain bench choice`, `data` and `loop` by the real thing, on a tiny task."""

import json
import signal
import subprocess
import sys
import time

import pytest

from autotrain.bench import rounds

from .house import SMALL, TASK

QUICK = ("--no-calibrate", "--seconds", "1")


@pytest.fixture
def bench(tmp_path, monkeypatch, at):
    """`bench("loop")` on a tiny task of one's own; what it printed as data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rounds, "PROCESSES", 1)
    (tmp_path / "task.py").write_text(TASK)

    def call(name, *more, code=0):
        said = at("bench", name, *QUICK, "--task", "task.py", *SMALL, "--json", *more)
        assert said.code == code, said.err
        if code == 0:
            assert "\nnext        autotrain plan --task task.py" in said.err
            assert sorted(p.name for p in tmp_path.iterdir() if p.suffix == ".py") == ["task.py"]
        return json.loads(said.out) if said.out else said.error

    return call


def test_the_loop_is_timed_beside_one_written_by_hand(bench):
    said = bench("loop")
    assert [row["loop"] for row in said["rows"]] == ["bare", "autotrain"]
    assert all(row["step_seconds"]["expected"] > 0 for row in said["rows"])
    added = said["added_seconds"]
    assert added["low"] <= added["middle"] <= added["high"]
    assert said["rounds"] >= 3
    assert said["advice"].startswith("autotrain's loop ")
    assert 0 <= said["rows"][1]["waits"] < 1


def test_reading_is_timed_by_several_numbers_of_workers(bench):
    said = bench("data", "--set", "loader.keep=off", "--set", "loader.workers=0")
    rows = {row["workers"]: row for row in said["rows"]}
    assert {0, 1} <= set(rows)
    assert [many for many, row in rows.items() if row["chosen"]] == [0]
    assert all(0 <= row["waits"] <= 1 for row in rows.values())
    assert all(row["trains"] <= said["model_samples_per_second"] * 1.001 for row in rows.values())
    assert said["alone"]["count"] > 1
    assert "loader.workers" in said["advice"]


@pytest.mark.slow
def test_the_plans_way_is_among_those_that_are_compared(bench):
    said = bench("choice")
    (own,) = [row for row in said["rows"] if row["chosen"]]
    assert own["final"]
    assert (own["micro_batch"], own["dtype"], own["threads"]) == (8, "fp32", 1)
    sizes = {row["micro_batch"] for row in said["rows"]}
    assert {8, 4, 2} <= sizes
    assert {row["micro_batch"] * row["accum_steps"] for row in said["rows"]} == {8}
    assert 0 < said["share"] <= 1
    assert said["advice"].startswith(("keep the plan", "change the plan"))


@pytest.mark.parametrize(
    "name",
    ["loop", *(pytest.param(name, marks=pytest.mark.slow) for name in ("data", "choice"))],
)
def test_a_step_or_a_sample_that_fails_is_named(bench, tmp_path, name):
    """In the processes that measure alone, so that the task can be planned for."""
    broken = TASK.replace("import torch\n", "import sys\nimport torch\n", 1)
    fails = (
        "if 'autotrain.' in sys.orig_argv[-1]: raise ValueError('torn')\n        return self.x[i"
    )
    (tmp_path / "task.py").write_text(broken.replace("return self.x[i", fails))
    said = bench(name, code=1)
    assert said.startswith("error: in the bench: ")
    assert "torn" in said


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("data", ("--task", "task.py", *SMALL, "--no-calibrate", "--seconds", "600")),
        ("loop", ("--task", "task.py", *SMALL, "--no-calibrate", "--seconds", "600")),
        ("choice", ("--task", "task.py", *SMALL, "--no-calibrate", "--seconds", "600")),
        ("memory", ("--template", "starter", "--template", "starter")),
    ],
)
def test_an_interrupt_shows_what_was_measured_until_then(tmp_path, name, more):
    (tmp_path / "task.py").write_text(TASK)
    # Whoever runs tests in the background has them ignore it.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from autotrain.__main__ import main; main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "bench", name, *more, "--json"], cwd=tmp_path, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    waits = (line for line in process.stderr if line.endswith(" ...\n"))
    next(waits)
    if name == "memory":
        next(waits)  # for the second size of the first one
    else:
        time.sleep(10)  # each is done where its figures are sure enough, half a minute or more
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    said = json.loads(out)
    assert said["stopped"] is True
    assert said["rows"] or said["model_samples_per_second"] > 0
    assert "stopped: what was measured until then is above" in err
