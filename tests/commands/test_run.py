"""`autotrain run` as a person uses it: what it prints, leaves behind and goes on with."""

import json

import pytest

from autotrain.commands import report
from autotrain.events import from_json

from .house import cli, edit, tree


def weights(run):
    """The newest checkpoint's model, as bytes."""
    name = (run / "checkpoints/latest").read_text().strip()
    return (run / "checkpoints" / name / "model.safetensors").read_bytes()


def test_json_is_one_event_a_line_and_nothing_else(trained_once):
    _, done = trained_once
    events = [from_json(line) for line in done.stdout.splitlines()]
    assert events[0].name == "started"
    assert events[-1].name == "stopped"
    assert events[-1].reason == "finished"
    assert [e.name for e in events].count("stopped") == 1
    assert "the task got" in done.stderr


def test_the_log_holds_the_same_events(trained_once):
    folder, done = trained_once
    assert (folder / "runs/mine/events.jsonl").read_text() == done.stdout


def test_a_run_leaves_its_plan_report_picture_and_checkpoints(trained_once):
    run = trained_once[0] / "runs/mine"
    assert json.loads((run / "report.json").read_text())
    assert (run / "report.png").stat().st_size > 10_000
    assert (run / "plan.toml").is_file()
    assert list((run / "metrics").iterdir())
    assert (run / "checkpoints/latest").read_text().strip() == "step-00000016"


def test_max_steps_leaves_a_checkpoint_of_its_last_step_and_resume_goes_on(
    folder, at, trained_once
):
    said = at("run", "plan.toml", "--max-steps", "3")
    assert said.code == 0
    run = folder / "runs/mine"
    assert (run / "checkpoints/latest").read_text().strip() == "step-00000003"
    assert "--resume" in said.err
    said = at("run", "plan.toml", "--resume")
    assert said.code == 0
    assert "resuming from step-00000003" in said.err
    assert weights(run) == weights(trained_once[0] / "runs/mine")


def test_resume_of_nothing_begins_and_says_so(folder, at):
    said = at("run", "plan.toml", "--resume", "--max-steps", "1")
    assert said.code == 0
    assert "no checkpoint to resume from" in said.err
    assert "starting from the beginning" in said.err


def test_a_finished_run_resumes_to_its_end_at_once(trained, at):
    before = weights(trained / "runs/mine")
    said = at("run", "plan.toml", "--resume")
    assert said.code == 0
    assert weights(trained / "runs/mine") == before


def test_fresh_keeps_the_earlier_run(trained, at):
    before = tree(trained / "runs/mine")
    said = at("run", "plan.toml", "--fresh", "--max-steps", "1")
    assert said.code == 0
    assert "the earlier run is kept in" in said.err
    assert "mine.before-1" in said.err
    kept = tree(trained / "runs/mine.before-1")
    assert {k: v for k, v in kept.items() if k != ".lock"} == {
        k: v for k, v in before.items() if k != ".lock"
    }
    assert at("run", "plan.toml", "--fresh", "--max-steps", "1").code == 0
    assert (trained / "runs/mine.before-2").is_dir()


def test_the_copy_of_the_plan_in_the_run_folder_resumes_it_also_where_it_was_moved(trained, at):
    run = trained / "runs/mine"
    assert at("run", str(run / "plan.toml")).code == 1
    edit(run / "plan.toml", train={"epochs": 3}, early_stop={"patience": 50})
    said = at("run", str(run / "plan.toml"), "--resume")
    assert said.code == 0
    assert "step 24" in said.err
    moved = run.rename(trained / "elsewhere")
    edit(moved / "plan.toml", train={"epochs": 4})
    assert at("run", str(moved / "plan.toml"), "--resume").code == 0
    assert (moved / "checkpoints/latest").read_text().strip() == "step-00000032"
    assert not run.exists()


def test_the_plan_named_on_the_command_line_rules_a_resume(trained, at):
    edit(trained / "plan.toml", train={"epochs": 3})
    assert at("run", "plan.toml", "--resume").code == 0
    said = at("explain", str(trained / "runs/mine/plan.toml"), "train.epochs")
    assert said.out.startswith("train.epochs = 3")


def test_a_report_that_fails_hides_nothing(folder, at, monkeypatch):
    def broken(*_):
        raise ValueError("no picture today")

    monkeypatch.setattr(report, "write", broken)
    said = at("run", "plan.toml", "--max-steps", "1")
    assert said.code == 0
    assert "warning: no report: no picture today; `autotrain report" in said.err
    assert (folder / "runs/mine/checkpoints/step-00000001").is_dir()


def test_the_report_can_be_made_again(trained, at):
    (trained / "runs/mine/report.png").unlink()
    said = at("report", "runs/mine")
    assert said.code == 0
    assert "finished; 16 steps" in said.out
    assert (trained / "runs/mine/report.png").is_file()
    assert json.loads(at("report", "runs/mine", "--json").out)


def test_a_task_that_fails_on_the_way_is_named_summed_up_and_can_be_resumed(folder, at):
    text = (folder / "task.py").read_text()
    trap = (
        "if torch.utils.data.get_worker_info() is None and index % 3 == 0: raise OSError('gone')\n"
    )
    (folder / "task.py").write_text(
        text.replace("        return self.x[index]", f"        {trap}        return self.x[index]")
    )
    edit(folder / "plan.toml", loader={"workers": 0})
    said = at("run", "plan.toml", "--trust")
    assert said.code == 1
    assert "gone" in said.error
    assert "stopped" in said.err
    assert "Traceback" not in said.err
    assert "predicted" in said.err  # the summary
    (folder / "task.py").write_text(text)
    said = at("run", "plan.toml", "--resume")
    assert said.code == 0


def test_memory_that_runs_out_exits_4(folder, at):
    text = (folder / "task.py").read_text()
    trap = "raise torch.OutOfMemoryError('CUDA out of memory')"
    (folder / "task.py").write_text(
        text.replace(
            "    return Task.classification(",
            "    from dataclasses import replace\n    made = Task.classification(",
        )
        + "\n    def loss(model, batch):\n"
        + f"        {trap}\n"
        + "    return replace(made, loss=loss)\n"
    )
    said = at("run", "plan.toml", "--trust")
    assert said.code == 4
    assert "\nhint: " in said.err


def test_the_new_starter_trains_as_it_is(tmp_path, at, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = at("new", "mine")
    assert said.code == 0
    assert "next: autotrain plan --task mine/task.py" in said.err
    lines = (tmp_path / "mine/task.py").read_text().splitlines()
    assert 30 <= len(lines) <= 60
    # One thread: two on a busy machine wait for each other longer than they compute.
    plan = ("plan", "--task", "mine/task.py", "--no-calibrate", "--set", "device.threads=1")
    assert at(*plan).code == 0
    said = at("run", "plan.toml", "--json")
    assert said.code == 0
    assert from_json(said.out.splitlines()[-1]).best >= 0.97


def test_workers_that_start_by_spawn_load_a_task_given_by_path(folder, at, trained_once):
    """And print nothing on stdout, though each runs the task file again."""
    edit(folder / "plan.toml", loader={"workers": 1, "start_method": "spawn"})
    with open(folder / "task.py", "a") as file:
        file.write("\nprint('imported')\n")
    done = cli("run", "plan.toml", "--json", "--trust", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert all(from_json(line) for line in done.stdout.splitlines())
    assert done.stderr.count("imported") >= 2
    assert weights(folder / "runs/mine") == weights(trained_once[0] / "runs/mine")


@pytest.mark.parametrize("template", ["image-classifier", "speech-autoencoder"])
def test_a_template_can_be_copied_to_own_it(folder, at, template):
    assert at("new", "copy", "--template", template).code == 0
    assert (folder / "copy/task.py").is_file()
    assert not list((folder / "copy").rglob("__pycache__"))
