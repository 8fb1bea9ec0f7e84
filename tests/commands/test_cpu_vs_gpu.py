"""`autotrain bench cpu-vs-gpu` as a person uses it: real steps here, predictions elsewhere."""

import json
import os
import signal
import subprocess
import sys

import pytest

from autotrain import files
from autotrain.bench import rounds
from autotrain.bench.spread import Spread

from .house import SMALL, TASK, cli

BENCH = ("bench", "cpu-vs-gpu", "--no-calibrate")
QUICK = (*BENCH, "--seconds", "1")
TWO = ("--machine", "t4", "--machine", "rtx-4060-laptop-8gb")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rounds, "PROCESSES", 1)
    (tmp_path / "task.py").write_text(TASK)
    return tmp_path


def quick(*arguments, cwd):
    """The real command line, but for the number of processes."""
    code = (
        "from autotrain.bench import rounds; rounds.PROCESSES = 1\n"
        "from autotrain.__main__ import main; main()"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *QUICK, *map(str, arguments)], cwd=cwd, capture_output=True,
        text=True, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def benched(planned_once, home, tmp_path_factory):
    """What the real command line printed for a plan, with two machines and a price."""
    folder = tmp_path_factory.mktemp("benched")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTOTRAIN_HOME", str(home))
        done = quick(planned_once[0] / "plan.toml", *TWO, "--price", "t4=0.35EUR/h",
                     "--price", "here=0.1EUR/h", "--json", cwd=folder)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout), done.stderr


def test_every_row_says_how_its_figures_came_about(benched):
    _, said, _ = benched
    rows = {row["machine"]: row for row in said["rows"]}
    assert {name: row["source"] for name, row in rows.items()} == {
        "here": "measured", "t4-16gb": "predicted", "rtx-4060-laptop-8gb": "predicted",
    }  # fmt: skip
    for row in rows.values():
        for key in ("step_seconds", "samples_per_second", "run_seconds", "memory_bytes"):
            assert 0 < row[key]["low"] <= row[key]["expected"] <= row[key]["high"], key
    own = rows["here"]
    assert own["processes"] == 1
    assert own["rounds"] >= rounds.LEAST_ROUNDS
    assert own["memory_bytes"]["expected"] > 100 << 20
    assert all(row["rounds"] == 0 for name, row in rows.items() if name != "here")


def test_a_plan_is_measured_as_it_stands_and_the_same_training_is_predicted(benched):
    _, said, _ = benched
    own = said["rows"][0]
    assert (own["micro_batch"], own["accum_steps"], own["dtype"], own["threads"]) == (
        8, 1, "fp32", 1,
    )  # fmt: skip
    assert {row["global_batch"] for row in said["rows"]} == {own["global_batch"]}
    assert {row["epochs"] for row in said["rows"]} == {2}


def test_curves_share_their_sizes_and_say_from_which_on_a_gpu_wins(benched):
    _, said, _ = benched
    sizes = [[point["micro_batch"] for point in row["curve"]] for row in said["rows"]]
    assert sizes[0] == [1, 2, 4, 8, 16, 32, 64]
    assert sizes[1] == sizes[2] == sizes[0]
    assert {each["machine"] for each in said["wins"]} == {"t4-16gb", "rtx-4060-laptop-8gb"}
    assert {(each["least"], each["most"]) for each in said["wins"]} == {(1, 64)}


def test_the_row_and_its_curve_tell_of_the_same_steps(benched):
    _, said, _ = benched
    for row in said["rows"]:
        (point,) = [p for p in row["curve"] if p["micro_batch"] == row["micro_batch"]]
        speed = point["samples_per_second"]["expected"]
        assert row["samples_per_second"]["expected"] == pytest.approx(speed, rel=0.01), row[
            "device"
        ]


def test_what_a_run_costs_is_its_time_at_the_price(benched):
    _, said, _ = benched
    own, t4, laptop = said["rows"]
    for row, price in ((own, 0.1), (t4, 0.35)):
        assert (row["price_per_hour"], row["currency"]) == (price, "\u20ac")
        spent = row["run_seconds"]["expected"] * price / 3600
        assert row["cost"]["expected"] == pytest.approx(spent)
    assert laptop["cost"] is None


def test_it_draws_a_picture_and_names_what_is_next(benched, planned_once):
    folder, said, err = benched
    assert [p.name for p in folder.iterdir()] == ["cpu-vs-gpu.png"]
    assert (folder / said["picture"]).read_bytes().startswith(b"\x89PNG")
    assert said["advice"].startswith(("stay on", "it is open", "train on"))
    assert f"next        autotrain run {planned_once[0] / 'plan.toml'}" in err
    assert "measuring on the CPU" in err


def spread_of(row):
    step = row["samples_per_second"]
    return Spread(step["low"], step["expected"], step["high"], row["rounds"], row["processes"])


@pytest.mark.slow
def test_two_calls_agree_within_their_stated_spread(tmp_path, home, monkeypatch):
    """On the digits and on the clips, by the whole thing."""
    monkeypatch.setenv("AUTOTRAIN_HOME", str(home))
    make = files.shipped("templates") / "image-classifier" / "make_digits.py"
    subprocess.run([sys.executable, make, tmp_path / "digits"], check=True, capture_output=True)
    for what in (["digits"], ["--template", "speech-autoencoder"]):
        found = []
        for number in range(2):
            done = cli(*BENCH, *what, "--json", "-o", f"{number}.png", cwd=tmp_path, seconds=900)
            assert done.returncode == 0, done.stderr
            found.append(spread_of(json.loads(done.stdout)["rows"][0]))
        assert found[0].agrees(found[1]), (what, found)


@pytest.mark.slow
def test_a_machine_that_is_too_small_is_a_row_with_the_reason(here, at):
    whole = (files.shipped("profiles") / "rtx-3050-laptop-4gb.toml").read_text()
    small = whole.replace("4294967296", "200000000").replace("3671064576", "200000000")
    (here / "tiny.toml").write_text(small)
    said = at(*QUICK, "--task", "task.py", *SMALL, "--machine", "tiny.toml")
    assert said.code == 0
    (row,) = [line for line in said.out.splitlines() if line.startswith("tiny.toml  ")]
    assert row.split()[1:4] == ["predicted", "-", "-"]
    (why,) = [line for line in said.out.splitlines() if line.startswith("tiny.toml: ")]
    assert "MiB" in why


@pytest.mark.parametrize(
    ("arguments", "says", "hint"),
    [
        (("--machine", "rtx4600"), "no machine is called 'rtx4600'", "did you mean"),
        (("--machine", "t4=1"), "--machine t4=1: no machine is called so", "--price t4=1"),
        (("--price", "t4=1"), "--price t4=1: 't4' is not compared", "--price here=0.35EUR/h"),
        (("--price", "0.35"), "--price 0.35: of which machine?", "--price here="),
        (("--price", "here=much"), "--price here= much: not a price for an hour", ""),
        (("--template", "starter", "plan.toml"), "a plan says itself which code it is for", ""),
        (("--set", "batch.micro=3"), "batch.micro: unknown key", ""),
        (("plan.toml", "--set", "batch.world_size=2"), "a bench trains in one process", ""),
    ],
)
def test_what_is_wrong_with_the_command_line_is_said_before_anything_runs(
    folder, at, arguments, says, hint
):
    said = at(*QUICK, *arguments)
    assert said.code in (1, 2)
    assert says in said.err
    assert hint in said.err
    assert "measuring" not in said.err
    assert not (folder / "cpu-vs-gpu.png").exists()


def test_a_file_that_is_no_picture_is_not_written_over(here, at):
    (here / "notes.png").write_text("mine")
    said = at(*QUICK, "--task", "task.py", "-o", "notes.png")
    assert said.error == "error: notes.png: exists and is not a picture"
    assert (here / "notes.png").read_text() == "mine"


def test_a_plan_of_strangers_code_runs_none_of_it(folder, at, tmp_path, monkeypatch):
    monkeypatch.setenv("AUTOTRAIN_HOME", str(tmp_path / "empty"))
    said = at(*QUICK, "plan.toml")
    assert said.code == 1
    assert "this code has not been trusted on this machine" in said.error
    assert "the task got" not in said.err


def test_a_task_whose_step_fails_is_told_as_such(here, at):
    """Though it traces, and its predictions for another machine could be shown."""
    more = "self.y[index] + (9 if 'autotrain.probe.taking' in sys.orig_argv else 0)"
    broken = TASK.replace("import torch\n", "import sys\nimport torch\n", 1)
    (here / "task.py").write_text(
        broken.replace("self.x[index], self.y[index]", f"self.x[index], {more}")
    )
    said = at(*QUICK, "--task", "task.py", *SMALL, "--machine", "t4")
    assert said.code == 1
    assert said.error.startswith("error: in the bench: task.py: ")
    assert said.out == ""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_an_interrupt_shows_what_was_measured_until_then(planned_once, home, tmp_path):
    # Whoever runs tests in the background has them ignore it.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from autotrain.__main__ import main; main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, *BENCH, planned_once[0] / "plan.toml", "--seconds", "3",
         "--json"],
        cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"AUTOTRAIN_HOME": str(home)},
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("process 1 of "):
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    said = json.loads(out)
    assert said["stopped"] is True
    assert said["rows"][0]["run_seconds"] is not None
    assert "stopped: what was measured until then is above" in err
