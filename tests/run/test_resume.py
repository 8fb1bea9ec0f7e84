"""Stopped anywhere and resumed: the run goes the way it would have gone, to the bit."""

import dataclasses
import json
import os
import random
import shutil

import numpy
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from autotrain.errors import AutotrainError
from autotrain.optimizer import OPTIMIZERS, build
from autotrain.run.keeping import checkpoint, tensorfile
from autotrain.run.keeping.tensors import flatten_optimizer, restore_optimizer
from autotrain.run.loop import train
from autotrain.run.signals import Stop
from autotrain.schema import OptimizerSection

from .faulty import digest, regression
from .plans import make_plan
from .tasks import noisy_task, sequence_task

# What makes a resume hard, all at once: dropout, BatchNorm, augmentation, a ragged last window,
# accumulation, plateau, patience, log points that fall across epochs.
HARD = {
    "batch": {"micro_batch": 3, "accum_steps": 3, "global_batch": 8},
    "schedule": {"name": "plateau", "warmup_steps": 3, "factor": 0.5, "patience": 0},
    "early_stop": {"patience": 3, "min_delta": 0.001},
    "run": {"log_every_steps": 3},
    "train": {"epochs": 4},
    "evaluate": {"every_epochs": 1, "every_steps": 4},
}
MICRO_BATCHES = 4 * (4 * 3 + 2)
FIGURES = {
    "step": ["step", "loss", "parts", "lr", "grad_norm", "samples", "weight"],
    "evaluated": ["step", "loss", "metrics", "best", "bad_evaluations"],
}


def run(plan, task, directory, **more):
    return list(train(plan, task, directory, task_file=directory / "task.py", **more))


def interrupted_after(task, count, stop):
    """The same task, with a ^C during the count-th training micro-batch from here."""
    calls = []

    def loss(model, batch):
        calls.append(model.training)
        if calls.count(True) == count:
            stop.reason = "interrupted"
        return task.loss(model, batch)

    return dataclasses.replace(task, loss=loss)


def pieces(plan, make_task, directory, counts):
    """A run cut into pieces after so many micro-batches each, then carried to its end."""
    events = []
    for count in counts:
        stop = Stop()
        task = interrupted_after(make_task(), count, stop)
        events += run(plan, task, directory, resume=bool(events), stop=stop)
        if events[-1].reason != "interrupted":
            return events
    return events + run(plan, make_task(), directory, resume=True)


def figures(events):
    """What was logged, by kind and step, without clocks and memory.

    A second interrupt before the next step repeats a log point, with the same figures.
    """
    found = {}
    for event in events:
        if event.name in FIGURES:
            said = tuple(getattr(event, key) for key in FIGURES[event.name])
            assert found.setdefault((event.name, event.step), said) == said
    return found


def digests(directory):
    path, _ = checkpoint.newest_good(directory)
    return {n: (path / n).read_bytes() for n in ("model.safetensors", "optimizer.safetensors")}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    directory = tmp_path_factory.mktemp("whole")
    events = run(make_plan(**HARD), noisy_task(), directory)
    return figures(events), digests(directory)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(counts=st.lists(st.integers(1, MICRO_BATCHES), min_size=1, max_size=3))
def test_interrupts_change_nothing(uninterrupted, tmp_path_factory, counts):
    """Between any micro-batches, also several times in one epoch: same weights, same log."""
    directory = tmp_path_factory.mktemp("cut")
    events = pieces(make_plan(**HARD), noisy_task, directory, counts)
    assert (figures(events), digests(directory)) == uninterrupted


@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_changes_nothing(uninterrupted, tmp_path, workers):
    """Interrupted in mid-window too."""
    plan = make_plan(**HARD, loader={"workers": workers})
    events = pieces(plan, noisy_task, tmp_path, [20])
    assert (figures(events), digests(tmp_path)) == uninterrupted


@pytest.mark.parametrize("steps", [1, 7, 8, 10, 12])
def test_max_steps_and_a_resume_equal_one_run(uninterrupted, tmp_path, steps):
    """The evaluation at an unplanned end is shown, and not counted on the way on."""
    plan = make_plan(**HARD)
    first = run(plan, noisy_task(), tmp_path, max_steps=steps)
    assert (first[-1].reason, first[-1].step) == ("max_steps", steps)
    assert [e.step for e in first if e.name == "evaluated"][-1] == steps
    run(plan, noisy_task(), tmp_path, resume=True)
    assert digests(tmp_path) == uninterrupted[1]


def test_bucketed_sequences_resume_to_the_bit(tmp_path):
    """Order by length, tensor weights, a measure to monitor."""
    data = sequence_task().train
    changes = {"length": lambda i: len(data.frames[i]), "monitor": "near", "better": "higher"}
    plan = make_plan(batch={"micro_batch": 3})
    whole = run(plan, sequence_task(**changes), tmp_path / "whole")
    cut = pieces(plan, lambda: sequence_task(**changes), tmp_path / "cut", [8, 11])
    assert figures(cut) == figures(whole)
    assert digests(tmp_path / "cut") == digests(tmp_path / "whole")


def test_a_loss_scaler_goes_on_where_it_was(tmp_path):
    """fp16: an overflow in the first steps halves the scale, which the resume must know."""
    plan = make_plan(precision={"dtype": "fp16"})

    def task():
        made = noisy_task()

        def loss(model, batch):
            found = made.loss(model, batch)
            return dataclasses.replace(found, total=found.total * 3e3, weight=found.weight)

        return dataclasses.replace(made, loss=loss)

    run(plan, task(), tmp_path / "whole")
    pieces(plan, task, tmp_path / "cut", [9, 4])
    assert digests(tmp_path / "cut") == digests(tmp_path / "whole")
    path, _ = checkpoint.newest_good(tmp_path / "cut")
    assert checkpoint.load(path).state["scaler"]["scale"] < 2**16


def test_an_interrupt_during_an_evaluation_leaves_it_to_the_resume(tmp_path):
    """It is made once, after the resume, and the run is the same."""
    plan, stop, task = make_plan(), Stop(), noisy_task()

    def measure(model, batch):
        stop.reason = "terminated"
        return task.measure(model, batch)

    first = run(plan, dataclasses.replace(task, measure=measure), tmp_path / "cut", stop=stop)
    assert (first[-1].reason, first[-1].step) == ("terminated", 5)
    rest = run(plan, noisy_task(), tmp_path / "cut", resume=True)
    assert figures(first + rest) == figures(run(plan, noisy_task(), tmp_path / "whole"))


def test_a_torn_checkpoint_is_passed_over_and_named(tmp_path):
    """The one before it is used, and the end is the same."""
    plan = make_plan()
    run(plan, noisy_task(), tmp_path / "whole")
    run(plan, noisy_task(), tmp_path / "torn", max_steps=10)
    file = checkpoint.folder(tmp_path / "torn", 10) / "optimizer.safetensors"
    os.truncate(file, 100)
    events = run(plan, noisy_task(), tmp_path / "torn", resume=True)
    assert events[0].resumed_from.endswith("step-00000005")
    assert "step-00000010/optimizer.safetensors" in events[1].message
    assert digests(tmp_path / "torn") == digests(tmp_path / "whole")


def test_what_is_passed_over_is_set_aside_and_not_deleted(tmp_path):
    """Somebody may still want the weights of it."""
    plan = make_plan(checkpoint={"keep": 1})
    run(plan, noisy_task(), tmp_path, max_steps=5)
    held = checkpoint.folder(tmp_path, 5)
    shutil.copytree(held, held.with_name("step-00000007"))
    events = run(plan, noisy_task(), tmp_path, resume=True)
    place = checkpoint.checkpoints(tmp_path) / "aside-1"
    assert f"(kept in {place})" in events[1].message
    assert [e.name for e in place.iterdir()] == ["step-00000007"]
    assert events[-1].reason == "finished"


@pytest.mark.parametrize("how", ["torn", "closed", "newer"])
def test_where_no_checkpoint_can_be_read_nothing_begins_anew(tmp_path, how):
    """What a run that began anew saved would in time delete them."""
    plan = make_plan(checkpoint={"keep": 9})
    run(plan, noisy_task(), tmp_path, max_steps=10)
    steps = checkpoint.steps(tmp_path)
    for step in steps:
        manifest = checkpoint.folder(tmp_path, step) / checkpoint.MANIFEST
        if how == "torn":
            os.truncate(manifest, 10)
        elif how == "newer":
            manifest.write_text(manifest.read_text().replace('"schema": 1', '"schema": 2'))
        else:
            manifest.unlink()
            manifest.mkdir()  # no one can read that either, be it root
    with pytest.raises(
        AutotrainError, match=r"none of \d checkpoints can be read: .*manifest.json"
    ):
        run(plan, noisy_task(), tmp_path, resume=True)
    assert checkpoint.steps(tmp_path) == steps


def test_state_that_no_checkpoint_can_hold_is_refused_before_the_first_step(tmp_path):
    """Not at the first save, nor at the last."""

    def with_state(add):
        task = noisy_task()

        def model():
            made = task.model()
            add(made)
            return made

        return dataclasses.replace(task, model=model)

    def no_step(model, batch):
        pytest.fail("a step was taken")

    for add, says in (
        (lambda m: m.register_buffer("phases", torch.zeros(2, dtype=torch.complex128)), "phases"),
        (lambda m: m.register_buffer("few", torch.zeros(2, 2).to_sparse()), "few"),
        (lambda m: setattr(type(m), "get_extra_state", lambda _: b"raw"), "_extra_state: a bytes"),
    ):

        class Own(type(noisy_task().model())):
            pass

        task = with_state(lambda m, add=add: (setattr(m, "__class__", Own), add(m)))
        with pytest.raises(AutotrainError, match=says):
            run(make_plan(), dataclasses.replace(task, loss=no_step), tmp_path / says[:3])


def test_what_was_made_elsewhere_is_told_to_go_on_but_for_rounding(tmp_path):
    """Another torch or another number of threads; nothing is told where all is as before."""
    plan = make_plan()
    run(plan, noisy_task(), tmp_path, max_steps=5)

    def older(path):
        path.write_text(path.read_text().replace(f'"torch": "{torch.__version__}"', '"torch": "1"'))

    rewritten(tmp_path, "state.json", older)
    told = run(plan, noisy_task(), tmp_path, resume=True, max_steps=10)[1]
    assert told.message.startswith(f"torch was 1 and is {torch.__version__}: from here on")
    assert told.message.endswith("but for rounding")
    events = run(plan, noisy_task(), tmp_path, resume=True, max_steps=12)
    assert "warned" not in [event.name for event in events]
    more = make_plan(device={"threads": 2})
    told = run(more, noisy_task(), tmp_path, resume=True)[1]
    assert told.message.startswith("device.threads was 1 and is 2: ")


def test_nothing_to_resume_starts_from_the_beginning_and_says_so(tmp_path):
    """Also where the folder does not exist."""
    events = run(make_plan(train={"epochs": 1}), noisy_task(), tmp_path / "new", resume=True)
    assert (events[0].name, events[0].resumed_from) == ("started", None)
    assert "starting from the beginning" in events[1].message
    assert events[-1].reason == "finished"


@pytest.mark.parametrize("max_steps", [None, 3, 5])
def test_a_run_at_or_past_its_end_stops_at_once(tmp_path, max_steps):
    """Nothing is evaluated or saved again."""
    plan = make_plan(train={"epochs": 1})
    run(plan, noisy_task(), tmp_path)
    events = run(plan, noisy_task(), tmp_path, resume=True, max_steps=max_steps)
    assert [event.name for event in events] == ["started", "stopped"]
    assert events[-1].reason == "finished"


def test_max_steps_that_were_reached_before_stop_at_once(tmp_path):
    """Off the cadence too: the figures of the unplanned end are not made again."""
    run(make_plan(), noisy_task(), tmp_path, max_steps=3)
    events = run(make_plan(), noisy_task(), tmp_path, resume=True, max_steps=3)
    assert [event.name for event in events] == ["started", "stopped"]
    assert (events[-1].reason, events[-1].step) == ("max_steps", 3)


def test_what_a_killed_run_left_half_written_is_removed(tmp_path):
    """Before the first step, under the lock."""
    rubbish = checkpoint.checkpoints(tmp_path) / ".step-00000005.123"
    rubbish.mkdir(parents=True)
    next(train(make_plan(), noisy_task(), tmp_path, task_file=tmp_path))
    assert not rubbish.exists()


def test_more_epochs_may_be_added(tmp_path):
    """The plan on disk decides how far a run goes."""
    run(make_plan(train={"epochs": 1}), noisy_task(), tmp_path)
    events = run(make_plan(train={"epochs": 2}), noisy_task(), tmp_path, resume=True)
    assert (events[0].step, events[-1].step, events[-1].reason) == (5, 10, "finished")


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [("run", "seed", 8), ("batch", "global_batch", 4), ("optimizer", "name", "sgd")],
)
def test_what_must_not_change_is_refused_by_name(tmp_path, section, key, value):
    """Another order of the data, another batch or another optimizer is another run."""
    run(make_plan(), noisy_task(), tmp_path, max_steps=1)
    with pytest.raises(AutotrainError, match=rf"{section}\.{key} = \w+ became {value}"):
        run(make_plan(**{section: {key: value}}), noisy_task(), tmp_path, resume=True)


def test_a_finer_cut_may_be_resumed_with(tmp_path):
    """micro_batch is memory, not mathematics: without BatchNorm the end is the same."""
    ends = []
    for micro in (4, 2):
        directory = tmp_path / str(micro)
        run(make_plan(), sequence_task(), directory, max_steps=5)
        run(make_plan(batch={"micro_batch": micro}), sequence_task(), directory, resume=True)
        path, _ = checkpoint.newest_good(directory)
        ends.append(checkpoint.load(path).model.tensors)
    for name, value in ends[0].items():
        torch.testing.assert_close(value, ends[1][name], rtol=1e-9, atol=1e-9)


class Late(nn.Module):
    """Draws from one of the generators from the `at`-th micro-batch of training on."""

    def __init__(self, at, draw):
        super().__init__()
        self.at, self.draw = at, draw
        self.net = nn.Linear(8, 1)
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))

    def forward(self, x):
        if self.training:
            self.seen += 1
            if self.seen >= self.at:
                x = x * (0.5 + self.draw())
        return self.net(x)


DRAWS = [lambda: torch.rand(8), random.random, lambda: float(numpy.random.rand())]


@settings(max_examples=12, deadline=None)
@given(
    at=st.integers(16, 40), after=st.integers(-3, 6), again=st.integers(1, 9),
    asked=st.sets(st.integers(17, 44), max_size=3), draw=st.sampled_from(DRAWS),
)  # fmt: skip
@example(at=19, after=2, again=9, asked=set(), draw=DRAWS[0])
def test_a_model_that_begins_to_draw_late_is_resumed_to_the_bit(
    tmp_path_factory, at, after, again, asked, draw
):
    """Stopped within any step, and saved after any: a save is no part of what is learned."""
    plan = make_plan(
        batch={"micro_batch": 4, "accum_steps": 2, "global_batch": 8},
        train={"epochs": 3}, run={"log_every_steps": 3}, evaluate={"every_epochs": None},
        checkpoint={"every_epochs": None, "keep": 9}, schedule={"warmup_steps": 0},
    )  # fmt: skip
    calls, stop = [], Stop()

    def late():
        return regression(lambda: Late(at, draw), valid=4)

    def loss(model, batch):
        calls.append(model.training)
        stop.save = calls.count(True) in asked
        return late().loss(model, batch)

    directory = tmp_path_factory.mktemp("late")
    run(plan, late(), directory / "whole")
    run(plan, dataclasses.replace(late(), loss=loss), directory / "asked", stop=stop)
    pieces(plan, late, directory / "cut", [at + after, again])
    assert len({digest(directory / name) for name in ("whole", "asked", "cut")}) == 1


RESTING = {key: dict.fromkeys(("torch", "python", "numpy"), value)
           for key, value in (("drawn", False), ("quiet", 3))}  # fmt: skip


def rewritten(directory, name, change):
    """The newest checkpoint with another content, and a manifest that says so."""
    path, _ = checkpoint.newest_good(directory)
    change(path / name)
    manifest = json.loads((path / checkpoint.MANIFEST).read_text())
    manifest["files"][name] = dataclasses.asdict(tensorfile.digest(path / name))
    (path / checkpoint.MANIFEST).write_text(json.dumps(manifest, indent=1))


@pytest.mark.parametrize(("key", "value", "says"), [
    ("meter", {}, "meter.sums: Field required"), ("rollbacks", "3", "rollbacks: Input should be"),
    ("rollbacks", -1, "rollbacks: Input should be greater"), ("best", "low", "best: Input should"),
    ("history", {"losses": ["x"]}, r"history.losses.0: Input"), ("draws", None, "draws: Input"),
    ("draws", {"drawn": {"os": True}, "quiet": {}}, "draws.drawn.os"), ("guard", 3, "guard: Input"),
    ("draws", {**RESTING, "last": {"numpy": 1}, "states": {"numpy": ["00" * 2496, 1 << 20, 0, 0]}},
     "draws: place 1048576 among 624"),
    ("draws", {**RESTING, "last": {"torch": 1}, "states": {"torch": ["ff" * 5056]}}, "draws: Inv"),
    ("draws", {**RESTING, "last": {"python": 1}, "states": {"python": [3, "00", None]}}, "draws: "),
    ("bad_samples", [[True, 1]], "bad_samples.0"), ("schedule", {"best": 1}, "schedule.bad: Field"),
    ("scaler", {"scale": "x"}, "scaler.scale"), ("averaged", 0.5, "averaged: Input"),
])  # fmt: skip
def test_where_a_run_stands_is_a_strangers_too(tmp_path, key, value, says):
    """Every field is what a run writes there, or one line names checkpoint, file and field."""
    plan = make_plan(train={"epochs": 1})
    run(plan, noisy_task(), tmp_path, max_steps=1)

    def change(path):
        state = json.loads(path.read_text())
        state["run"][key] = value
        path.write_text(json.dumps(state))

    rewritten(tmp_path, "state.json", change)
    with pytest.raises(AutotrainError, match=rf"^step-00000001/state.json: .*{says}"):
        run(plan, noisy_task(), tmp_path, resume=True)


@pytest.mark.parametrize(("key", "value"), [
    ("0.exp_avg", torch.zeros(1)), ("0.exp_avg", torch.zeros(2, 2, 2)), ("0.step", torch.zeros(2)),
    ("0.step", torch.tensor(-1.0)), ("0.step", torch.tensor(float("nan"))),
    ("0.exp_avg_sq", None), ("99.exp_avg", torch.zeros(1)), ("x.exp_avg", torch.zeros(1)),
    ("0.more", torch.zeros(1)), ("0.step", torch.tensor(1)),
])  # fmt: skip
def test_what_an_optimizer_keeps_is_as_large_as_its_parameters(tmp_path, key, value):
    """Kernels that are fused walk through both by address, and would leave the memory."""
    plan = make_plan(train={"epochs": 1}, optimizer={"implementation": "fused"})
    run(plan, noisy_task(), tmp_path, max_steps=1)

    def change(path):
        held = load_file(path)
        held.pop(key, None)
        save_file(held if value is None else {**held, key: value}, path)

    rewritten(tmp_path, "optimizer.safetensors", change)
    with pytest.raises(AutotrainError, match=r"^step-00000001: .*optimizer"):
        run(plan, noisy_task(), tmp_path, resume=True)


@pytest.mark.parametrize("implementation", ["fused", "foreach", "for-loop"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_each_optimizer_keeps_is_taken_back(name, implementation):
    """Before its first step, after it, and after another one."""
    section = OptimizerSection(
        name=name, lr=0.01, weight_decay=0.01, momentum=0.9, implementation=implementation
    )
    model, other = nn.Linear(3, 2), nn.Linear(3, 2)
    try:
        optimizer, fresh = build(section, model), build(section, other)
    except AutotrainError:
        pytest.skip("torch has no such implementation")
    for _ in range(3):
        kept = flatten_optimizer(optimizer, [*model.parameters()])
        restore_optimizer(fresh, [*other.parameters()], kept)
        back = flatten_optimizer(fresh, [*other.parameters()])
        assert kept.tensors.keys() == back.tensors.keys()
        assert all(torch.equal(kept.tensors[key], back.tensors[key]) for key in kept.tensors)
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
