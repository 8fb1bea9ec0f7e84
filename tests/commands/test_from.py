"""A resume from a checkpoint that is not the newest: nothing is lost, and it ends the same."""

import shutil

import pytest

from .house import edit, tree
from .test_run import weights


def steps(run):
    return sorted(path.name for path in (run / "checkpoints").glob("step-*"))


@pytest.mark.parametrize("name", ["step-8", "8", "step-00000008"])
def test_it_goes_on_from_there_and_ends_the_same(trained, at, name):
    run = trained / "runs/mine"
    ended, before = weights(run), steps(run)
    assert "step-00000008" in before
    said = at("run", "plan.toml", "--resume", "--from", name)
    assert said.code == 0, said.err
    assert "back to step-8; step-16" in said.err
    assert "resuming from step-00000008" in said.err
    assert weights(run) == ended
    kept = sorted(path.name for path in (run / "checkpoints/aside-1").iterdir())
    assert kept == [each for each in before if each > "step-00000008"]
    again = at("run", "plan.toml", "--resume", "--from", name)
    assert again.code == 0
    assert (run / "checkpoints/aside-2").is_dir()


def test_best_is_a_name_too_and_the_newest_sets_nothing_aside(trained, at):
    assert at("run", "plan.toml", "--resume", "--from", "best").code == 0
    said = at("run", "plan.toml", "--resume", "--from", "16")
    assert "step-16 is the newest" in said.err


def test_what_is_not_there_is_refused_with_what_is(trained, at):
    run = trained / "runs/mine"
    before = steps(run)
    said = at("run", "plan.toml", "--resume", "--from", "step-5")
    assert said.code == 1
    assert said.error.startswith("error: --from step-5: no such checkpoint in ")
    assert "latest (step-16)" in said.err
    (run / "checkpoints/step-00000008/optimizer.safetensors").write_bytes(b"torn")
    torn = at("run", "plan.toml", "--resume", "--from", "8")
    assert torn.code == 1
    assert "optimizer.safetensors: 4 bytes, the manifest says" in torn.error
    assert steps(run) == before


def test_without_a_run_or_a_resume_it_is_refused(folder, at):
    assert at("run", "plan.toml", "--from", "8").code == 2
    said = at("run", "plan.toml", "--resume", "--from", "8")
    assert said.code == 1
    assert "no run in" in said.error
    assert not (folder / "runs").exists()


def test_a_machine_that_is_lost_is_no_loss_with_a_mirror(trained_once, folder, at):
    """The mirror is named beside the plan; another machine has the plan, the code and the data."""
    edit(folder / "plan.toml", checkpoint={"mirror": "backup", "every_steps": 3})
    assert at("run", "plan.toml", "--max-steps", "7").code == 0
    shutil.rmtree(folder / "runs")
    said = at("run", "plan.toml", "--resume", "--from", "backup")
    assert said.code == 0, said.err
    assert "fetched step-7 from backup" in said.err
    assert weights(folder / "runs/mine") == weights(trained_once[0] / "runs/mine")
    assert (folder / "backup/mine/plan.toml").is_file()


def test_a_machine_that_is_lost_needs_no_from_where_the_plan_names_its_mirror(
    trained_once, folder, at
):
    edit(folder / "plan.toml", checkpoint={"mirror": "backup", "every_steps": 3})
    assert at("run", "plan.toml", "--max-steps", "7").code == 0
    shutil.rmtree(folder / "runs")
    said = at("run", "plan.toml", "--resume")
    assert said.code == 0, said.err
    assert "no checkpoint was left here: step-7 is from" in said.err
    assert weights(folder / "runs/mine") == weights(trained_once[0] / "runs/mine")


def test_a_torn_newest_is_replaced_by_the_mirrors(trained_once, folder, at):
    edit(folder / "plan.toml", checkpoint={"mirror": "backup", "every_steps": 3})
    assert at("run", "plan.toml", "--max-steps", "7").code == 0
    here = folder / "runs/mine/checkpoints"
    (here / "step-00000007/model.safetensors").write_bytes(b"torn")
    said = at("run", "plan.toml", "--resume", "--from", "backup")
    assert said.code == 0, said.err
    assert "resuming from step-00000007" in said.err
    assert (here / "aside-1/step-00000007/model.safetensors").read_bytes() == b"torn"
    assert weights(folder / "runs/mine") == weights(trained_once[0] / "runs/mine")


def test_a_fresh_run_leaves_the_mirror_of_the_earlier_one(folder, at):
    """As its folder is renamed here and not replaced."""
    edit(folder / "plan.toml", checkpoint={"mirror": "backup", "every_steps": 3})
    assert at("run", "plan.toml", "--max-steps", "7").code == 0
    before = tree(folder / "backup")
    said = at("run", "plan.toml", "--fresh", "--max-steps", "2")
    assert said.code == 0, said.err
    assert "backup/mine is another run's, which stays: copies go to" in said.err
    assert {name: tree(folder / "backup")[name] for name in before} == before
    assert (folder / "backup/mine/run-2/checkpoints/step-00000002").is_dir()
    back = at("run", "plan.toml", "--resume", "--from", "backup/mine")
    assert "fetched step-7 from backup/mine" in back.err
    assert back.code == 0, back.err
