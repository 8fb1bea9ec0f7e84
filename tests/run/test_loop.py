"""What a run does from its first event to its last."""

import dataclasses
import subprocess
import sys

import pytest
import torch

from autotrain import events
from autotrain.errors import AutotrainError, DoesNotFitError
from autotrain.run.keeping import checkpoint
from autotrain.run.keeping.keeper import pointed
from autotrain.run.lock import held
from autotrain.run.loop import train
from autotrain.task import Loss, Task

from .plans import make_plan
from .tasks import noisy_task, sequence_task


def run(plan, task, directory, **more):
    return list(train(plan, task, directory, task_file=directory / "task.py", **more))


def until_error(plan, task, directory, error=AutotrainError):
    seen = []

    def consume():
        for event in train(plan, task, directory, task_file=directory / "task.py"):
            seen.append(event)

    with pytest.raises(error) as caught:
        consume()
    return seen, caught.value


def named(seen, name):
    return [event for event in seen if event.name == name]


def failing_at(task, call, error):
    """The task, raising in its call-th training micro-batch."""
    calls = []

    def loss(model, batch):
        calls.append(model.training)
        if model.training and calls.count(True) == call:
            raise error
        return task.loss(model, batch)

    return dataclasses.replace(task, loss=loss)


def steady(figures):
    """A task whose validation loss goes through `figures`, one per evaluation."""
    left = list(figures)
    data = torch.utils.data.TensorDataset(torch.ones(8, 1))

    def loss(model, batch):
        if model.training:
            return Loss(total=model(batch[0]).sum(), weight=len(batch[0]))
        figure = left.pop(0) if len(left) > 1 else left[0]
        return Loss(total=torch.tensor(figure * len(batch[0])), weight=len(batch[0]))

    return Task(model=lambda: torch.nn.Linear(1, 1), train=data, valid=data, loss=loss)


WHOLE = {"micro_batch": 8, "accum_steps": 1, "global_batch": 8}


def test_events_begin_with_started_end_with_stopped_and_fit_in_a_log(tmp_path):
    """Every one of them survives events.jsonl."""
    seen = run(make_plan(), noisy_task(), tmp_path)
    assert (seen[0].name, seen[-1].name, seen[-1].reason) == ("started", "stopped", "finished")
    assert [events.from_json(events.to_json(event)) for event in seen] == seen
    assert (seen[0].train_count, seen[0].valid_count, seen[0].total_steps) == (36, 9, 15)
    assert [event.step for event in named(seen, "step")] == [2, 4, 6, 8, 10, 12, 14, 15]
    assert [event.epoch for event in named(seen, "evaluated")] == [1, 2, 3]
    assert sum(event.samples for event in named(seen, "step")) == 3 * 36


def test_log_points_hold_means_over_weights_and_plausible_figures(tmp_path):
    """A part that is twice the loss reads so."""
    for event in named(run(make_plan(), sequence_task(), tmp_path), "step"):
        assert event.parts["double"] == pytest.approx(2 * event.loss)
        assert event.step_seconds >= event.wait_seconds > 0
        assert event.peak_bytes >= event.device_bytes > 1 << 20
        assert event.lr > 0
        assert event.grad_norm > 0


@pytest.mark.parametrize(
    ("evaluate", "saves", "evaluated", "saved"),
    [
        ({"every_epochs": 2}, {"every_epochs": 2}, [10, 15], [10, 15]),
        ({"every_epochs": None, "every_steps": 6}, {"every_steps": 4}, [6, 12, 15], [4, 5, 8]),
        ({"every_epochs": None}, {"every_epochs": None}, [15], [15]),
    ],
)
def test_cadence_by_epochs_and_steps_ends_with_the_last_step(
    tmp_path, evaluate, saves, evaluated, saved
):
    """Evaluations and checkpoints fall where the plan says, and on the last step."""
    plan = make_plan(evaluate=evaluate, checkpoint={**saves, "keep": 9})
    seen = run(plan, sequence_task(), tmp_path)
    assert [event.step for event in named(seen, "evaluated")] == evaluated
    steps = [event.step for event in named(seen, "saved")]
    assert steps[-1] == 15
    assert set(saved) <= set(steps)


def test_a_run_stops_when_patience_runs_out(tmp_path):
    """Evaluations without an improvement of min_delta count; the last step is saved."""
    plan = make_plan(batch=WHOLE, train={"epochs": 9}, early_stop={"patience": 2, "min_delta": 0.5})
    seen = run(plan, steady([3.0, 2.0, 1.9, 1.8, 1.0]), tmp_path)
    assert (seen[-1].reason, seen[-1].step) == ("early_stop", 4)
    assert [event.bad_evaluations for event in named(seen, "evaluated")] == [0, 0, 1, 2]
    assert seen[-1].checkpoint.endswith("step-00000004")
    again = run(plan, steady([1.0]), tmp_path, resume=True)
    assert (again[-1].reason, again[-1].step) == ("early_stop", 4)


def test_best_points_at_the_best_evaluation(tmp_path):
    """And outlives pruning; latest points at the last."""
    plan = make_plan(batch=WHOLE, train={"epochs": 5}, checkpoint={"keep": 1})
    seen = run(plan, steady([3.0, 1.0, 2.0, 2.0, 2.0]), tmp_path)
    assert [event.best for event in named(seen, "evaluated")] == [1, 1, 0, 0, 0]
    assert pointed(tmp_path) == {"best": 2, "latest": 5}
    assert (seen[-1].best, seen[-1].best_step) == (1.0, 2)
    assert checkpoint.steps(tmp_path) == [5, 2]


def test_evaluating_more_often_changes_no_weight(tmp_path):
    """Validation leaves training's randomness and statistics alone."""
    ends = []
    for every in (1, 100):
        plan = make_plan(evaluate={"every_epochs": None, "every_steps": every})
        seen = run(plan, noisy_task(), tmp_path / str(every))
        ends.append([(e.loss, e.grad_norm) for e in named(seen, "step")])
    assert ends[0] == ends[1]


@pytest.mark.parametrize("micro", [1, 3, 13])
def test_validation_figures_do_not_depend_on_the_cut(tmp_path, micro):
    """Sums divided once: any batch split gives the loss and the measure of the whole set."""
    task = sequence_task()
    plan = make_plan(
        batch={"micro_batch": micro}, optimizer={"lr": 1e-30, "weight_decay": 0.0},
        train={"epochs": 1},
    )  # fmt: skip
    found = named(run(plan, task, tmp_path), "evaluated")[0]
    whole = task.collate([task.valid[i] for i in range(13)])
    path, _ = checkpoint.newest_good(tmp_path)
    model = task.model()
    model.load_state_dict(checkpoint.load(path).model.tensors)
    with torch.no_grad():
        loss, (near, count) = task.loss(model, whole), task.measure(model, whole)["near"]
    assert found.loss == pytest.approx(float(loss.total / loss.weight), rel=1e-12)
    assert found.metrics == {"near": float(near) / float(count)}


def test_an_error_in_the_step_keeps_the_last_whole_step(tmp_path):
    """Saved as emergency, Stopped says why, then one AutotrainError with file and line."""
    task = failing_at(noisy_task(), 6, ValueError("bad maths"))
    seen, error = until_error(make_plan(), task, tmp_path)
    assert (seen[-1].name, seen[-1].reason, seen[-1].step) == ("stopped", "error", 2)
    assert "ValueError: bad maths" in error.message
    assert "test_loop.py:" in error.message
    assert pointed(tmp_path) == {"latest": 2, "emergency": 2}
    whole = run(make_plan(), noisy_task(), tmp_path / "whole")
    rest = run(make_plan(), noisy_task(), tmp_path, resume=True)
    assert named(rest, "evaluated")[-1].loss == named(whole, "evaluated")[-1].loss


def test_an_error_within_the_update_saves_nothing_half_made(tmp_path, monkeypatch):
    """Some weights have moved and some have not: the newest good checkpoint stands."""
    step, calls = torch.optim.AdamW.step, []

    def failing(self, *arguments):
        calls.append(1)
        if len(calls) == 7:
            raise RuntimeError("half way")
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", failing)
    seen, _ = until_error(make_plan(), noisy_task(), tmp_path)
    assert seen[-1].reason == "error"
    assert checkpoint.steps(tmp_path) == [5]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("no room"),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
    ],
)
def test_running_out_of_memory_at_every_size_says_what_would_fit(tmp_path, error):
    """Exit status 4, and the hint is a smaller micro_batch."""
    task = noisy_task()

    def loss(model, batch):
        if model.training:
            raise error
        return task.loss(model, batch)

    seen, raised = until_error(
        make_plan(), dataclasses.replace(task, loss=loss), tmp_path, DoesNotFitError
    )
    assert (seen[-1].reason, raised.exit_code) == ("out_of_memory", 4)
    assert "micro_batch" in raised.hint


def test_an_error_in_the_first_step_leaves_the_directory_free(tmp_path):
    """There is nothing to keep, and the next try needs no flag."""
    until_error(make_plan(), failing_at(noisy_task(), 1, ValueError("bug")), tmp_path)
    assert run(make_plan(), noisy_task(), tmp_path)[-1].reason == "finished"


def test_a_loss_that_is_not_finite_stops_and_keeps_the_good_checkpoint(tmp_path):
    """A poisoned model is never saved."""
    task = noisy_task()

    def loss(model, batch):
        made = task.loss(model, batch)
        seen.append(model.training)
        poison = float("nan") if seen.count(True) > 12 else 1.0
        return dataclasses.replace(made, total=made.total * poison)

    seen = []
    plan = make_plan(checkpoint={"every_steps": 1}, train={"epochs": 9})
    got, error = until_error(plan, dataclasses.replace(task, loss=loss), tmp_path)
    assert got[-1].reason == "not_finite"
    path, torn = checkpoint.newest_good(tmp_path)
    assert torn == []
    assert str(path) == got[-1].checkpoint
    tensors = checkpoint.load(path).model.tensors
    assert all(bool(t.isfinite().all()) for t in tensors.values())
    assert "not finite" in error.message or "nan" in error.message


def test_a_validation_loss_that_is_not_finite_is_told(tmp_path):
    """With its step; it is not the best, and training goes on."""
    seen = run(make_plan(batch=WHOLE), steady([1.0, float("inf"), 0.5]), tmp_path)
    told = [event.message for event in named(seen, "warned")]
    assert told == ["the validation loss is inf after step 2"]
    assert [event.best for event in named(seen, "evaluated")] == [True, False, True]
    assert seen[-1].reason == "finished"


def test_a_second_run_in_the_same_directory_is_refused(tmp_path):
    """While one holds it; then it is free again."""
    with held(tmp_path), pytest.raises(AutotrainError, match="another run is using it"):
        run(make_plan(), noisy_task(), tmp_path)
    assert run(make_plan(train={"epochs": 1}), noisy_task(), tmp_path)[-1].reason == "finished"


def test_a_killed_runs_last_worker_is_waited_for(tmp_path):
    """What it was forked from is gone, and it will be soon."""
    script = "import sys, time; from autotrain.run.lock import held; from pathlib import Path\n"
    script += "with held(Path(sys.argv[1])): print(flush=True); time.sleep(0.5)"
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        assert run(make_plan(train={"epochs": 1}), noisy_task(), tmp_path)[-1].step == 5
    assert holder.returncode == 0


def test_closing_the_generator_frees_the_directory(tmp_path):
    """A consumer may walk away."""
    going = train(make_plan(), noisy_task(), tmp_path, task_file=tmp_path)
    next(going)
    going.close()
    with held(tmp_path):
        pass


def test_a_directory_that_holds_a_run_is_refused_without_resume(tmp_path):
    """Nothing is overwritten."""
    run(make_plan(train={"epochs": 1}), noisy_task(), tmp_path)
    with pytest.raises(AutotrainError, match="holds a run already"):
        run(make_plan(), noisy_task(), tmp_path)


def test_a_monitor_that_nobody_measures_is_named(tmp_path):
    """With what could be monitored."""
    task = dataclasses.replace(noisy_task(), monitor="wer")
    _, error = until_error(make_plan(), task, tmp_path)
    assert "'wer'" in error.message
    assert error.hint == "monitor one of: loss, accuracy"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"train": []}, "train dataset is empty"),
        ({"valid": []}, "valid dataset is empty"),
        ({"train": iter([])}, "has no length"),
        ({"model": lambda: 1 / 0}, r"model\(\) failed: ZeroDivisionError"),
    ],
)
def test_what_cannot_begin_is_one_clear_line(tmp_path, change, says):
    """Before Started, with nothing left in the directory but the lock."""
    task = dataclasses.replace(noisy_task(), valid=noisy_task().train, **change) if (
        "valid" not in change
    ) else dataclasses.replace(noisy_task(), **change)  # fmt: skip
    with pytest.raises(AutotrainError, match=says):
        run(make_plan(), task, tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] in ([], [".lock"])


def test_a_device_that_is_not_there_is_named(tmp_path):
    """The hint is to plan again."""
    plan = make_plan(device={"kind": "cuda", "index": 63})
    with pytest.raises(AutotrainError, match="cuda:63"):
        run(plan, noisy_task(), tmp_path)


def test_a_plan_for_more_processes_says_that_one_does_the_work(tmp_path):
    """The global batch stays what was planned."""
    plan = make_plan(batch={"world_size": 2, "accum_steps": 1}, train={"epochs": 1})
    seen = run(plan, noisy_task(), tmp_path)
    assert "2 processes" in named(seen, "warned")[0].message
    assert seen[-1].step == 5


def test_a_loss_that_is_no_loss_says_what_to_return(tmp_path):
    """A newcomer's first mistake."""
    task = dataclasses.replace(noisy_task(), loss=lambda model, batch: model(batch[0]).sum())
    _, error = until_error(make_plan(), task, tmp_path)
    assert error.message == "the task's loss returned Tensor, not autotrain.Loss"
