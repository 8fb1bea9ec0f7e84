"""A checkpoint evaluated again, in another process or years later, gives the run's own figures."""

import pytest

from autotrain.errors import AutotrainError
from autotrain.events import Evaluated
from autotrain.run import trained
from autotrain.run.evaluate import evaluate
from autotrain.run.loop import train
from autotrain.run.signals import Stop

from .plans import make_plan
from .tasks import noisy_task, sequence_task
from .test_bucketed import PLANNED

LENGTHS = dict.fromkeys(("length", "valid_length"), lambda i: float(i % 9 + 1))
CASES = {
    "averaged": (noisy_task, {"train": {"ema_decay": 0.8}}),
    "cut finer": (noisy_task, {"batch": {"split": 2}}),
    "by a worker": (noisy_task, {"loader": {"workers": 1, "start_method": "fork"}}),
    "bf16": (noisy_task, {"precision": {"dtype": "bf16"}}),
    "frozen": (noisy_task, {"train": {"freeze": ["first.*"]}}),
    "sequences": (sequence_task, {}),
    "in order of length": (lambda: sequence_task(**LENGTHS), {}),
    "bucketed, of its own lengths": (lambda: sequence_task(**LENGTHS), {"batch": PLANNED}),
    "bucketed": (lambda: noisy_task(40, length=lambda i: float(i % 9 + 1)), {"batch": PLANNED}),
}


def again(plan, task, folder, which, **more):
    path = trained.checkpoint_of(folder, which)
    loaded = trained.load(plan, task, path, task_file=folder / "task.py", folder=folder, **more)
    assert not loaded.model.training
    try:
        return loaded, evaluate(loaded, Stop())
    finally:
        loaded.feed.close()


@pytest.mark.parametrize("case", CASES)
def test_the_figures_of_the_best_and_of_the_last_checkpoint_are_those_of_the_run(case, tmp_path):
    make, changes = CASES[case]
    plan = make_plan(**changes)
    events = [*train(plan, make(), tmp_path, task_file=tmp_path / "task.py")]
    told = {event.step: event for event in events if isinstance(event, Evaluated)}
    for which in ("best", "latest"):
        loaded, figures = again(plan, make(), tmp_path, which)
        event = told[loaded.step]
        assert (figures.loss, figures.metrics) == (event.loss, event.metrics)
        assert loaded.averaged == (case == "averaged")


def test_a_wish_to_stop_is_heard(tmp_path):
    plan = make_plan(train={"epochs": 1})
    assert [*train(plan, noisy_task(), tmp_path, task_file=tmp_path / "task.py")]
    path = trained.checkpoint_of(tmp_path, "latest")
    loaded = trained.load(plan, noisy_task(), path, task_file=tmp_path, folder=tmp_path)
    stop = Stop()
    stop.reason = "interrupted"
    assert evaluate(loaded, stop) is None


def test_each_micro_batch_is_handed_on_once_it_is_counted(tmp_path):
    plan = make_plan(train={"epochs": 1})
    assert [*train(plan, noisy_task(), tmp_path, task_file=tmp_path / "task.py")]
    path = trained.checkpoint_of(tmp_path, "latest")
    loaded = trained.load(plan, noisy_task(), path, task_file=tmp_path, folder=tmp_path)
    seen = []
    evaluate(loaded, Stop(), lambda batch: seen.append(len(batch[1])))
    assert sum(seen) == loaded.count == 9


def test_weights_of_another_model_are_refused_by_name(tmp_path):
    plan = make_plan(train={"epochs": 1})
    assert [*train(plan, noisy_task(), tmp_path, task_file=tmp_path / "task.py")]
    with pytest.raises(AutotrainError, match="of another model") as caught:
        again(plan, sequence_task(), tmp_path, "latest")
    assert "step-00000005" in caught.value.message
    assert "code or options have changed" in caught.value.hint
