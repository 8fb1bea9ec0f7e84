"""Tracing a step without running it: against the same step run for real, and torch's allocator."""

import bisect
import dataclasses
import random

import numpy as np
import pytest
import torch
from steps import HERE, NEED_DATA, TASKS, Rows, classifier, cnn, mlp, opened
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from autotrain import Loss, Task
from autotrain.errors import AutotrainError
from autotrain.probe import model as tracing
from autotrain.probe.model import ModelTracer

FIGURES = ("peak_bytes", "accumulate_peak_bytes", "evaluate_peak_bytes", "batch_bytes")
WORK = ("matmul_flops", "convolution_flops")


@pytest.fixture
def _tensors_alone(monkeypatch):
    """Bytes used inside operators are measured, and not counted again for a step run for real."""
    monkeypatch.setattr(tracing, "runs_here", lambda _: False)


def for_real(task) -> ModelTracer:
    tracer = opened(task)
    tracer.mode, tracer.model = None, task.model()
    return tracer


@pytest.mark.usefixtures("_tensors_alone")
@pytest.mark.parametrize("name", TASKS)
def test_a_fake_step_counts_what_the_same_step_counts_for_real(name):
    fake, real = opened(TASKS[name]()), for_real(TASKS[name]())
    for micro in (2, 5):
        said, counted = fake.trace(micro), real.trace(micro)
        # oneDNN rounds its LSTM workspace to whole pages, which the rule does not follow.
        close = 0.02 if name == "lstm" else 0.0
        for figure in FIGURES:
            assert getattr(said, figure) == pytest.approx(getattr(counted, figure), rel=close)
        for figure in WORK:
            assert getattr(said, figure) == getattr(counted, figure)
        assert said.ops == pytest.approx(counted.ops, rel=0.25)
    assert fake.profile().traced == "fake"
    assert real.profile().traced == "concrete"


@pytest.mark.usefixtures("_tensors_alone")
def test_bf16_is_counted_as_the_real_step_counts_it():
    fake, real = opened(TASKS["mlp"]()), for_real(TASKS["mlp"]())
    assert fake.trace(64, "bf16").peak_bytes == real.trace(64, "bf16").peak_bytes
    # Activations halve; at 64 samples the cast copies of the weights outweigh them.
    assert fake.trace(4096, "bf16").peak_bytes < fake.trace(4096, "fp32").peak_bytes


# Bytes that oneDNN uses inside its LSTM are not seen yet: a known limit, issue 3.
ALLOCATOR = {
    "mlp": 0.02, "cnn": 0.03, "tied transformer": 0.03, "ctc": 0.03, "lstm": 0.20,
}  # fmt: skip


@pytest.mark.parametrize("name", ALLOCATOR)
def test_a_trace_is_near_what_torchs_allocator_really_hands_out(name):
    task, micro = TASKS[name](), 16
    said = opened(task).trace(micro).peak_bytes
    measured = allocator_peak(task, micro)
    print(f"{name}: traced {said}, allocated {measured}, {said / measured - 1:+.1%}")
    assert said == pytest.approx(measured, rel=ALLOCATOR[name])


def allocator_peak(task, micro):
    """Peak of parameters, buffers, batch and all that a first step allocates, in bytes."""
    from torch.profiler import ProfilerActivity, profile

    torch.manual_seed(0)
    model = task.model().train()
    batch = torch.utils.data.default_collate([task.train[i] for i in range(micro)])
    held = {*model.parameters(), *model.buffers(), *batch}

    def step():
        loss = task.loss(model, batch)
        (loss.total / loss.weight).backward()

    step()
    model.zero_grad(set_to_none=True)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as record:
        step()
    resident = sum(tensor.nbytes for tensor in held)
    now = peak = 0
    for event in record.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return resident + peak


@pytest.mark.parametrize("name", [*TASKS, *NEED_DATA])
def test_what_a_step_takes_is_affine_in_the_batch(name):
    tracer = opened((TASKS | NEED_DATA)[name]())
    # Large enough that activations, not the gradients left at the end, are the peak.
    sizes = (
        (1024, 1536, 2048)
        if name in ("mlp", *NEED_DATA, "reads values when built")
        else (8, 12, 16)
    )
    traces = [tracer.trace(micro) for micro in sizes]
    tolerance = 0.02 if name in NEED_DATA else 0.005
    for figure in (*FIGURES, "matmul_flops"):
        first, middle, last = (getattr(trace, figure) for trace in traces)
        assert middle == pytest.approx((first + last) / 2, rel=tolerance)
    assert traces[0].peak_bytes < traces[-1].peak_bytes


@pytest.mark.parametrize("name", TASKS)
def test_a_later_micro_batch_peaks_no_lower_and_by_no_more_than_the_gradients(name):
    tracer = opened(TASKS[name]())
    trace = tracer.trace(8)
    gradients = tracer.profile().trainable_bytes
    assert trace.peak_bytes <= trace.accumulate_peak_bytes
    assert trace.accumulate_peak_bytes <= trace.peak_bytes + 2 * gradients
    assert trace.evaluate_peak_bytes <= trace.peak_bytes


@pytest.mark.parametrize("name", NEED_DATA)
def test_a_step_that_needs_its_data_is_run_for_real(name):
    tracer = opened(NEED_DATA[name]())
    assert tracer.trace(4).peak_bytes == for_real(NEED_DATA[name]()).trace(4).peak_bytes
    assert tracer.profile().traced == "concrete"


def test_once_one_step_ran_for_real_no_fake_one_is_kept():
    class Sometimes(nn.Linear):
        def forward(self, inputs):
            if len(inputs) > 4 and inputs.mean().item() > 0.5:
                return super().forward(inputs) + super().forward(inputs * 2)
            return super().forward(inputs)

    tracer = opened(classifier(lambda: Sometimes(64, 10), 64))
    tracer.trace(2)
    assert tracer.profile().traced == "fake"
    tracer.traces[0] = tracer.traces[0].model_copy(update={"peak_bytes": 1})
    tracer.trace(8)
    profile = tracer.profile()
    assert profile.traced == "concrete"
    assert [t.micro_batch for t in profile.traces] == [2, 8]
    assert profile.traces[0] == for_real(tracer.task).trace(2)


def test_a_tied_weight_counts_once():
    profile = traced(TASKS["tied transformer"]())
    untied = sum(p.numel() for p in TASKS["tied transformer"]().model().parameters())
    assert profile.parameters == untied
    assert profile.parameter_bytes == 4 * untied


def test_frozen_parts_and_buffers_are_told_apart():
    def frozen():
        model = cnn()
        model[0].requires_grad_(False)
        return model

    profile, whole = traced(classifier(frozen, 3, 16, 16)), traced(TASKS["cnn"]())
    assert profile.parameters == whole.parameters
    assert profile.trainable_bytes == whole.trainable_bytes - (16 * 27 + 16) * 4
    assert profile.buffer_bytes > 0
    assert profile.batch_norm


def traced(task):
    tracer = opened(task)
    tracer.trace(2)
    return tracer.profile()


# --- what tracing leaves behind ------------------------------------------------------------


@pytest.mark.parametrize("name", ["cnn", "item"])
def test_tracing_leaves_the_users_data_and_the_generators_as_they_were(name):
    task = (TASKS | NEED_DATA)[name]()
    inputs = task.train.inputs.clone()
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    tracer = opened(task)
    tracer.trace(4)
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])
    assert type(task.train.inputs) is torch.Tensor
    assert torch.equal(task.train.inputs, inputs)
    assert torch.is_grad_enabled()
    assert torch.get_default_dtype() is torch.float32
    assert not any(isinstance(part, FakeTensor) for sample in tracer.samples for part in sample)


@pytest.mark.parametrize("fallback", [False, True])
def test_a_step_that_changes_its_batch_does_not_change_the_dataset(fallback):
    data = Rows(64)

    def loss(model, batch):
        inputs, labels = batch
        inputs.mul_(0)
        if fallback:
            labels.sum().item()
        return Loss(total=model(inputs).square().sum(), weight=1)

    before = data.inputs.clone()
    whole = Task(model=mlp, train=data, loss=loss, collate=lambda _: (data.inputs, data.labels))
    traced(whole)
    assert torch.equal(data.inputs, before)


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_a_model_object_that_the_task_hands_out_again_stays_real_and_untouched(name):
    made = TASKS[name]()
    model = made.model()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    shared = dataclasses.replace(made, model=lambda: model)
    assert traced(shared).traces[0] == traced(made).traces[0]
    for key, value in model.state_dict().items():
        assert type(value) is torch.Tensor
        assert torch.equal(value, before[key])
    assert all(p.grad is None for p in model.parameters())


# --- samples -------------------------------------------------------------------------------


class Lengths:
    """Sample i is 1 + (7 * i) % 100 frames long."""

    def __len__(self):
        return 100

    def __getitem__(self, index):
        return torch.ones(1 + 7 * index % 100, 4)


def padded_sum(model, batch):
    return Loss(total=model(batch).square().sum(), weight=batch.shape[0])


def test_the_longest_samples_are_traced_where_lengths_are_known():
    pad = nn.utils.rnn.pad_sequence
    known = Task(
        model=lambda: nn.Linear(4, 4),
        train=Lengths(),
        loss=padded_sum,
        length=lambda i: 7 * i % 100,
        collate=lambda rows: pad(rows, batch_first=True),
    )
    tracer = opened(known)
    assert sorted(len(sample) for sample in tracer.samples) == list(range(93, 101))
    assert tracer.trace(1).batch_bytes == 100 * 4 * 4
    assert tracer.trace(20).batch_bytes == 20 * 100 * 4 * 4


def test_a_micro_batch_may_be_larger_than_the_dataset():
    assert opened(classifier(mlp, 64, count=3)).trace(50).batch_bytes == 50 * (64 * 4 + 8)


# --- what cannot be traced -----------------------------------------------------------------


def refused(task, micro=2) -> str:
    with pytest.raises(AutotrainError) as caught:
        opened(task).trace(micro)
    assert caught.value.exit_code == 1
    assert caught.value.hint
    return caught.value.message


def with_loss(loss, data=None, **more):
    return Task(model=mlp, train=data or Rows(64), loss=loss, **more)


def line_of(text):
    lines = HERE.with_name("test_model.py").read_text().splitlines()
    return 1 + next(i for i, line in enumerate(lines) if text in line)


def test_a_loss_without_a_gradient_is_named():
    said = refused(with_loss(lambda m, b: Loss(total=m(b[0]).detach().sum(), weight=1)))
    assert "the loss has no gradient" in said


def test_a_loss_that_is_no_loss_is_named():
    assert "the loss returned Tensor, not autotrain.Loss" in refused(
        with_loss(lambda m, b: m(b[0]).sum())
    )
    assert "the loss returned NoneType" in refused(with_loss(lambda m, b: None))


@pytest.mark.parametrize("total", [lambda out: out, lambda out: 3.0])
def test_a_total_that_is_not_one_number_is_named(total):
    task = with_loss(lambda m, b: Loss(total=total(m(b[0])), weight=1))
    assert "not a tensor of one number" in refused(task)


def test_an_empty_dataset_and_one_without_a_length_are_named():
    assert "the training dataset is empty" in refused(classifier(mlp, 64, count=0))
    stream = with_loss(padded_sum, data=iter([1, 2]))
    assert "the training dataset has no length" in refused(stream)
    with pytest.raises(AutotrainError, match="the validation dataset has no length"):
        traced(Task(model=mlp, train=Rows(64), valid=iter([1]), loss=TASKS["mlp"]().loss))


def test_a_collate_that_refuses_names_its_line():
    def collate(rows):
        raise ValueError("no such batch")  # collate line

    said = refused(with_loss(padded_sum, collate=collate))
    assert f"test_model.py:{line_of('# collate line')}: the collate refuses a batch" in said
    assert "ValueError: no such batch" in said


def test_a_sample_that_cannot_be_loaded_names_its_line():
    class Broken(Rows):
        def __getitem__(self, index):
            raise OSError("disk on fire")  # sample line

    said = refused(with_loss(padded_sum, data=Broken(64)))
    assert f"test_model.py:{line_of('# sample line')}: loading a sample: OSError" in said


def test_an_error_in_forward_names_the_operator_and_the_users_line():
    class Wrong(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(32, 10)

        def forward(self, inputs):
            return self.layer(inputs)  # forward line

    said = refused(classifier(Wrong, 64))
    assert f"test_model.py:{line_of('# forward line')}: in aten." in said
    assert "shapes cannot be multiplied" in said


def test_an_error_between_operators_names_none():
    """torch's own check of a BatchNorm is no fault of what ran before it."""
    one = Task.classification(
        model=lambda: nn.Sequential(nn.Linear(64, 8), nn.BatchNorm1d(8)), train=Rows(64)
    )
    with pytest.raises(AutotrainError) as caught:
        opened(one).trace(1)
    assert "more than 1 value per channel" in caught.value.message
    assert "aten." not in caught.value.message


def force(model, batch, allowed):
    """A loss of a gradient, as of a force field or a penalty."""
    inputs = batch[0].requires_grad_()
    with torch.set_grad_enabled(allowed or torch.is_grad_enabled()):
        energy = model(inputs).square().sum()
        (slope,) = torch.autograd.grad(energy, inputs, create_graph=True)
    return Loss(total=slope.square().sum(), weight=len(inputs))


@pytest.mark.parametrize("allowed", [False, True])
def test_a_loss_that_needs_gradients_in_validation_is_told_how_to_have_them(allowed):
    task = Task(model=mlp, train=Rows(64), loss=lambda *given: force(*given, allowed))
    if allowed:
        assert opened(task).trace(4).evaluate_peak_bytes
        return
    with pytest.raises(AutotrainError, match="validating, without gradients: ") as caught:
        opened(task).trace(4)
    assert "torch.enable_grad()" in caught.value.hint


def test_a_model_that_is_no_function_is_named():
    task = Task.classification(model=nn.Linear(64, 10), train=Rows(64))
    with pytest.raises(AutotrainError, match="is a Linear, not a function") as caught:
        opened(task)
    assert "model=lambda: Linear(...)" in caught.value.hint


def test_an_error_while_building_names_the_users_line():
    def build():
        raise RuntimeError("no weights")  # build line

    said = refused(classifier(build, 64))
    assert f"test_model.py:{line_of('# build line')}: building the model: RuntimeError" in said


def test_a_model_that_is_none_or_cannot_learn_is_named():
    assert "the model is str, not torch.nn.Module" in refused(classifier(lambda: "net", 64))
    frozen = classifier(lambda: mlp().requires_grad_(False), 64)
    assert "no trainable parameter" in refused(frozen)


@pytest.mark.parametrize("name", [*TASKS, *NEED_DATA])
def test_the_tape_tells_the_same_story_as_the_peaks(name):
    trace = traced({**TASKS, **NEED_DATA}[name]()).traces[0]
    live, sizes, peaks = 0, [], [0] * 5
    for place, event in enumerate(trace.tape):
        if event > 0:
            sizes.append(event)
        live += event if event > 0 else -sizes[-1 - event]
        phase = bisect.bisect_right(trace.marks, place)
        peaks[phase] = max(peaks[phase], live)
    assert peaks[1] - peaks[0] == trace.batch_bytes
    assert peaks[2:] == [trace.peak_bytes, trace.accumulate_peak_bytes, trace.evaluate_peak_bytes]


def test_layers_without_sizes_are_named_and_those_that_got_theirs_are_traced():
    def lazy():
        return nn.Sequential(nn.LazyLinear(16), nn.ReLU(), nn.Linear(16, 10))

    with pytest.raises(AutotrainError, match="LazyLinear 0 of the model has no sizes yet"):
        opened(classifier(lazy, 64))

    def called():
        model = lazy()
        model(torch.zeros(1, 64))
        return model

    assert opened(classifier(called, 64)).trace(2).peak_bytes > 0


def test_an_lstms_workspace_is_mostly_never_written_to():
    trace = opened(TASKS["lstm"]()).trace(4)
    largest = sorted(size for size in trace.tape[: trace.marks[2]] if size > 0)[-2:]  # two layers
    assert 0.5 * sum(largest) < trace.untouched_bytes < 0.7 * sum(largest)
    assert opened(TASKS["mlp"]()).trace(4).untouched_bytes == 0
