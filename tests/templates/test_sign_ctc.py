"""Signed sentences: the generator, both models, how they are taught, and what bad files do."""

import csv
import json
import logging
import os
import pickle
import random
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from autotrain.blocks.landmarks import MIRROR
from autotrain.blocks.layouts import data_kind, feature_table
from autotrain.errors import AutotrainError
from autotrain.files import shipped
from autotrain.task import load_module, load_task

from .house import losses, seen

FOLDER = shipped("templates") / "sign-ctc"
CODE = FOLDER / "task.py"
MAKE = FOLDER / "make_signs.py"
BOTH = ("teacher", "student")
NAMED = ("--set", "run.name=signs")


def load(data, **options):
    return load_task(CODE, str(data), options)


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def sentences(task):
    """The training sentences before chance changes them."""
    held = task.train
    while hasattr(held, "dataset"):
        held = held.dataset
    return held


def seeded():
    """As a run does before it loads a sample."""
    torch.manual_seed(0)
    random.seed(0)


@pytest.fixture(scope="module")
def signs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("signs") / "signs"
    load_module(MAKE).write(folder, signers=6, sentences=5)
    return folder


@pytest.fixture
def copied(signs, tmp_path):
    return shutil.copytree(signs, tmp_path / "signs")


def table(folder, change):
    """Rewrite the table: `change` takes each row as a dict, and gives it back or None."""
    path = folder / "glosses.csv"
    with open(path, newline="") as file:
        rows = [change(row) for row in csv.DictReader(file)]
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, ["file", "glosses", "signer", "split"])
        writer.writeheader()
        writer.writerows(row for row in rows if row is not None)


def first(folder, split="train"):
    return next(row for row in feature_table(folder) if row.split == split).path


def test_the_generator_writes_the_same_set_each_time_signers_apart(signs, tmp_path):
    load_module(MAKE).write(tmp_path / "again", signers=6, sentences=5)
    assert data_kind(signs) == ("features", "features with glosses in glosses.csv")
    rows = feature_table(signs)
    assert [r.glosses for r in rows] == [r.glosses for r in feature_table(tmp_path / "again")]
    for row in rows:
        points = np.load(row.path)["landmarks"]
        assert np.array_equal(points, np.load(tmp_path / "again" / row.path.name)["landmarks"])
        assert points.shape[1:] == (51, 2)
        assert np.isfinite(points).all()
        assert 2 <= len(row.glosses) <= 7
        assert len(points) >= 8 * len(row.glosses)
    signers = {
        part: {r.signer for r in rows if r.split == part} for part in ("train", "valid", "test")
    }
    assert [len(s) for s in signers.values()] == [4, 1, 1]
    assert len(set.union(*signers.values())) == 6


def test_glosses_differ_and_half_of_them_in_one_parameter_from_another():
    made = load_module(MAKE)
    signs = [*made.lexicon(1).values()]
    keys = [(s.shape, s.place, s.move, s.palm, s.hands) for s in signs]
    assert len(set(keys)) == len(keys) == len(made.GLOSSES)
    pairs = zip(keys[::2], keys[1::2], strict=False)
    assert all(sum(a != b for a, b in zip(*pair, strict=True)) == 1 for pair in pairs)


def test_left_handed_signers_are_right_handed_ones_in_a_mirror():
    made = load_module(MAKE)
    points = np.random.default_rng(0).random((3, 51, 2))
    mirrored = points[:, MIRROR] * (-1, 1)
    assert np.array_equal(made.mirrored(points), mirrored)
    assert np.array_equal(made.mirrored(mirrored), points)


def test_a_left_handed_sentence_is_seen_as_a_right_handed_one(copied):
    right = next(r for r in feature_table(copied) if r.signer == "s02")
    points = np.load(right.path)["landmarks"].astype(np.float32)
    plain = load(copied)
    seen = points != 0
    flipped = np.where(seen, points * (-1, 1) + (1, 0), 0)[:, MIRROR]
    np.savez(right.path, landmarks=flipped)
    again, other = load(copied), load(copied, dominant=False)
    rows = sentences(plain).loaded.items
    mine = next(i for i, row in enumerate(rows) if row.path == right.path)
    first, second, third = (sentences(task)[mine][0] for task in (plain, again, other))
    torch.testing.assert_close(first, second, atol=2e-3, rtol=1e-3)
    assert float((first - third).abs().max()) > 0.5


def test_the_student_has_a_tenth_of_the_teachers_parameters(signs):
    teacher, student = (load(signs, model=which).model() for which in BOTH)
    assert parameters(student) <= parameters(teacher) / 10
    assert parameters(teacher) == pytest.approx(1.5e6, rel=0.2)


@pytest.mark.parametrize("which", BOTH)
def test_a_sentences_logits_are_the_same_in_any_batch(signs, which):
    task = load(signs, model=which, width=16, student_width=8)
    torch.manual_seed(0)
    model = task.model().eval()
    samples = [task.valid[i] for i in range(4)]
    batch = task.collate(samples)
    rubbish = batch.features.clone()
    for place, frames in enumerate(batch.frames.tolist()):
        rubbish[place, frames:] = 1e3
    logits, left = model(rubbish, batch.frames)
    for place, sample in enumerate(samples):
        one = task.collate([sample])
        alone, frames = model(one.features, one.frames)
        assert int(frames) == int(left[place]) == -(-len(sample[0]) // 2)
        torch.testing.assert_close(logits[place, : int(frames)], alone[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("which", BOTH)
def test_every_cut_of_a_batch_gives_the_same_loss_figures_and_gradient(signs, which):
    task = load(signs, model=which, width=16, student_width=8, dropout=0.0)
    torch.manual_seed(0)
    model = task.model()
    samples = [task.train[i] for i in range(4)]

    def sums(cuts):
        model.zero_grad()
        total, weight, words = 0.0, 0.0, np.zeros(2)
        for cut in cuts:
            batch = task.collate(cut)
            made = task.loss(model, batch)
            made.total.backward()
            total, weight = total + float(made.total.detach()), weight + float(made.weight)
            words += task.measure(model, batch)["wer"]
        return total, weight, words.tolist(), model.head.weight.grad.clone()

    whole, singly = sums([samples]), sums([[s] for s in samples])
    assert whole[0] == pytest.approx(singly[0], rel=1e-4)
    assert whole[1] == pytest.approx(singly[1])
    assert whole[2] == singly[2]
    torch.testing.assert_close(whole[3], singly[3], rtol=1e-3, atol=1e-3)


def test_the_loss_is_computed_in_fp32_under_autocast(signs):
    task = load(signs, width=16)
    batch = task.collate([task.valid[0]])
    with torch.autocast("cpu", torch.bfloat16):
        made = task.loss(task.model(), batch)
    assert made.total.dtype == torch.float32


def test_smoothing_and_mixing_are_for_training_only(signs):
    task = load(signs, width=16, label_smoothing=0.1, mixup=0.5)
    model = task.model()
    batch = task.collate([task.valid[i] for i in range(3)])
    assert len(batch.readings) == 1
    assert "uniform" in task.loss(model.train(), batch).parts
    assert "uniform" not in task.loss(model.eval(), batch).parts
    seeded()
    mixed = task.collate([task.train[i] for i in range(12)])
    assert len(mixed.readings) == 2
    assert 0 < int((mixed.share < 1).sum()) < 12


def test_training_sentences_vary_with_the_seed_and_validation_ones_never(signs):
    task = load(signs, mixup=0.0)
    assert torch.equal(seen(task.train, 1), seen(task.train, 1))
    assert not torch.equal(seen(task.train, 1), seen(task.train, 2))
    assert torch.equal(seen(task.valid, 1), seen(task.valid, 2))
    plain = load(signs, mixup=0.0, augment=False)
    assert torch.equal(seen(plain.train, 1), seen(plain.train, 2))


def test_hidden_landmarks_lie_at_their_mean_and_both_axes_go_together(monkeypatch):
    code = load_module(CODE)
    mean = torch.arange(102.0)
    varied = code.Varied((51, 2), mean, hidden=0.5, flip=False)
    monkeypatch.setattr(code, "moved", lambda points: points)
    torch.manual_seed(0)
    found = (varied(torch.full((40, 102), -5.0)) == mean).unflatten(1, (51, 2))
    assert torch.equal(found[..., 0], found[..., 1])
    whole = found[..., 0].all(dim=0)
    assert 10 < int(whole.sum()) < 41
    gaps = found[..., 0].all(dim=1)
    assert 0 < int(gaps.sum()) < 30


def test_beam_search_decodes_what_greedy_does_when_the_model_is_sure(signs):
    code = load_module(CODE)
    logits = torch.full((1, 6, 5), -20.0)
    for time, token in enumerate([0, 3, 3, 0, 4, 0]):
        logits[0, time, token] = 20.0
    left = torch.tensor([6])
    for beam in (0, 4):
        figures = code.Recognition(["A", "B", "C"], 0.0, beam)
        (tokens,) = figures.decoded(logits, left)
        assert figures.text(tokens) == ["B", "C"]


def test_a_student_learns_from_a_teacher_that_is_frozen_and_not_its_own(signs, tmp_path):
    from safetensors.torch import save_file

    teacher = load(signs, width=16).model()
    save_file(teacher.state_dict(), tmp_path / "teacher.safetensors")
    task = load(
        signs, model="student", teacher=str(tmp_path / "teacher.safetensors"), width=16,
        student_width=8,
    )  # fmt: skip
    model = task.model()
    made = task.loss(model, task.collate([task.train[i] for i in range(4)]))
    assert {"hard", "soft", "ctc"} <= set(made.parts)
    total = 0.3 * made.parts["hard"] + 0.7 * made.parts["soft"]
    torch.testing.assert_close(made.total, total)
    assert parameters(model) < 20_000


def test_datasets_and_collate_can_be_sent_to_a_worker(signs):
    task = load(signs, mixup=0.2)
    data, collate = pickle.loads(pickle.dumps((task.train, task.collate)))
    seeded()
    here = task.train[2].features
    seeded()
    assert torch.equal(data[2].features, here)
    assert collate([data[0]]).frames.tolist() == [task.length(0)]


def test_one_bad_sentence_of_each_kind_is_named_and_skipped(signs, copied, caplog):
    path = first(copied)
    points = np.load(path)["landmarks"]

    def glosses(text):
        table(copied, lambda r: {**r, "glosses": text} if r["file"] == path.name else r)

    spoiled = {
        "not finite": lambda: np.savez(path, landmarks=np.where(points > 0.5, np.nan, points)),
        "not an .npz": lambda: path.write_bytes(b"nothing of use"),
        "an empty text": lambda: glosses(""),
        "nothing was seen: all its values are 0": lambda: np.savez(path, landmarks=points * 0),
        "most have 51 x 2": lambda: np.savez(path, landmarks=points[:, :30]),
        "21 tokens need 41 frames of CTC, and it has 20": lambda: glosses("GO " * 21),
    }
    for problem, spoil in spoiled.items():
        shutil.rmtree(copied)
        shutil.copytree(signs, copied)
        if "frames" in problem:
            np.savez(path, landmarks=points[:40])
        spoil()
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            task = load(copied)
        assert len(task.train) == 19
        said = [r.getMessage() for r in caplog.records if "skipped" in r.getMessage()]
        assert [path.name in line and problem in line for line in said] == [True], problem


@pytest.mark.parametrize("spoiled", ["not finite", "most have 51 x 2"])
def test_the_first_file_alone_does_not_say_what_a_frame_holds(spoiled, copied, caplog):
    """Not by its numbers, and not by having as many of them in another order."""
    path = feature_table(copied)[0].path
    points = np.load(path)["landmarks"]
    flat = points.reshape(len(points), -1)
    np.savez(path, landmarks=points * np.nan if spoiled == "not finite" else flat)
    with caplog.at_level(logging.WARNING):
        task = load(copied, width=16)
    assert len(sentences(task)) + len(task.valid) + len(task.test) == 29
    (said,) = (r.getMessage() for r in caplog.records if "skipped" in r.getMessage())
    assert path.name in said
    assert spoiled in said


def test_over_a_tenth_of_bad_sentences_is_refused(copied):
    for row in feature_table(copied)[:4]:
        row.path.write_bytes(b"nothing of use")
    with pytest.raises(AutotrainError, match=r"4 of 30 feature files are damaged: .*s00-000\.npz"):
        load(copied)


def test_a_gloss_that_no_training_sentence_holds_is_named_and_counts_as_an_error(copied, caplog):
    path = first(copied, "valid")
    table(copied, lambda r: {**r, "glosses": "SPACESHIP GO"} if r["file"] == path.name else r)
    with caplog.at_level(logging.WARNING):
        task = load(copied, width=16)
    assert f"{path}: SPACESHIP is in no training sentence" in caplog.text
    place = next(i for i, t in enumerate(task.valid.tokens) if 1 in t)
    batch = task.collate([task.valid[place]])
    model = task.model()
    torch.nn.init.zeros_(model.head.weight)
    torch.nn.init.zeros_(model.head.bias)
    model.head.bias.data[1] = 9.0  # as sure of the unknown as can be
    assert task.measure(model, batch)["wer"] == (2, 2)


def test_one_signer_only_is_said_and_their_sentences_are_held_out(copied, caplog):
    table(copied, lambda r: {**r, "signer": "me", "split": ""})
    with caplog.at_level(logging.WARNING):
        task = load(copied)
    assert "one signer only" in caplog.text
    assert (len(task.train), len(task.valid)) == (24, 6)


def test_by_heart_validates_on_what_it_trains_on(copied):
    table(copied, lambda r: r if r["signer"] == "s02" else None)
    task = load(copied, by_heart=True, augment=False, mixup=0.0)
    assert len(task.train) == len(task.valid) == 5
    assert torch.equal(task.train[3][0], task.valid[3][0])


def test_other_features_than_landmarks_train_too(tmp_path):
    draw = np.random.default_rng(0)
    lines = ["file,glosses"]
    for number in range(12):
        np.savez(tmp_path / f"{number}.npz", x=draw.random((30, 40), dtype=np.float32))
        lines.append(f"{number},A B")
    (tmp_path / "glosses.csv").write_text("\n".join(lines))
    task = load(tmp_path, width=16)
    torch.manual_seed(0)
    made = task.loss(task.model(), task.collate([task.train[i] for i in range(3)]))
    assert bool(made.total.isfinite())


def test_a_sentence_of_other_units_is_named_and_does_not_say_what_is_usual(tmp_path, caplog):
    draw = np.random.default_rng(0)
    for number in range(12):
        scale = 1e6 if number == 0 else 1.0
        np.savez(tmp_path / f"{number}.npz", x=scale * draw.normal(size=(30, 40)))
    rows = "".join(f"{number},A B\n" for number in range(12))
    (tmp_path / "glosses.csv").write_text("file,glosses\n" + rows)
    with caplog.at_level(logging.WARNING):
        task = load(tmp_path, width=16)
    assert len(sentences(task)) + len(task.valid) == 11
    assert "0.npz: values up to" in caplog.text
    assert 0.5 < float(task.model().spread.mean()) < 2


def test_wrong_options_and_no_data_are_refused_by_name(signs):
    for name, value in {"model": "pupil", "alpha": 2, "beam": -1, "width": 0}.items():
        with pytest.raises(AutotrainError, match=f"task.options.{name}"):
            load(signs, **{name: value})
    with pytest.raises(AutotrainError, match="no data"):
        load_task(CODE, None, {})


def test_the_loss_falls_within_a_few_steps(signs):
    task = load(signs, width=32, augment=False, mixup=0.0)
    found = losses(task, torch.optim.AdamW, samples=8, steps=20, lr=3e-3)
    assert found[-1] < 0.6 * found[0]


def autotrain(folder, *arguments):
    command = [sys.executable, "-m", "autotrain", *arguments]
    environment = {**os.environ, "AUTOTRAIN_HOME": str(folder / "home"), "AUTOTRAIN_BUSY": "ignore"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


def wers(run):
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    return [e["metrics"]["wer"] for e in events if "wer" in e.get("metrics", {})]


@pytest.mark.slow
def test_recipe_overfit_learns_five_sentences_by_heart(tmp_path):
    load_module(MAKE).write(tmp_path / "five", signers=1, sentences=5)
    autotrain(tmp_path, "plan", "five", "--recipe", "overfit", "--no-trial", *NAMED)
    autotrain(tmp_path, "run", "plan.toml")
    for stage in ("1-teacher", "2-student"):
        assert wers(tmp_path / "runs/signs" / stage)[-1] == 0


@pytest.mark.slow
def test_teacher_and_student_reach_their_figures_on_signers_never_seen(tmp_path):
    load_module(MAKE).write(tmp_path / "signs")
    autotrain(tmp_path, "plan", "signs", "--no-trial", *NAMED)
    autotrain(tmp_path, "run", "plan.toml")
    teacher, student = (
        min(wers(tmp_path / "runs/signs" / stage)) for stage in ("1-teacher", "2-student")
    )
    assert teacher < 0.25
    assert student <= 1.1 * teacher


def test_a_sentence_is_answered_with_its_glosses_and_test_signers_are_kept_apart(signs, tmp_path):
    task = load(signs)
    rows = [row for row in feature_table(signs) if row.split == "test"]
    assert len(task.test) == len(rows) > 0
    torch.manual_seed(0)
    model = task.model().eval()
    with torch.no_grad():
        found = task.predict(model, str(rows[0].path), tmp_path)
        batch = task.collate([task.test[0]])
        figures = load_module(CODE).Recognition
        logits, left = model(batch.features, batch.frames)
    assert isinstance(task.predict.func.__self__, figures)
    logits[..., 1] = -torch.inf
    said = task.predict.func.__self__.decoded(logits, left)[0]
    assert found["glosses"] == " ".join(task.predict.func.__self__.text(said))
    with pytest.raises(AutotrainError, match=r"gone\.npz"):
        task.predict(model, "gone.npz", tmp_path)
