"""Distillation: what is learned from, what counts, what it takes, and that it pays."""

import errno
import json
import logging
import pickle
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from autotrain import Loss, Task
from autotrain.__main__ import main
from autotrain.blocks import softcache
from autotrain.blocks.augment import Augmented, held_out
from autotrain.blocks.distilling import Posteriors, distilled, soft_sum
from autotrain.blocks.losses import smoothed_ctc
from autotrain.blocks.mixing import Mixed, pad_utterances
from autotrain.errors import AutotrainError
from autotrain.probe.model import ModelTracer

from .loops import events_of, weights_after

CLASSES = 4


def big(dtype=torch.float32):
    return nn.Sequential(
        nn.Linear(6, 32), nn.BatchNorm1d(32), nn.Dropout(0.5), nn.ReLU(), nn.Linear(32, CLASSES)
    ).to(dtype)


def small(dtype=torch.float32):
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, CLASSES)).to(dtype)


def points(count=40, dtype=torch.float32, seed=1):
    x = torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))
    return torch.utils.data.TensorDataset(x.to(dtype), x[:, :CLASSES].argmax(dim=1))


def plain(dtype=torch.float32):
    model = partial(small, dtype)
    return Task.classification(model=model, train=points(40, dtype), valid=points(9, dtype))


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(3)
    teacher = big()
    for parameter in teacher.parameters():
        parameter.data.mul_(2.0)
    save_file(teacher.state_dict(), tmp_path / "teacher.safetensors")
    return tmp_path / "teacher.safetensors"


def teacher_of(path, dtype=torch.float32):
    model = big(dtype)
    model.load_state_dict(load_file(path))
    return model.eval()


def batch(count=8):
    return next(iter(torch.utils.data.DataLoader(points(), batch_size=count)))


def test_the_loss_is_the_labels_and_the_teachers_together(weights):
    task = distilled(plain(), big, weights, alpha=0.3, temperature=2.0)
    student, (x, y) = small(), batch()
    made = task.loss(student, (x, y))
    aim = (teacher_of(weights)(x) / 2).softmax(-1)
    own = (student(x) / 2).log_softmax(-1)
    soft = 4 * (aim * (aim.log() - own)).sum()
    hard = functional.cross_entropy(student(x), y, reduction="sum")
    torch.testing.assert_close(made.total, 0.7 * hard + 0.3 * soft)
    torch.testing.assert_close(made.parts["hard"], hard)
    torch.testing.assert_close(made.parts["soft"], soft)
    assert made.weight == 8


def test_no_gradient_goes_through_the_teacher(weights):
    student, (x, y) = small(), batch()
    x.requires_grad_()
    made = distilled(plain(), big, weights, alpha=1.0, temperature=1.0).loss(student, (x, y))
    aim = teacher_of(weights)(x.detach()).softmax(-1)
    own = student(x).log_softmax(-1)
    (expected,) = torch.autograd.grad(-(aim * own).sum(), x)
    torch.testing.assert_close(torch.autograd.grad(made.total, x)[0], expected)


def test_validation_has_the_tasks_own_loss_and_measure(weights):
    task, alone = distilled(plain(), big, weights), plain()
    student = small().eval()
    assert torch.equal(task.loss(student, batch()).total, alone.loss(student, batch()).total)
    assert task.measure(student, batch()) == alone.measure(student, batch())
    assert (task.monitor, task.better) == ("accuracy", "higher")


def test_the_teacher_is_neither_trained_nor_saved(weights, tmp_path):
    task = distilled(plain(), big, weights)
    events_of(task, tmp_path / "run")
    saved = load_file(next((tmp_path / "run").glob("checkpoints/step-*/model.safetensors")))
    assert set(saved) == set(small().state_dict())
    teacher = task.loss.__self__.teacher
    for key, value in teacher_of(weights).state_dict().items():
        assert torch.equal(teacher.state_dict()[key], value)
    assert not teacher.training


def test_any_cut_gives_the_same_weights(weights, tmp_path):
    """1 x 16, 4 x 4, and 3 x 5 and 1, at 1e-12 in float64."""
    torch.manual_seed(4)
    save_file(big(torch.float64).state_dict(), weights)
    ends = [
        weights_after(
            distilled(plain(torch.float64), partial(big, torch.float64), weights),
            tmp_path / "run", micro, 16,
        )
        for micro in (16, 4, 5)
    ]  # fmt: skip
    for end in ends[1:]:
        torch.testing.assert_close(end, ends[0], rtol=1e-12, atol=1e-12)


# --- sequences -----------------------------------------------------------------------------


class Ctc(nn.Module):
    """[batch, time, 3] and frames -> logits [batch, time, 4] and frames."""

    def __init__(self, width=6):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, CLASSES))

    def forward(self, features, frames):
        return self.inner(features), frames


class Texts(torch.utils.data.Dataset):
    def __len__(self):
        return 24

    def __getitem__(self, index):
        draw = torch.Generator().manual_seed(index)
        features = torch.randn(8 + index % 7, 3, generator=draw)
        return features, torch.randint(1, CLASSES, (1 + index % 3,), generator=draw)


def ctc_loss(model, batch):
    logits, frames = model(batch.features, batch.frames)
    return smoothed_ctc(logits, frames, batch.tokens, batch.lengths)


def ctc_task(**more):
    return Task(
        model=Ctc, train=Texts(), valid=Texts(), collate=pad_utterances, loss=ctc_loss, **more
    )


@pytest.fixture
def ctc_weights(tmp_path):
    torch.manual_seed(6)
    save_file(Ctc(16).state_dict(), tmp_path / "ctc.safetensors")
    return tmp_path / "ctc.safetensors"


def test_frames_of_padding_teach_nothing(ctc_weights):
    task, student = distilled(ctc_task(), partial(Ctc, 16), ctc_weights), Ctc()
    texts = Texts()
    whole = task.loss(student, pad_utterances([texts[0], texts[6]]))
    alone = [task.loss(student, pad_utterances([texts[i]])) for i in (0, 6)]
    torch.testing.assert_close(whole.parts["soft"], sum(one.parts["soft"] for one in alone))
    torch.testing.assert_close(whole.total, sum(one.total for one in alone))


def test_items_make_a_samples_frames_count_as_its_tokens_do():
    draw = torch.Generator().manual_seed(0)
    own, aim = (torch.randn(2, 5, CLASSES, generator=draw) for _ in range(2))
    frames, items = torch.tensor([5, 2]), torch.tensor([3, 4])
    made = soft_sum(Posteriors(own, frames, items), aim, 1.0)
    each = [soft_sum(Posteriors(own[i, :n]), aim[i, :n], 1.0) for i, n in enumerate((5, 2))]
    torch.testing.assert_close(made, 3 * each[0] / 5 + 4 * each[1] / 2)


# --- what it takes -------------------------------------------------------------------------


def test_a_trace_counts_the_teacher_and_leaves_it_alone(weights):
    tracer = ModelTracer.open(_wide(weights), Path(__file__))
    alone = ModelTracer.open(plain(), Path(__file__)).trace(8)
    size = sum(t.nbytes for t in _wide_net().state_dict().values())
    made = tracer.trace(8)
    born = sum(event for event in made.tape[: made.marks[0]] if event > 0)
    before = sum(event for event in alone.tape[: alone.marks[0]] if event > 0)
    assert born == before + size
    assert tracer.mode is not None, "on fake tensors"
    assert tracer.profile().parameters == sum(p.numel() for p in small().parameters())


def _wide_net():
    return nn.Sequential(nn.Linear(6, 5000), nn.ReLU(), nn.Linear(5000, CLASSES))


def _wide(weights):
    path = weights.with_name("wide.safetensors")
    save_file(_wide_net().state_dict(), path)
    return distilled(plain(), _wide_net, path)


# --- answers on disk -----------------------------------------------------------------------


def test_the_first_epoch_asks_the_teacher_and_later_ones_the_disk(weights, tmp_path):
    """To the bit as on the fly, since a sample is in a batch alone."""
    one = {"batch": {"micro_batch": 1, "accum_steps": 4, "global_batch": 4}}
    fly = events_of(distilled(plain(), big, weights), tmp_path / "fly", **one)
    task = distilled(plain(), big, weights, cache=tmp_path / "cache")
    asked = _counted(task)
    kept = events_of(task, tmp_path / "kept", **one)
    assert len(asked) == 40
    assert _figures(kept) == _figures(fly)
    again = distilled(plain(), big, weights, cache=tmp_path / "cache")
    asked = _counted(again)
    assert _figures(events_of(again, tmp_path / "again", **one)) == _figures(fly)
    assert asked == []
    (shard,) = (tmp_path / "cache").rglob("*.safetensors")
    assert len(load_file(shard)) == 40


def _counted(task):
    asked = []
    teacher = task.loss.__self__.teacher
    teacher.register_forward_hook(lambda module, given, out: asked.extend(out))
    return asked


def _figures(seen):
    steps = [(event.loss, event.parts) for event in seen if event.name == "step"]
    return steps, [event.loss for event in seen if event.name == "evaluated"]


def test_larger_batches_and_workers_agree_to_rounding(weights, tmp_path):
    fly = weights_after(distilled(plain(), big, weights), tmp_path / "a", 8, 8, steps=12)
    for workers in (0, 2):
        task = distilled(plain(), big, weights, cache=tmp_path / f"cache{workers}")
        loader = {"workers": workers}
        kept = weights_after(task, tmp_path / "b", 8, 8, steps=12, loader=loader)
        torch.testing.assert_close(kept, fly, rtol=1e-5, atol=1e-6)


def test_answers_of_sequences_are_kept_without_their_padding(ctc_weights, tmp_path):
    task = distilled(ctc_task(), partial(Ctc, 16), ctc_weights, cache=tmp_path / "cache")
    texts, student = task.train, Ctc()
    batch = task.collate([texts[0], texts[6], texts[3]])
    first = task.loss(student, batch)
    asked = _counted(task)
    other = task.loss(student, task.collate([texts[3], texts[6], texts[0]]))
    torch.testing.assert_close(other.total, first.total)
    alone = [task.loss(student, task.collate([texts[i]])).total for i in (0, 3, 6)]
    torch.testing.assert_close(sum(alone), first.total)
    wider = batch._replace(
        held=batch.held._replace(features=functional.pad(batch.held.features, (0, 0, 0, 3)))
    )
    torch.testing.assert_close(task.loss(student, wider).total, first.total)
    assert asked == []
    task.loss(student.eval(), batch)
    (shard,) = (tmp_path / "cache").rglob("*.safetensors")
    assert sorted(len(rows) for rows in load_file(shard).values()) == [8, 11, 14]


def test_a_change_of_the_data_or_the_teacher_is_not_answered_from_before(weights, tmp_path):
    cache = tmp_path / "cache"
    events_of(distilled(plain(), big, weights, cache=cache), tmp_path / "a")

    other = Task.classification(model=small, train=points(40, seed=2), valid=points(9))
    task = distilled(other, big, weights, cache=cache)
    asked = _counted(task)
    task.loss(small(), task.collate([task.train[i] for i in range(4)]))
    assert len(asked) == 4

    save_file(big().state_dict(), weights)
    task = distilled(plain(), big, weights, cache=cache)
    asked = _counted(task)
    task.loss(small(), task.collate([task.train[i] for i in range(4)]))
    assert len(asked) == 4


class Noisy(torch.utils.data.Dataset):
    def __init__(self, share=1.0):
        self.share = share
        self.calls = 0

    def __len__(self):
        return 40

    def __getitem__(self, index):
        self.calls += 1
        return torch.zeros(6) + (torch.randn(6) if torch.rand(()) < self.share else 0), 1


@pytest.mark.parametrize(
    "train", [Mixed(points(), CLASSES), Augmented(points(), lambda x: x), Noisy()],
    ids=["mixed", "augmented", "noisy"],
)  # fmt: skip
def test_augmented_samples_are_refused(weights, tmp_path, train):
    task = Task.classification(model=small, train=train, valid=points(9))
    with pytest.raises(AutotrainError, match="augmented"):
        distilled(task, big, weights, cache=tmp_path / "cache")
    assert distilled(task, big, weights) is not None


def test_augmentation_that_shows_later_ends_the_keeping(weights, tmp_path, caplog):
    """The first look saw none of it; the second epoch does, and the answers stay right."""

    class Late(Noisy):
        def __getitem__(self, index):
            self.calls += 1
            return torch.full((6,), index + float(self.calls > 60)), 1

    task = Task.classification(model=small, train=Late(), valid=points(9))
    made = distilled(task, big, weights, cache=tmp_path / "cache")
    asked = _counted(made)
    with caplog.at_level(logging.WARNING):
        events_of(made, tmp_path / "run")
    assert caplog.text.count("augmented: the teacher answers anew") == 1
    assert len(asked) > 40


def test_a_collate_that_sorts_is_refused(weights, tmp_path):
    def by_length(samples):
        return pad_utterances(sorted(samples, key=lambda s: -len(s[0])))

    task = Task(model=Ctc, train=Texts(), valid=Texts(), collate=by_length, loss=ctc_loss)
    path = weights.with_name("ctc.safetensors")
    save_file(Ctc().state_dict(), path)
    with pytest.raises(AutotrainError, match="order of its own"):
        distilled(task, Ctc, path, cache=tmp_path / "cache")


def test_a_full_disk_only_warns(weights, tmp_path, monkeypatch, caplog):
    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(softcache, "write_atomic", full)
    task = distilled(plain(), big, weights, cache=tmp_path / "cache")
    with caplog.at_level(logging.WARNING):
        seen = events_of(task, tmp_path / "run")
    assert seen[-1].reason == "finished"
    assert caplog.text.count("No space left on device") == 1
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_a_torn_file_of_answers_is_passed_over(weights, tmp_path, caplog):
    cache = tmp_path / "cache"
    events_of(distilled(plain(), big, weights, cache=cache), tmp_path / "a")
    (shard,) = cache.rglob("*.safetensors")
    shard.write_bytes(shard.read_bytes()[:100])
    task = distilled(plain(), big, weights, cache=cache)
    assert "passed over" in caplog.text
    asked = _counted(task)
    task.loss(small(), task.collate([task.train[i] for i in range(4)]))
    assert len(asked) == 4


def test_with_all_answers_known_a_trace_finds_no_teacher_on_the_device(weights, tmp_path):
    path, cache = weights.with_name("wide.safetensors"), tmp_path / "cache"
    save_file(_wide_net().state_dict(), path)
    size = sum(t.nbytes for t in _wide_net().state_dict().values())

    def traced():
        task = distilled(plain(), _wide_net, path, cache=cache)
        return ModelTracer.open(task, Path(__file__)).trace(8).peak_bytes

    before = traced()
    assert not cache.exists(), "a trace keeps no answers"
    task = distilled(plain(), _wide_net, path, cache=cache)
    task.loss(small(), task.collate([task.train[i] for i in range(39)]))
    task.loss.__self__.cache.flush()
    assert traced() >= size, "one sample is missing"
    task.loss(small(), task.collate([task.train[39]]))
    task.loss.__self__.cache.flush()
    assert traced() < size < before


# --- refusals ------------------------------------------------------------------------------


def test_what_cannot_be_compared_is_refused(weights):
    x, y = batch()
    twice = replace(plain(), loss=lambda model, batch: [model(x), model(x)][1])
    with pytest.raises(AutotrainError, match="called the model 2 times"):
        distilled(twice, big, weights).loss(small(), (x, y))
    with pytest.raises(AutotrainError, match=r"answers \[8, 4\], the student \[8, 5\]"):
        distilled(plain(), big, weights).loss(nn.Linear(6, 5), (x, y))
    images = replace(plain(), loss=lambda model, batch: Loss(total=model(x).sum(), weight=8))
    with pytest.raises(AutotrainError, match=r"returns \[8, 2, 2\], neither"):
        distilled(images, big, weights).loss(
            nn.Sequential(small(), nn.Unflatten(1, (2, 2))), (x, y)
        )
    in_time = distilled(plain(), big, weights, read=lambda out, batch: Posteriors(out[:, None]))
    with pytest.raises(AutotrainError, match="without frames"):
        in_time.loss(small(), (x, y))
    for wrong in ({"alpha": 1.5}, {"temperature": 0}):
        with pytest.raises(AutotrainError, match="distilled: alpha"):
            distilled(plain(), big, weights, **wrong)


def test_a_collate_that_drops_samples_is_named(weights, tmp_path):
    def dropping(samples):
        return torch.utils.data.default_collate(samples[:3])

    task = distilled(replace(plain(), collate=dropping), big, weights, cache=tmp_path / "cache")
    with pytest.raises(AutotrainError, match="5 samples in the batch, 3 rows"):
        task.loss(small(), task.collate([task.train[i] for i in range(5)]))


# --- by the front door -----------------------------------------------------------------------

TASK = """
import torch
from torch import nn

from autotrain import Task
from autotrain.blocks.distilling import distilled


def big():
    return nn.Sequential(
        nn.Linear(6, 32), nn.BatchNorm1d(32), nn.Dropout(0.5), nn.ReLU(), nn.Linear(32, 4)
    )


def task(data):
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(1))
    points = torch.utils.data.TensorDataset(x, x[:, :4].argmax(dim=1))
    student = Task.classification(model=lambda: nn.Linear(6, 4), train=points)
    return distilled(student, big, data / "teacher.safetensors", cache=data / "cache")
"""


def test_plan_and_run_work_by_the_command_line(weights, tmp_path, monkeypatch, capsys):
    """With a split by the plan, and answers kept on disk."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "task.py").write_text(TASK)

    def cli(*arguments):
        monkeypatch.setattr(sys, "argv", ["autotrain", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        assert end.value.code == 0, said.err
        return said.out

    settings = ("train.epochs=2", "loader.workers=0", "batch.micro_batch=8", "data.valid_share=0.2")
    chosen = [part for pair in settings for part in ("--set", pair)]
    plan = ("plan", str(tmp_path), "--task", "task.py", "--no-calibrate", "--json")
    planned = json.loads(cli(*plan, *chosen))
    size = sum(t.nbytes for t in load_file(weights).values())
    assert planned["predicted"]["tensor_peak_bytes"]["low"] > size
    said = [json.loads(line) for line in cli("run", "plan.toml", "--json").splitlines()]
    assert {"hard", "soft"} <= set(next(e for e in said if e["event"] == "step")["parts"])
    (shard,) = (tmp_path / "cache").rglob("*.safetensors")
    assert len(load_file(shard)) == 32


def test_what_travels_to_a_spawned_worker_is_without_the_teacher(weights, tmp_path):
    task = distilled(plain(), big, weights, cache=tmp_path / "cache")
    carried = pickle.dumps((task.train, task.collate))
    assert len(carried) < len(pickle.dumps(plain().train)) + 1000
    train, collate = pickle.loads(carried)
    assert collate([train[0], train[1]]).names == (train[0].names, train[1].names)


# --- for real ------------------------------------------------------------------------------


def teacher_net():
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.Flatten(),
        nn.Linear(64 * 16, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


def student_net():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 10))


def test_a_student_of_few_digits_learns_more_from_a_teacher_who_has_seen_many(tmp_path):
    """Two runs of our own loop; the teacher is found by its run's folder."""
    sklearn = pytest.importorskip("sklearn.datasets")
    x, y = sklearn.load_digits(return_X_y=True)
    pixels = torch.tensor(x / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
    train, valid = held_out(torch.utils.data.TensorDataset(pixels, torch.tensor(y)), 0.5)

    def reached(task, name, epochs):
        settings = {
            "batch": {"micro_batch": 32, "accum_steps": 1, "global_batch": 32},
            "train": {"epochs": epochs},
            "optimizer": {"lr": 1e-2},
            "evaluate": {"every_epochs": 5},
            "checkpoint": {"every_epochs": 50},
        }
        return events_of(task, tmp_path / name, **settings)[-1].best

    teacher = Task.classification(model=teacher_net, train=train, valid=valid)
    assert reached(teacher, "teacher", 5) > 0.94
    few = torch.utils.data.Subset(train, range(200))
    student = Task.classification(model=student_net, train=few, valid=valid)
    alone = reached(student, "alone", 25)
    taught = reached(distilled(student, teacher_net, tmp_path / "teacher"), "taught", 25)
    print(f"alone {alone:.4f}, taught {taught:.4f}")
    assert alone > 0.85
    assert taught >= alone
