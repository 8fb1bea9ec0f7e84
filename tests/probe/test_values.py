"""What a fake step knows: integers keep their values, unknown shapes are bounded, answers tried."""

import dataclasses

import pytest
import torch
from steps import HERE, Rows, classifier, mlp, opened
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, rnn
from torch.utils.checkpoint import checkpoint

from autotrain import Loss, Task
from autotrain.errors import AutotrainError
from autotrain.probe import model as tracing
from autotrain.probe.trace import building, values

FIGURES = ("peak_bytes", "accumulate_peak_bytes", "evaluate_peak_bytes", "batch_bytes")


@pytest.fixture(autouse=True)
def _tensors_alone(monkeypatch):
    """Bytes used inside operators are another file's matter."""
    monkeypatch.setattr(tracing, "runs_here", lambda _: False)


class Clips:
    """Sample i is 10 + 5 * (i % 8) frames of 16 numbers, and as many class indices."""

    def __len__(self):
        return 64

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        count = 10 + 5 * (index % 8)
        frames = torch.randn(count, 16, generator=generator)
        return frames, torch.randint(8, (count,), generator=generator)


def padded(samples):
    frames, classes = zip(*samples, strict=True)
    lengths = torch.tensor([len(each) for each in frames])
    pad = rnn.pad_sequence
    return pad(frames, batch_first=True), pad(classes, batch_first=True), lengths


def clips(forward, make=lambda: nn.Linear(16, 8)):
    """A task whose loss is `forward(model, frames, classes, lengths)`."""

    def loss(model, batch):
        return Loss(total=forward(model, *batch).sum(), weight=len(batch[0]))

    return Task(model=make, train=Clips(), loss=loss, collate=padded)


def line_of(text):
    lines = HERE.with_name("test_values.py").read_text().splitlines()
    return 1 + next(i for i, line in enumerate(lines) if text in line)


# --- what is known is exact ----------------------------------------------------------------


def mask_of(frames, lengths):
    return torch.arange(frames.shape[1])[None, :] < lengths[:, None]


def of_true_frames(model, frames, classes, lengths):
    mask = mask_of(frames, lengths)
    return functional.cross_entropy(model(frames[mask]), classes[mask], reduction="sum")


def by_numbers(model, frames, classes, lengths):
    longest = int(lengths.max()) - 3
    parts = [model(frames[i, : lengths[i].item()]) for i in range(len(frames))]
    return torch.stack([part.mean() for part in parts]) + model(frames[:, :longest]).mean()


def by_float(model, frames, classes, lengths):
    half = (lengths.float() / 2).round().long()
    return model(torch.cat([f[: int(n)] for f, n in zip(frames, half, strict=True)]))


def repeated(model, frames, classes, lengths):
    rows = torch.repeat_interleave(frames[:, 0], lengths, dim=0)
    counts = torch.bincount(classes.flatten(), minlength=8)
    return model(rows).mean(0) * counts


def flagged(model, frames, classes, lengths):
    kept = torch.zeros_like(frames[:, :, 0], dtype=torch.bool)
    kept[:, ::2] = True
    return model(frames[kept])


def looked_up(model, frames, classes, lengths):
    found, places = torch.unique(classes, return_inverse=True)
    return model(frames.flatten(0, 1)[: len(found)]) * places.max()


class Packed(nn.Module):
    def __init__(self, kind=nn.LSTM):
        super().__init__()
        self.layers = kind(16, 24, 2, batch_first=True, bidirectional=True)

    def forward(self, frames, lengths):
        packed = rnn.pack_padded_sequence(frames, lengths, batch_first=True, enforce_sorted=False)
        return rnn.pad_packed_sequence(self.layers(packed)[0], batch_first=True)[0]


def recurrent(model, frames, classes, lengths):
    return model(frames, lengths)


EXACT = {
    "boolean mask of lengths": (of_true_frames,),
    "item": (by_numbers,),
    "lengths as floats": (by_float,),
    "repeats": (repeated,),
    "flags": (flagged,),
    "unique": (looked_up,),
    "packed lstm": (recurrent, Packed),
    "packed gru": (recurrent, lambda: Packed(nn.GRU)),
}


@pytest.mark.parametrize("name", EXACT)
def test_what_follows_from_integers_is_exact(name):
    check_exact(clips(*EXACT[name]), (3, 6))


def check_exact(task, sizes=(4,), figures=FIGURES):
    tracer = opened(task)
    said = [tracer.trace(size) for size in sizes]
    assert tracer.profile().traced == "fake"
    tracer.mode, tracer.model = None, task.model()
    for trace in said:
        real = tracer.trace(trace.micro_batch)
        for figure in (*figures, "matmul_flops"):
            # A mean's scale, 4 bytes, is a tensor to complex numbers only.
            assert getattr(trace, figure) == pytest.approx(getattr(real, figure), rel=1e-4)


class Checkpointed(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        self.reentrant = reentrant
        self.first = nn.Linear(64, 64)
        self.inner = nn.Sequential(nn.Linear(64, 512), nn.Dropout(0.1), nn.Linear(512, 64))
        self.head = nn.Linear(64, 10)

    def forward(self, inputs):
        out = checkpoint(self.inner, self.first(inputs), use_reentrant=self.reentrant)
        return self.head(out)


class Spectrogram(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("window", torch.hann_window(32), persistent=False)
        self.head = nn.Linear(17, 10)

    def forward(self, waves):
        spectrum = torch.stft(waves, 32, window=self.window, return_complex=True)
        return self.head(spectrum.abs().mean(-1))


class Indexed(nn.Module):
    """Keeps tables of integers, and one number it looks at."""

    def __init__(self):
        super().__init__()
        self.register_buffer("order", torch.randperm(64))
        self.register_buffer("ready", torch.zeros(1))
        self.register_buffer("seen", torch.tensor(0))
        self.head = nn.Linear(64, 10)

    def forward(self, inputs):
        self.seen.add_(1)
        if not self.ready and self.order[0].item() < 64:
            inputs = torch.cat([inputs, inputs])[: len(inputs)]
        return self.head(inputs[:, self.order])


def parametrized():
    whole = mlp(32)
    parametrizations.weight_norm(whole[1])
    parametrizations.spectral_norm(whole[3])
    return whole


def compiled():
    return torch.compile(mlp())


MODULES = {
    "checkpoint": (lambda: Checkpointed(False), 64),
    "reentrant checkpoint": (lambda: Checkpointed(True), 64),
    "spectrogram": (Spectrogram, 128),
    "buffers": (Indexed, 64),
    "parametrized": (parametrized, 64),
    "compiled": (compiled, 64),
    "linspace read when built": (
        lambda: nn.Sequential(*(nn.Linear(64, 64) for _ in torch.linspace(0, 1, 3).tolist())),
        64,
    ),
}


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")  # in validation
@pytest.mark.filterwarnings("ignore:`torch.jit.script")  # torch.compile's own
@pytest.mark.parametrize("name", MODULES)
def test_a_module_of_any_sort_is_traced_exactly(name):
    make, *shape = MODULES[name]
    check_exact(classifier(make, *shape), (8,))


def test_a_sparse_gradient_is_counted():
    class Sparse(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.head = nn.Embedding(5000, 16, sparse=True), nn.Linear(16, 10)

        def forward(self, words):
            return self.head(self.words(words).mean(1))

    trace = opened(classifier(Sparse, 6, integers=5000)).trace(4)
    assert trace.peak_bytes < 2 * 5000 * 16 * 4


# --- what is unknown is bounded ------------------------------------------------------------


def kept(choose):
    class Keeps(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.outer = nn.Linear(64, 64), nn.Linear(64, 10)

        def forward(self, inputs):
            hidden = self.inner(inputs)
            return self.outer(hidden) + choose(hidden).sum() * 1e-3

    return classifier(Keeps, 64)


def written(hidden):
    """A mask of known size whose values are unknown once data was written to it."""
    mask = torch.zeros(hidden.shape, dtype=torch.bool)
    mask[:, :32] = hidden[:, :32] > 9.0
    return hidden[mask].exp()


BOUNDED = {
    "mask": lambda hidden: hidden[hidden > 0],
    "masked_select": lambda hidden: hidden.masked_select(hidden > 0),
    "nonzero": lambda hidden: hidden[torch.nonzero(hidden > 0, as_tuple=True)],
    "where": lambda hidden: hidden[torch.where(hidden > 0)],
    "unique": lambda hidden: torch.unique(hidden.detach()),
    "written": written,
}


@pytest.mark.parametrize("name", BOUNDED)
def test_an_unknown_shape_is_bounded_by_its_upper_size(name):
    tracer = opened(kept(BOUNDED[name]))
    said, everything = tracer.trace(256), opened(kept(lambda hidden: hidden * 1.0)).trace(256)
    assert tracer.profile().traced == "fake"
    tracer.mode, tracer.model = None, tracer.task.model()
    real = tracer.trace(256)
    assert said.peak_bytes >= max(real.peak_bytes, everything.peak_bytes)
    assert said.peak_bytes < 3 * everything.peak_bytes


class Experts(nn.Module):
    """Each row goes through two of four experts."""

    def __init__(self):
        super().__init__()
        self.gate, self.head = nn.Linear(64, 4), nn.Linear(64, 10)
        self.experts = nn.ModuleList(nn.Linear(64, 64) for _ in range(4))

    def forward(self, inputs):
        shares, chosen = self.gate(inputs).softmax(-1).topk(2, dim=-1)
        out = torch.zeros_like(inputs)
        for number, expert in enumerate(self.experts):
            rows, place = torch.where(chosen == number)
            out.index_add_(0, rows, expert(inputs[rows]) * shares[rows, place, None])
        return self.head(out)


def test_experts_are_taken_to_be_chosen_equally_often():
    tracer = opened(classifier(Experts, 64, count=512))
    said = tracer.trace(256)
    assert tracer.profile().traced == "fake"
    tracer.mode, tracer.model = None, tracer.task.model()
    real = tracer.trace(256)
    assert said.peak_bytes == pytest.approx(real.peak_bytes, rel=0.1)
    assert said.matmul_flops == pytest.approx(real.matmul_flops, rel=0.1)


# --- numbers read out of what is unknown ---------------------------------------------------


def guarded(model, frames, classes, lengths):
    out = model(frames)
    if torch.isnan(out).any() or not torch.isfinite(out).all():
        out = torch.nan_to_num(out)
    return out


def refusing(model, frames, classes, lengths):
    out = model(frames)
    if (out > 1e9).any():
        raise ValueError("too large")
    return out


def logged(model, frames, classes, lengths):
    total = model(frames).square().sum()
    assert isinstance(total.item(), float)
    return total


def test_a_large_model_whose_step_depends_on_a_number_names_where_it_is_read(monkeypatch):
    def branching(model, frames, classes, lengths):
        out = model(frames)
        return torch.cat([out, out]) if out.sum() > 0 else out  # reading line

    monkeypatch.setattr(tracing, "usable_memory", lambda: building.usable_memory().__class__(1, 1))
    with pytest.raises(AutotrainError) as caught:
        opened(clips(branching)).trace(4)
    place = f"test_values.py:{line_of('# reading line')}: a number is read"
    assert place in caught.value.message


@pytest.mark.parametrize("forward", [refusing, logged, guarded])
def test_a_number_that_changes_nothing_may_be_read(forward):
    task = clips(forward)
    tracer = opened(task)
    trace = tracer.trace(4)
    tracer.mode, tracer.model = None, task.model()
    assert trace.peak_bytes == tracer.trace(4).peak_bytes


def test_a_number_that_changes_the_step_makes_it_run_for_real():
    def branching(model, frames, classes, lengths):
        out = model(frames)
        return torch.cat([out, out * 2]) if out.mean().item() < 0.5 else out

    tracer = opened(clips(branching))
    trace = tracer.trace(4)
    assert tracer.profile().traced == "concrete"
    assert trace.peak_bytes > opened(clips(lambda m, f, c, n: m(f))).trace(4).peak_bytes


def test_a_measure_that_reads_numbers_costs_no_second_trace(monkeypatch):
    task = classifier(mlp, 64)
    task = dataclasses.replace(
        task, measure=lambda m, b: {"a": (float(m(b[0]).argmax(1).eq(b[1]).sum()), len(b[1]))}
    )
    made = []
    monkeypatch.setattr(
        tracing, "Values", lambda *given: made.append(given) or values.Values(*given)
    )
    opened(task).trace(4)
    assert len(made) == 1


# --- what belongs to neither the model nor the batch ---------------------------------------


def test_a_teacher_in_the_loss_is_there_from_the_start_and_stays_as_it_is():
    teacher = mlp(1024)
    before = {key: value.clone() for key, value in teacher.state_dict().items()}

    def loss(model, batch):
        with torch.no_grad():
            aim = teacher(batch[0])
        teacher[1].bias.data.mul_(0.5)
        return Loss(total=(model(batch[0]) - aim).square().sum(), weight=len(batch[0]))

    task = Task(model=mlp, train=Rows(64), loss=loss)
    with_teacher, alone = opened(task).trace(4), opened(classifier(mlp, 64)).trace(4)
    size = sum(p.nbytes for p in teacher.parameters())
    born = [event for event in with_teacher.tape[: with_teacher.marks[0]] if event > 0]
    assert sum(born) == sum(e for e in alone.tape[: alone.marks[0]] if e > 0) + size
    assert with_teacher.evaluate_peak_bytes >= size + alone.evaluate_peak_bytes
    for key, value in teacher.state_dict().items():
        assert type(value) is torch.Tensor
        assert torch.equal(value, before[key])
    assert all(p.grad is None for p in teacher.parameters())


def test_a_trace_is_the_same_every_time():
    def dropping(model, frames, classes, lengths):
        for _ in range(10):
            if torch.rand(()) < 0.5:
                frames = frames + 1
        return model(frames)

    tracers = [opened(clips(dropping)) for _ in range(2)]
    torch.rand(1)  # the generator's state is another for each
    first = tracers[0].trace(4)
    torch.rand(1)
    assert first == tracers[1].trace(4)


# --- what is refused -----------------------------------------------------------------------


def test_a_large_model_that_needs_its_data_is_refused_with_the_line(monkeypatch):
    def branching(model, frames, classes, lengths):
        out = model(frames)
        return torch.unique(out.detach(), dim=0) + out.sum()  # forward line

    monkeypatch.setattr(tracing, "usable_memory", lambda: building.usable_memory().__class__(1, 1))
    with pytest.raises(AutotrainError) as caught:
        opened(clips(branching)).trace(4)
    assert f"test_values.py:{line_of('# forward line')}: in aten." in caught.value.message
    assert "--trial" in caught.value.hint

    insisting = tracing.ModelTracer.open(clips(branching), HERE, insist=True)
    assert insisting.trace(4).peak_bytes > 0  # by a real step
    assert insisting.profile().traced == "concrete"


def test_a_large_model_that_reads_values_is_not_built_for_real(monkeypatch):
    class Reads(nn.Module):
        def __init__(self, then):
            super().__init__()
            self.layer = nn.Linear(64, 100)
            self.layer.scale = 1 + float(self.layer.weight.detach().std())
            then()

        def forward(self, inputs):
            return self.layer(inputs) * self.layer.scale

    def numbers():
        torch.randn(5000).numpy()

    monkeypatch.setattr(building, "_SOON_BUILT", 0)
    tracer = opened(classifier(lambda: Reads(lambda: None), 64))
    assert tracer.model.layer.scale == 2  # the answer
    monkeypatch.setattr(building, "_GIB", 1)
    monkeypatch.setattr(building, "usable_memory", lambda: tracing.usable_memory().__class__(1, 1))
    with pytest.raises(AutotrainError, match="reads the values of its tensors") as caught:
        opened(classifier(lambda: Reads(numbers), 64))
    assert "--trial" in caught.value.hint
    task = classifier(lambda: Reads(numbers), 64)
    assert tracing.ModelTracer.open(task, HERE, insist=True).trace(4).peak_bytes > 0


def test_a_model_that_ignores_its_input_is_named():
    class Blind(nn.Module):
        def __init__(self):
            super().__init__()
            self.start, self.head = nn.Parameter(torch.zeros(64)), nn.Linear(64, 10)

        def forward(self, inputs):
            return self.head(self.start).expand(len(inputs), 10)

    with pytest.raises(AutotrainError, match="the model ignores its input"):
        opened(classifier(Blind, 64)).trace(4)


def writes_into_a_buffer(inputs):
    out = torch.empty(inputs.shape)
    out[:, :] = inputs
    return out.transpose(0, 1).contiguous().transpose(0, 1)


def goes_through_a_number(inputs):
    return torch.full((len(inputs), 64), inputs.sum().item())


@pytest.mark.parametrize("way", [writes_into_a_buffer, goes_through_a_number])
def test_a_model_that_sees_its_input_in_a_roundabout_way_is_not_accused(way):
    class Sees(nn.Linear):
        def forward(self, inputs):
            return super().forward(way(inputs))

    opened(classifier(lambda: Sees(64, 10), 64)).trace(4)
