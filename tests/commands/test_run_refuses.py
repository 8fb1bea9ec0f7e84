"""`autotrain run` on bad input: one clear line, the right exit code, nothing written or lost."""

import os
import shutil
import signal
import sys

import pytest

from autotrain.run.lock import held

from .house import PLAN, SMALL, edit, read_only, tree


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"batch": {"micro_bach": 8}}, ["batch.micro_bach: unknown key", "micro_batch"]),
        ({"train": {"epochs": "many"}}, ["train.epochs: 'many'"]),
        ({"batch": {"micro_batch": -8}}, ["batch.micro_batch: -8"]),
        ({"schema": 99}, ["schema: 99 is not 1"]),
        ({"batch": {"global_batch": 9}}, ["batch.global_batch: 9 is not"]),
        (
            {"train": {"epochs": 0}, "optimizer": {"lr": -1.0}, "run": {"nmae": "x"}},
            ["train.epochs: 0", "optimizer.lr: -1.0", "run.nmae: unknown key"],
        ),
    ],
    ids=["unknown key", "wrong type", "negative", "schema", "sums", "several"],
)
def test_a_plan_that_is_wrong(folder, at, changes, says):
    edit(folder / "plan.toml", **changes)
    before = tree(folder)
    said = at("run", "plan.toml")
    assert said.code == 2
    assert all(part in said.err for part in says)
    assert all(x.startswith("error: plan.toml: ") for x in said.err.splitlines() if "error:" in x)
    assert tree(folder) == before


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"batch = [1,\n", "not valid TOML"), (b"\xff\xfe", "not valid TOML"), (b"", "schema: None")],
)
def test_a_file_that_is_no_plan(folder, at, content, says):
    (folder / "plan.toml").write_bytes(content)
    before = tree(folder)
    for command in (["run"], ["explain"]):
        said = at(*command, "plan.toml")
        assert said.code == 2
        assert said.error.startswith("error: plan.toml: ")
        assert says in said.error
    assert tree(folder) == before


@pytest.mark.parametrize("name", ["none.toml", "."])
def test_a_plan_that_is_not_there(folder, at, name):
    said = at("run", name)
    assert said.code == 1
    assert said.error.startswith(f"error: {name}: ")


def test_code_that_nobody_trusts_here_does_not_run(folder, at, tmp_path, monkeypatch):
    monkeypatch.setenv("AUTOTRAIN_HOME", str(tmp_path / "elsewhere"))
    before = tree(folder)
    said = at("run", "plan.toml")
    assert said.code == 1
    assert "has not been trusted on this machine" in said.error
    assert "--trust" in said.err
    assert "the task got" not in said.err
    assert tree(folder) == before


def test_code_that_has_changed_runs_again_only_when_trusted(folder, at):
    with open(folder / "task.py", "a") as file:
        file.write("\nprint('changed')\n")
    before = tree(folder)
    said = at("run", "plan.toml")
    assert said.code == 1
    assert "task.py: the code has changed since the plan was made" in said.error
    assert "changed\n" not in said.err.replace("has changed", "")
    assert tree(folder) == before
    assert at("run", "plan.toml", "--trust", "--max-steps", "1").code == 0
    # The run's own plan names the code as it ran: it needs no second word.
    assert at("run", "runs/mine/plan.toml", "--resume").code == 0


@pytest.mark.parametrize(
    "source",
    ["def task(data:\n", "x = 1\n", "def task(data):\n    return 3\n", "def task(data): 1 / 0\n"],
    ids=["syntax", "no task", "wrong return", "raises"],
)
def test_a_task_that_cannot_be_loaded_leaves_nothing_behind(folder, at, source):
    (folder / "task.py").write_text(source)
    before = tree(folder)
    said = at("run", "plan.toml", "--trust")
    assert said.code == 1
    assert "task.py" in said.error
    assert tree(folder) == before


def test_a_model_that_cannot_be_built_leaves_nothing_behind(folder, at):
    text = (folder / "task.py").read_text()
    (folder / "task.py").write_text(text.replace("lambda: net(width)", "lambda: net(1 / 0)"))
    before = tree(folder)
    said = at("run", "plan.toml", "--trust")
    assert said.code == 1
    assert "ZeroDivisionError" in said.error
    assert "\nhint: " in said.err
    assert tree(folder) == before


def test_a_plan_for_another_device_says_what_to_do_and_leaves_nothing(folder, at):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has the device")
    done = at(*PLAN, "--machine", "rtx-4060-laptop-8gb", "-o", "gpu.toml")
    assert done.code == 0
    before = tree(folder)
    said = at("run", "gpu.toml")
    assert said.code == 1
    assert "the plan is for cuda:0" in said.error
    assert "`autotrain plan --refresh PLAN`" in said.err
    assert tree(folder) == before


def test_a_folder_that_holds_a_run_is_refused(trained, at):
    before = tree(trained)
    said = at("run", "plan.toml")
    assert said.code == 1
    assert "runs/mine: holds a run already" in said.error
    assert "--resume" in said.err
    assert "--fresh" in said.err
    assert tree(trained) == before


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--resume", "--fresh"], "exclude each other"),
        (["--max-steps", "0"], "'--max-steps'"),
        (["--max-steps", "-3"], "'--max-steps'"),
        (["--max-steps", "some"], "'--max-steps'"),
        (["--fersh"], "--fersh"),
    ],
)
def test_options_that_mean_nothing(folder, at, arguments, says):
    before = tree(folder)
    said = at("run", "plan.toml", *arguments)
    assert said.code == 2
    assert says in said.error
    assert said.error[len("error: ")].islower() or not said.error[len("error: ")].isalpha()
    assert "\nhint: " in said.err
    assert tree(folder) == before


def test_what_a_resume_may_not_change_is_refused_by_name(trained, at):
    edit(
        trained / "plan.toml",
        batch={"micro_batch": 4, "global_batch": 4},
        optimizer={"name": "sgd"},
        run={"seed": 5},
    )
    before = tree(trained)
    said = at("run", "plan.toml", "--resume")
    assert said.code == 2
    for key in ("batch.global_batch: 4 here, 8 in the run", "optimizer.name: ", "run.seed: 5 here"):
        assert f"error: plan.toml: {key}" in said.err
    assert tree(trained) == before


def test_a_run_that_goes_on_elsewhere_is_neither_resumed_nor_put_aside(trained, at):
    with held(trained / "runs/mine"):
        before = tree(trained)
        for how in ("--resume", "--fresh"):
            said = at("run", "plan.toml", how)
            assert said.code == 1
            assert "another run is using it" in said.error
        assert tree(trained) == before


def test_a_fresh_run_that_cannot_begin_leaves_the_earlier_one_in_its_place(trained, at):
    text = (trained / "task.py").read_text()
    (trained / "task.py").write_text(text.replace("lambda: net(width)", "lambda: net(1 / 0)"))
    before = tree(trained)
    assert at("run", "plan.toml", "--fresh", "--trust").code == 1
    assert {k: v for k, v in tree(trained).items() if not k.endswith(".lock")} == {
        k: v for k, v in before.items() if not k.endswith(".lock")
    }


@pytest.mark.parametrize("place", [".", "..", ""])
def test_a_plan_may_not_lie_inside_its_own_run(folder, at, place):
    edit(folder / "plan.toml", run={"directory": place})
    before = tree(folder)
    said = at("run", "plan.toml", "--fresh")
    assert said.code == 2
    assert "run.directory" in said.error
    assert tree(folder) == before


def test_a_run_folder_that_cannot_be_made(folder, at):
    edit(folder / "plan.toml", run={"directory": "task.py/here"})
    before = tree(folder)
    said = at("run", "plan.toml")
    assert said.code == 1
    assert "task.py" in said.error
    assert tree(folder) == before


@pytest.mark.root
@pytest.mark.skipif(sys.platform != "linux", reason="mounts of Linux")
def test_a_run_where_one_may_not_write(folder):
    done = read_only(folder, "run", "plan.toml")
    assert done.returncode == 1
    assert "error: " in done.stderr
    assert "Read-only file system" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["explain", "plan.toml", "batch.micro_bach"],
        ["report", "."],
        ["probe", "none", "--no-calibrate"],
        ["probe", "-o", "task.py", "--no-calibrate"],
    ],
)
def test_other_commands_on_what_is_not_there(folder, at, command):
    before = tree(folder)
    said = at(*command)
    assert said.code in (1, 2)
    assert "\nhint: " in said.err
    assert said.out == ""
    assert tree(folder) == before


def test_new_does_not_touch_what_exists(folder, at):
    before = tree(folder)
    for name in ("runs", "task.py", "task.py/mine"):
        os.makedirs("runs", exist_ok=True)
        said = at("new", name)
        assert said.code == 1
        assert name.split("/")[0] in said.error
    shutil.rmtree("runs")
    assert at("new", "mine", "--template", "none").code == 1
    assert tree(folder) == before


@pytest.fixture
def full_disk(small_disk, folder):
    """Runs go to a file system of 32 KiB."""
    (folder / "runs").mkdir()
    return small_disk(folder / "runs", "32k")


@pytest.mark.root
def test_a_disk_that_holds_no_checkpoint_is_refused_before_anything_runs(full_disk, folder, at):
    said = at("run", "plan.toml")
    assert said.code == 1
    assert "free 32 KiB; a checkpoint takes" in said.error
    assert "hint: free " in said.err
    assert list(full_disk.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"run": {"directory": "../elsewhere"}}, "run.directory"),
        ({"run": {"directory": "runs/../../elsewhere"}}, "run.directory"),
        ({"checkpoint": {"mirror": "../elsewhere"}}, "checkpoint.mirror"),
        ({"checkpoint": {"mirror": "memory://elsewhere"}}, "checkpoint.mirror"),
    ],
)
def test_a_plan_writes_beside_itself_or_where_a_person_said(folder, at, changes, key):
    """Also in the copy that the run keeps."""
    edit(folder / "plan.toml", **changes)
    said = at("run", "plan.toml")
    assert said.code == 1
    assert said.error.startswith(f"error: plan.toml: {key}: ")
    assert "--trust" in said.err
    assert not (folder.parent / "elsewhere").exists()
    assert at("run", "plan.toml", "--trust").code == 0
    assert at("run", "plan.toml", "--fresh").code == 0
    run = folder.parent / "elsewhere" if key == "run.directory" else folder / "runs/mine"
    assert at("run", str(run / "plan.toml"), "--resume").code == 0


def test_who_plans_for_a_place_has_named_it(folder, at, tmp_path):
    there = tmp_path / "disk" / "runs"
    said = at(*PLAN, *SMALL, "--set", f"run.directory={there}")
    assert said.code == 0, said.err
    assert at("run", "plan.toml").code == 0
    (folder / "runs").symlink_to(tmp_path / "disk")
    edit(folder / "plan.toml", run={"directory": "runs/linked"})
    assert at("run", "plan.toml").code == 0
    assert (tmp_path / "disk/linked/checkpoints").is_dir()


@pytest.mark.parametrize("more", [(), ("--resume",), ("--fresh",)])
@pytest.mark.parametrize("name", ["events.jsonl", "metrics", ".lock", "report.json", "checkpoints"])
def test_a_link_in_a_runs_folder_leads_nothing_out_of_it(folder, at, name, more):
    """A stranger's archive may hold one; the plan's own folder is out of it too."""
    (folder / "runs/mine").mkdir(parents=True)
    (folder / "runs/mine" / name).symlink_to("../../precious")
    if name in ("metrics", "checkpoints"):
        (folder / "precious").mkdir()
        (folder / "precious/report.json").write_text("precious")
    else:
        (folder / "precious").write_text("precious")
    before = tree(folder)
    said = at("run", "plan.toml", *more)
    assert said.code == 1
    assert f"/{name}: {folder.resolve() / 'precious'} is what a link leads to" in said.error
    assert tree(folder) == before


def test_a_link_that_a_person_trusts_is_followed(folder, at, tmp_path):
    (tmp_path / "board").mkdir()
    (folder / "runs/mine").mkdir(parents=True)
    (folder / "runs/mine/metrics").symlink_to(tmp_path / "board")
    assert at("run", "plan.toml").code == 1
    assert at("run", "plan.toml", "--trust", "--max-steps", "1").code == 0
    assert at("run", "plan.toml", "--resume", "--max-steps", "2").code == 0
    assert len([*(tmp_path / "board").iterdir()]) == 2


def test_a_link_on_the_way_to_a_run_leads_to_no_files_but_a_runs(folder, at, tmp_path):
    """`runs` on a larger disk is a person's; a stranger could mean another folder of theirs."""
    disk = tmp_path / "disk"
    (disk / "theirs").mkdir(parents=True)
    (disk / "theirs/report.json").write_text("precious")
    (folder / "runs").symlink_to(disk)
    edit(folder / "plan.toml", run={"directory": "runs/theirs"})
    said = at("run", "plan.toml")
    assert said.code == 1
    assert f"run.directory: {disk.resolve() / 'theirs'} is not in the plan's folder" in said.error
    assert tree(disk) == {"theirs": None, "theirs/report.json": b"precious"}
    edit(folder / "plan.toml", run={"directory": "runs/mine"})
    for more in (("--max-steps", "1"), ("--resume", "--max-steps", "2"), ("--fresh",)):
        assert at("run", "plan.toml", *more).code == 0


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("name", ["plan.toml", "events.jsonl", "report.json"])
@pytest.mark.parametrize(
    "command",
    [
        ("run", "plan.toml", "--resume"),
        ("run", "plan.toml", "--fresh", "--max-steps", "1"),
        ("report", "runs/mine"),
        ("evaluate", "runs/mine"),
    ],
)
def test_a_pipe_in_a_runs_folder_is_waited_for_by_nobody(trained, at, command, name):
    """Opened, it would keep a command until somebody writes into it."""
    (trained / "runs/mine" / name).unlink()
    os.mkfifo(trained / "runs/mine" / name)
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it hangs"))
    signal.alarm(20)
    try:
        said = at(*command)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert said.code in (0, 1)
    assert said.code == 0 or "not a regular file" in said.error or "holds no run" in said.error
