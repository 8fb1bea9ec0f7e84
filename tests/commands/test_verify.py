"""A user's own proof that a resume changes nothing, by real runs in processes of their own."""

import json

import pytest

from .house import PLAN, SMALL, edit

# A pace that no checkpoint knows of; and noise from a generator that nobody seeds.
KEEPS_COUNT = """
calls = [0]


def own(model, batch):
    calls[0] += 1
    inputs, wanted = batch
    total = nn.functional.cross_entropy(model(inputs), wanted, reduction="sum")
    return Loss(total=total * calls[0], weight=len(wanted))
"""
DRAWS_ITS_OWN = """
import os


def own(model, batch):
    inputs, wanted = batch
    inputs = inputs + int.from_bytes(os.urandom(2), "big") / 2**16
    total = nn.functional.cross_entropy(model(inputs), wanted, reduction="sum")
    return Loss(total=total, weight=len(wanted))
"""
TASK_OF = """

def task(data, width=8):
    return Task(model=lambda: net(width), train=Points(64, 1), valid=Points(16, 2), loss=own)
"""


def with_loss(folder, at, code):
    """The folder's task with a loss of its own, planned anew."""
    file = folder / "task.py"
    file.write_text(file.read_text().replace("import Task", "import Loss, Task") + code + TASK_OF)
    assert at(*PLAN, *SMALL).code == 0


def left(folder):
    """What verify kept, and where runs go."""
    place = folder / "runs"
    return [path.name for path in place.iterdir()] if place.exists() else []


def test_a_sound_task_resumes_to_the_bit_and_nothing_is_left(folder, at):
    """Nor does what lies in the folder where it is typed run."""
    edit(folder / "plan.toml", train={"ema_decay": 0.9}, loader={"workers": 1},
         checkpoint={"mirror": "backup"})  # fmt: skip
    for name in ("torch", "multiprocessing"):
        (folder / f"{name}.py").write_text("open('ran', 'w').close()\n")
    said = at("verify", "plan.toml", "--steps", "6")
    assert said.code == 0, said.err
    lines = {line.partition("  ")[0]: line for line in said.out.splitlines()}
    assert "6 steps at once, and 3 + 3 with a restart between, on cpu" in lines["verify"]
    for part in ("weights", "averaged weights", "optimizer"):
        assert "the same to the bit in 4 tensors" in lines[part] or part == "optimizer"
    for part in ("place in the data", "random numbers", "early stopping", "healing"):
        assert lines[part].endswith("the same")
    assert "ends to the bit as one that never was" in lines["verdict"]
    assert "kept" not in lines
    assert left(folder) == []
    assert not list(folder.glob("*verify*"))
    assert not (folder / "backup").exists()
    assert not (folder / "ran").exists()


def test_a_task_that_remembers_what_no_checkpoint_has_is_found_out(folder, at):
    with_loss(folder, at, KEEPS_COUNT)
    said = at("verify", "plan.toml", "--steps", "4", "--json")
    assert said.code == 1
    found = json.loads(said.out)
    assert (found["exact"], found["no_worse"], found["stopped_after"]) == (False, False, 2)
    apart = {part["name"] for part in found["parts"] if not part["same"]}
    assert {"weights", "optimizer"} <= apart
    assert "place in the data" not in apart
    assert all(part["same"] for part in found["two_unstopped_runs"])


def test_a_task_that_is_never_the_same_is_told_apart_from_a_bad_resume(folder, at):
    with_loss(folder, at, DRAWS_ITS_OWN)
    said = at("verify", "plan.toml", "--steps", "4")
    assert said.code == 0
    assert "nor are two runs that are never stopped" in said.out
    weights = next(line for line in said.out.splitlines() if line.startswith("weights"))
    assert "4 of 4 tensors differ" in weights


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"train": {"epochs": 1}, "batch": {"micro_batch": 64, "global_batch": 64}}, "1 step"),
        ({"data": {"valid_share": 7}}, "data.valid_share"),
        ({"run": {"directory": "../elsewhere/run"}}, "run.directory"),
    ],
)
def test_what_cannot_be_verified_is_said_and_leaves_nothing(folder, at, change, expected):
    edit(folder / "plan.toml", **change)
    said = at("verify", "plan.toml")
    assert said.code != 0
    assert expected in said.err
    assert not list(folder.parent.rglob("*verify*"))


def test_a_run_that_fails_is_shown(folder, at, monkeypatch):
    fails = "if os.environ.get('FAILS'):\n        raise ValueError('no such word')"
    with_loss(folder, at, "\nimport os\n" + KEEPS_COUNT.replace("calls[0] += 1", fails))
    monkeypatch.setenv("FAILS", "1")
    said = at("verify", "plan.toml")
    assert said.code == 1
    assert "no such word" in said.err
    assert "Traceback" not in said.err
    assert not list(folder.rglob("*verify*"))
