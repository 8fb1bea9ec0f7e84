"""Speech to text: four stages of one recogniser, what it says of a clip, and what bad clips do."""

import csv
import itertools
import json
import logging
import os
import pickle
import shutil
import subprocess
import sys
import tomllib

import pytest
import soundfile
import torch
from torchaudio.functional import resample

from autotrain.blocks.audio import load_clip
from autotrain.blocks.corpus import SHIPPED
from autotrain.blocks.corpus.espeak import is_here
from autotrain.blocks.ctc import greedy
from autotrain.blocks.layouts import speech_clips
from autotrain.blocks.units import read_units
from autotrain.errors import AutotrainError
from autotrain.files import shipped
from autotrain.foreign import fitting
from autotrain.recipe import read_recipe
from autotrain.task import load_task

from .house import losses, seen

FOLDER = shipped("templates") / "hybrid-stt"
CODE = FOLDER / "task.py"
GOALS = ("encoder", "ctc", "decoder", "joint")
SMALL = {"width": 32, "heads": 2, "blocks": 1, "layers": 1, "kernel": 7, "units": 60}
SURE = {"dropout": 0.0, "label_smoothing": 0.0, "augment": False, "by_heart": True}


def load(data=SHIPPED, **options):
    return load_task(CODE, str(data), {**SMALL, **options})


def known(few, **options):
    """A few clips to learn by heart, without chance."""
    return load(few, **{**SURE, **options})


def wav(path, samples, rate=16_000):
    soundfile.write(path, samples.T.numpy() if samples.dim() > 1 else samples.numpy(), rate)


@pytest.fixture
def corpus(tmp_path):
    return shutil.copytree(SHIPPED, tmp_path / "corpus")


def rewritten(folder, change):
    """The table with `change` applied to each row's cells; None leaves the row out."""
    path = folder / "metadata.csv"
    rows = [line.split("|") for line in path.read_text(encoding="utf-8").splitlines()]
    kept = [row for row in map(change, rows) if row is not None]
    path.write_text("".join("|".join(row) + "\n" for row in kept), encoding="utf-8")


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Three short clips."""
    folder = shutil.copytree(SHIPPED, tmp_path_factory.mktemp("few") / "few")
    clips = sorted(speech_clips(folder), key=lambda c: soundfile.info(c.path).frames)[:3]
    short = {clip.path.stem for clip in clips}
    rewritten(folder, lambda row: row if row[0] in short else None)
    return folder


@pytest.fixture(scope="module")
def learned(few):
    """A task, and a model that knows its three clips by heart."""
    task = known(few)
    torch.manual_seed(0)
    model = task.model()
    batch = task.collate([task.train[i] for i in range(3)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for _ in range(120):
        made = task.loss(model, batch)
        optimizer.zero_grad()
        (made.total / made.weight).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
    return task, model.eval()


# --- the model and its stages -------------------------------------------------------------------


@pytest.mark.parametrize("goal", GOALS)
def test_each_stage_takes_steps_that_lower_its_loss(few, goal):
    found = losses(known(few, goal=goal), torch.optim.AdamW, samples=3, steps=12, lr=4e-3)
    assert found[-1] < 0.9 * found[0]


def test_a_stage_goes_on_from_all_that_the_one_before_has_learned(few):
    models = [known(few, goal=goal).model().state_dict() for goal in GOALS]
    for before, after in itertools.pairwise(models):
        kinds = fitting.kinds(after, before)
        kept = {name.partition(".")[0] for name, kind in kinds.items() if kind == fitting.TAKEN}
        assert {"encoder", "normalise"} <= kept
        left = {name.partition(".")[0] for name in before if name not in after}
        assert left <= {"guess"}
    assert {name.partition(".")[0] for name in models[3]} == {
        "normalise", "encoder", "units", "ctc", "decoder",
    }  # fmt: skip
    assert models[2].keys() == models[3].keys()


@pytest.mark.parametrize(
    ("text", "written", "words"),
    [
        ("به خانه می\u200cروم.", "به خانه می\u200cروم", 3),
        ("क्\u200dया घर है?", "क्\u200dया घर है", 3),
        ("Der Fluß heißt Öl.", "der fluß heißt öl", 4),
        ("Işık, KIRMIZI!", "ışık kırmızı", 2),
        ("老师今天很高兴。", "老师今天很高兴", 7),
    ],
    ids=["fa", "hi", "de", "tr", "zh"],
)
def test_it_learns_from_transcripts_in_any_script(text, written, words, few, tmp_path):
    shutil.copytree(few, tmp_path / "few")
    rewritten(tmp_path / "few", lambda row: [row[0], text, text])
    task = known(tmp_path / "few")
    batch = task.collate([task.train[i] for i in range(3)])
    units = read_units(task.model().state_dict()["units.table"])
    assert units.decode(batch.units[0].tolist()) == written
    assert task.measure(task.model().eval(), batch)["wer"][1] == 3 * words
    found = losses(task, torch.optim.AdamW, samples=3, steps=8, lr=4e-3)
    assert found[-1] < found[0]


def test_a_checkpoint_holds_the_units_it_writes(few):
    table = known(few).model().state_dict()["units.table"]
    text = speech_clips(few)[0].text.lower().rstrip(".!?")
    assert read_units(table).decode(read_units(table).encode(text)) == text


def test_the_full_size_is_its_origins():
    template = tomllib.loads((FOLDER / "template.toml").read_text())
    assert [s["name"] for s in template["stage"]] == [*GOALS]
    assert [s["settings"]["task.goal"] for s in template["stage"]] == [*GOALS]
    joint = template["stage"][3]["settings"]
    assert (joint["task.ctc_weight_first"], joint["task.ctc_weight"]) == (0.7, 0.3)
    wanted = read_recipe(str(FOLDER / "full.toml"))
    settings = wanted.recipes[0].settings
    cut = settings["batch.micro_batch"], settings["batch.global_batch"]
    assert (cut, settings["optimizer.lr"]) == ((8, 32), 1e-4)
    assert settings["schedule.warmup_steps"] == 2000
    assert settings["evaluate.every_steps"] == settings["checkpoint.every_steps"] == 500
    names = ("width", "heads", "blocks", "layers", "units")
    assert [wanted.options[name] for name in names] == [512, 8, 3, 4, 2000]


def test_the_usual_size_is_small(few):
    model = load_task(CODE, str(few), {"by_heart": True}).model()
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(2.3e6, rel=0.1)


@torch.no_grad()
def test_a_clip_is_heard_and_written_as_alone_in_any_batch(few):
    task = known(few)
    torch.manual_seed(0)
    model = task.model().eval()
    samples = [task.valid[i] for i in range(3)]
    batch = task.collate(samples)
    rubbish = batch.features.clone()
    for place, frames in enumerate(batch.frames.tolist()):
        rubbish[place, frames:] = 1e2
    out = model(rubbish, batch.frames, batch.given)
    assert out.ctc.shape[:2] == (3, -(-batch.features.shape[1] // 4))
    for place, sample in enumerate(samples):
        one = task.collate([sample])
        alone = model(one.features, one.frames, one.given)
        assert int(alone.left) == int(out.left[place]) == -(-len(sample.features) // 4)
        torch.testing.assert_close(
            out.ctc[place, : int(alone.left)], alone.ctc[0, : int(alone.left)], atol=1e-4, rtol=1e-4
        )
        written = len(sample.units) + 1
        torch.testing.assert_close(
            out.written[place, :written], alone.written[0, :written], atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize("goal", GOALS)
def test_every_cut_of_a_batch_gives_the_same_loss_figures_and_gradient(few, goal):
    task = known(few, goal=goal, beam=2)
    torch.manual_seed(0)
    model, samples = task.model(), [task.train[i] for i in range(3)]

    def sums(cuts):
        model.zero_grad()
        total, weight, figures = 0.0, 0.0, {}
        for cut in cuts:
            batch = task.collate(cut)
            made = task.loss(model, batch)
            made.total.backward()
            total, weight = total + float(made.total.detach()), weight + float(made.weight)
            for name, pair in task.measure(model, batch).items():
                old = figures.get(name, (0, 0))
                figures[name] = tuple(int(a) + int(b) for a, b in zip(old, pair, strict=True))
        return total, weight, figures, model.encoder.subsampling.out.weight.grad.clone()

    whole, singly = sums([samples]), sums([[s] for s in samples])
    assert whole[0] == pytest.approx(singly[0], rel=1e-4)
    assert whole[1:3] == singly[1:3]
    torch.testing.assert_close(whole[3], singly[3], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("goal", GOALS)
def test_the_loss_is_computed_in_fp32_under_autocast(few, goal):
    task = known(few, goal=goal)
    with torch.autocast("cpu", torch.bfloat16):
        made = task.loss(task.model(), task.collate([task.train[0]]))
    assert made.total.dtype == torch.float32
    assert bool(made.total.isfinite())


def test_ctcs_share_falls_over_the_epochs_and_validation_has_the_last(few):
    task = known(few, ctc_weight_first=0.7, ctc_weight=0.3, anneal_epochs=4)
    model, shares = task.model(), []
    for epoch in (0, 1, 2, 4, 9):
        task.train.set_epoch(epoch)
        batch = task.collate([task.train[0]])
        made = task.loss(model, batch)
        shares.append(float(batch.share))
        share = batch.share * made.parts["ctc"] + (1 - batch.share) * made.parts["attention"]
        torch.testing.assert_close(made.total, share)
    assert shares == pytest.approx([0.7, 0.6, 0.5, 0.3, 0.3])
    assert float(task.collate([task.valid[0]]).share) == pytest.approx(0.3)
    assert float(known(few).collate([known(few).train[0]]).share) == 0.5


def test_smoothing_is_of_attention_and_for_training_only(few):
    plain, smooth = (known(few, label_smoothing=s) for s in (0.0, 0.3))
    torch.manual_seed(0)
    model = plain.model()
    batch = plain.collate([plain.train[0]])
    parts = [task.loss(model.train(), batch).parts for task in (plain, smooth)]
    assert float(parts[0]["ctc"].detach()) == float(parts[1]["ctc"].detach())
    assert float(parts[0]["attention"].detach()) != float(parts[1]["attention"].detach())
    ends = [float(task.loss(model.eval(), batch).total.detach()) for task in (plain, smooth)]
    assert ends[0] == ends[1]


# --- the data -----------------------------------------------------------------------------------


@pytest.mark.parametrize("goal", ["encoder", "joint"])
def test_batches_have_few_shapes(goal):
    task = load(goal=goal, by_heart=True)
    batches = [task.collate([task.valid[i]]) for i in range(12)]
    assert {batch.features.shape[1] % 32 for batch in batches} == {0}
    assert len({batch.features.shape for batch in batches}) < len({int(b.frames) for b in batches})
    assert all(0 <= b.features.shape[1] - int(b.frames) < 32 for b in batches)


@pytest.mark.parametrize("goal", ["encoder", "joint"])
def test_training_clips_vary_with_the_seed_and_validation_ones_never(goal):
    task = load(goal=goal)
    assert torch.equal(seen(task.train, 1), seen(task.train, 1))
    assert any(len(seen(task.train, 1)) != len(seen(task.train, n)) for n in range(2, 8))
    plain = load(goal="joint", augment=False)
    assert torch.equal(seen(plain.train, 1), seen(plain.train, 2))


def test_lengths_are_those_of_the_slowest_and_a_worker_gets_the_same():
    task = load()
    for index in range(4):
        torch.manual_seed(index)
        features = task.train[index].features
        assert len(features) <= task.length(index) + 1
    slowest = max(len(task.train[0].features) for _ in range(20))
    assert task.length(0) == pytest.approx(slowest, abs=1)
    train, collate = pickle.loads(pickle.dumps((task.train, task.collate)))
    torch.manual_seed(5)
    here = task.train[2]
    torch.manual_seed(5)
    there = train[2]
    assert torch.equal(here.features, there.features)
    assert collate([there]).units[0].tolist() == here.units


def test_sides_are_those_of_the_table_and_a_test_is_kept_apart():
    task = load()
    assert (len(task.train), len(task.valid), len(task.test)) == (18, 1, 1)
    assert len(load(goal="encoder").test) == 1


def test_without_a_split_sentences_are_held_out_by_their_words(corpus):
    rewritten(corpus, lambda row: row[:3])
    task = load(corpus, valid_share=0.2)
    assert (len(task.train), len(task.valid), task.test) == (16, 4, None)


def test_librispeech_and_common_voice_are_read_as_well(corpus, tmp_path):
    clips = speech_clips(SHIPPED)
    libri = tmp_path / "libri" / "train-clean-100" / "19" / "198"
    libri.mkdir(parents=True)
    (tmp_path / "voice" / "clips").mkdir(parents=True)
    lines, rows = [], [["client_id", "path", "sentence"]]
    for number, clip in enumerate(clips):
        name = f"19-198-{number:04d}"
        shutil.copy(clip.path, libri / f"{name}.flac")
        lines.append(f"{name} {clip.text.upper()}")
        shutil.copy(clip.path, tmp_path / "voice" / "clips" / f"{name}.flac")
        rows.append([clip.speaker, f"{name}.flac", clip.text])
    (libri / "19-198.trans.txt").write_text("\n".join(lines))
    with open(tmp_path / "voice" / "validated.tsv", "w", newline="") as file:
        csv.writer(file, delimiter="\t").writerows(rows)
    meant = {clip.text for clip in load(by_heart=True).train.spectra.loaded.items[0][:1]}
    for place in ("libri", "voice"):
        task = load(tmp_path / place, by_heart=True)
        assert len(task.train) == 20
        assert {item.clip.text for item in task.train.spectra.loaded.items} >= meant


def test_one_bad_clip_of_each_kind_is_named_and_skipped(corpus, caplog):
    clips = speech_clips(corpus)
    path = clips[3].path
    whole, table = path.read_bytes(), (corpus / "metadata.csv").read_text(encoding="utf-8")

    def text(words):
        name = path.stem
        rewritten(corpus, lambda row: [row[0], words, words, *row[3:]] if row[0] == name else row)

    spoiled = {
        "silent": lambda: wav(path.with_suffix(".wav"), torch.zeros(16_000)),
        "unreadable audio": lambda: path.write_bytes(whole[:500]),
        "no transcript": lambda: text(""),
        "numbers that are not spelled out: '1990s.'": lambda: text("In the 1990s."),
        "units need": lambda: text("It is a far, far better thing that I do. " * 6),
        "s, over 30 s": lambda: wav(path.with_suffix(".wav"), torch.rand(31 * 16_000) - 0.5),
    }
    for problem, spoil in spoiled.items():
        path.with_suffix(".wav").unlink(missing_ok=True)
        path.write_bytes(whole)
        (corpus / "metadata.csv").write_text(table, encoding="utf-8")
        spoil()
        if path.with_suffix(".wav").exists():
            path.unlink()
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            task = load(corpus)
        said = [r.getMessage() for r in caplog.records if "skipped" in r.getMessage()]
        assert [path.stem in line and problem in line for line in said] == [True], problem
        assert len(task.train) == 17, problem


def test_letters_that_no_training_transcript_has_are_named_and_the_clip_skipped(corpus, caplog):
    (valid,) = (c.path.stem for c in speech_clips(corpus) if c.split == "valid")
    more = shutil.copytree(corpus, corpus.with_name("more"))
    rewritten(more, lambda row: [f"{row[0]}b", *row[1:4], "valid"] if row[4] == "test" else row)
    test = next(c.path for c in speech_clips(corpus) if c.split == "test")
    test.rename(more / "wavs" / f"{test.stem}b.flac") if test.exists() else None
    (more / "wavs" / test.name).unlink()
    rewritten(more, lambda r: [r[0], "Ça va", "Ça va", *r[3:]] if r[0] == valid else r)
    with caplog.at_level(logging.WARNING):
        task = load(more)
    assert f"{valid}.flac: not among the" in caplog.text
    assert "'ç'" in caplog.text
    assert (len(task.train), len(task.valid)) == (18, 1)


def test_over_a_tenth_of_bad_clips_is_refused(corpus):
    for clip in speech_clips(corpus)[:3]:
        clip.path.write_bytes(b"nothing of use")
    with pytest.raises(AutotrainError, match=r"3 of 20 clips are damaged: .*000000\.flac"):
        load(corpus)


def test_wrong_options_a_corpus_without_transcripts_and_no_data_are_refused(tmp_path):
    for name, value in {"goal": "all", "beam": -1, "repetition": 0.5, "ctc_weight": 2}.items():
        with pytest.raises(AutotrainError, match=f"task.options.{name}"):
            load(**{name: value})
    with pytest.raises(AutotrainError, match="no data"):
        load_task(CODE, None, {})
    for clip in speech_clips(SHIPPED)[:4]:
        shutil.copy(clip.path, tmp_path)
    with pytest.raises(AutotrainError, match="4 of 4 transcripts are damaged"):
        load(tmp_path)


# --- what it says -------------------------------------------------------------------------------


def test_what_was_learned_by_heart_is_said_without_an_error(learned):
    task, model = learned
    with torch.no_grad():
        figures = task.measure(model, task.collate([task.valid[i] for i in range(3)]))
    assert figures["wer"][0] == figures["cer"][0] == figures["repeated"][0] == 0
    assert figures["wer"][1] > 5
    assert figures["cer"][1] > figures["wer"][1]


def test_a_transcript_is_the_same_of_another_rate_and_of_stereo(learned, few, tmp_path, caplog):
    task, model = learned
    clip = speech_clips(few)[0]
    samples = load_clip(clip.path, 16_000)
    wav(tmp_path / "stereo.wav", torch.stack([1.2 * samples, 0.8 * samples]))
    wav(tmp_path / "high.wav", resample(samples, 16_000, 44_100), 44_100)
    meant = {"transcript": clip.text.lower().rstrip(".!?").replace(",", "")}
    with caplog.at_level(logging.WARNING):
        for path in (clip.path, tmp_path / "stereo.wav", tmp_path / "high.wav"):
            said = task.predict(model, str(path), tmp_path)
            assert said == meant, path
            assert json.loads(json.dumps(said)) == said
        task.predict(model, str(tmp_path / "high.wav"), tmp_path)
    assert caplog.text.count("44100 Hz are resampled") <= 1


def test_a_clip_longer_than_those_of_the_training_is_read_in_pieces(learned, few, tmp_path):
    """Three clips one behind another, with pauses: what is said of each, in order."""
    _, model = learned
    clips = speech_clips(few)
    parts = [load_clip(clip.path, 16_000) for clip in clips]
    longest = max(len(part) for part in parts) / 16_000
    pause = torch.zeros(1600)
    wav(tmp_path / "long.wav", torch.cat([p for part in parts for p in (part, pause)]))
    task = known(few, max_seconds=longest + 0.3)
    said = task.predict(model, str(tmp_path / "long.wav"), tmp_path)["transcript"].split()
    heard = [task.predict(model, str(clip.path), tmp_path)["transcript"].split() for clip in clips]
    assert said[: len(heard[0])] == heard[0]
    assert len(said) > sum(map(len, heard)) / 2


def test_a_clip_that_cannot_be_heard_is_refused_by_its_name(learned, tmp_path):
    task, model = learned
    wav(tmp_path / "quiet.wav", torch.zeros(8000))
    for name in ("quiet.wav", "nowhere.wav"):
        with pytest.raises(AutotrainError, match=name):
            task.predict(model, str(tmp_path / name), tmp_path)


class Stuck(torch.nn.Module):
    """CTC that says the same two units for ever, whatever is heard."""

    decoder = None

    def __init__(self, units, two):
        super().__init__()
        self.ctc = torch.nn.Linear(units, units)
        torch.nn.init.eye_(self.ctc.weight)
        torch.nn.init.zeros_(self.ctc.bias)
        self.turns = torch.nn.functional.one_hot(torch.tensor([two[0], 0, two[1], 0]), units)

    def hear(self, features, frames):
        left = (frames + 3) // 4
        return self.turns.repeat(int(left.max()), 1)[: left.max()].float().expand(
            len(left), -1, -1
        ), left


def test_a_phrase_that_is_said_over_and_over_is_told_and_shown_once(learned, few, tmp_path):
    _, model = learned
    units = read_units(model.state_dict()["units.table"])
    begins = [n for n in range(2, units.count) if units.names[n - 2].startswith("\u2581")]
    stuck, plain = Stuck(units.count, begins[:2]), known(few, goal="ctc")
    figures = plain.measure(stuck, plain.collate([plain.valid[i] for i in range(3)]))
    assert figures["repeated"] == (3, 3)
    said = plain.predict(stuck, str(speech_clips(few)[0].path), tmp_path)["transcript"]
    assert said.split() == units.decode(begins[:2]).split()


def test_without_a_beam_it_is_ctcs_best_path_and_with_one_what_both_hold_likely(learned, few):
    task, model = learned
    search = load(few, by_heart=True, beam=3, search_ctc_weight=0.4, length_power=0.5).predict
    found = search.__self__.search
    assert (found.beam, found.ctc_weight, found.length_power, found.repetition) == (
        3,
        0.4,
        0.5,
        1.2,
    )
    batch = task.collate([task.valid[0]])
    with torch.no_grad():
        out = model(batch.features, batch.frames, batch.given)
        (said,) = known(few, beam=0).predict.__self__.transcripts(
            model, batch.features, batch.frames
        )
    (path,) = greedy(out.ctc, out.left)
    assert said == read_units(model.state_dict()["units.table"]).decode(path)


# --- plans and runs -----------------------------------------------------------------------------


def autotrain(folder, *arguments, code=0):
    command = [sys.executable, "-m", "autotrain", *arguments]
    environment = {**os.environ, "AUTOTRAIN_HOME": str(folder / "home"), "AUTOTRAIN_BUSY": "ignore"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    return done


def measured(run, name):
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    return [e["metrics"][name] for e in events if name in e.get("metrics", {})]


PLAN = (
    "plan", str(SHIPPED), "--template", "hybrid-stt", "--no-trial", "--no-calibrate",
    "--set=device.threads=1",
)  # fmt: skip
TINY = [f"--set=task.{name}={value}" for name, value in SMALL.items()]


@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe", ["", "conservative", "aggressive", "regularized", "overfit", "finetune", "full"]
)
def test_all_stages_run_by_every_recipe(tmp_path, recipe):
    name = str(FOLDER / "full.toml") if recipe == "full" else recipe
    more = ["--recipe", name] if name else []
    autotrain(tmp_path, *PLAN, *TINY, *more)
    autotrain(tmp_path, "run", "plan.toml", "--max-steps", "2")
    for number, goal in enumerate(GOALS, 1):
        assert (tmp_path / f"runs/hybrid-stt/{number}-{goal}/checkpoints/latest").is_file()


@pytest.mark.slow
def test_a_joint_stage_that_was_stopped_goes_on_to_the_same_weights(tmp_path):
    """Its loss changes with the epochs."""
    options = [*TINY, "--stage=joint:task.anneal_epochs=3", "--set=train.epochs=3"]
    autotrain(tmp_path, *PLAN, *options)
    ends = []
    for name, parts in {"whole": [[]], "stopped": [["--max-steps", "7"], ["--resume"]]}.items():
        (tmp_path / name).mkdir()
        shutil.copy(tmp_path / "plan.toml", tmp_path / name)
        for part in parts:
            autotrain(tmp_path / name, "run", "plan.toml", *part)
        run = tmp_path / name / "runs/hybrid-stt/1-joint/checkpoints"
        last = run / (run / "latest").read_text().strip()
        ends.append((last / "model.safetensors").read_bytes())
    assert last.name == "step-00000015"
    assert ends[0] == ends[1]


@pytest.mark.slow
def test_recipe_overfit_learns_a_few_clips_by_heart(few, tmp_path):
    autotrain(
        tmp_path, "plan", str(few), *PLAN[2:], "--recipe", "overfit", *TINY,
        "--set=optimizer.lr=3e-3", "--set=train.epochs=120", "--set=evaluate.every_epochs=40",
    )  # fmt: skip
    autotrain(tmp_path, "run", "plan.toml")
    assert measured(tmp_path / "runs/hybrid-stt/4-joint", "wer")[-1] == 0


@pytest.mark.slow
@pytest.mark.skipif(not is_here(), reason="needs espeak-ng")
def test_unseen_sentences_are_read_with_under_15_percent_of_words_wrong(tmp_path):
    """The figure of the README; half an hour on two quiet cores."""
    make = [sys.executable, "-m", "autotrain.blocks.corpus", "speech", "--hours", "1"]
    subprocess.run(make, cwd=tmp_path, check=True)
    autotrain(tmp_path, "plan", "speech", "--template", "hybrid-stt", "--no-trial")
    autotrain(tmp_path, "run", "plan.toml")
    stages = [tmp_path / f"runs/hybrid-stt/{n}-{goal}" for n, goal in enumerate(GOALS, 1)]
    assert min(measured(stages[3], "wer")) < 0.15
    assert min(measured(stages[3], "wer")) < min(measured(stages[1], "wer"))
