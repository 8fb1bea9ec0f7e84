"""A speaker: what padding changes, how it is taught and told, and what bad clips do."""

import csv
import json
import logging
import math
import os
import pickle
import shutil
import subprocess
import sys
import tomllib

import numpy as np
import pytest
import soundfile
import torch

from autotrain.blocks.alignments import alignment_path, alignment_text, read_alignment
from autotrain.blocks.corpus import SHIPPED, espeak
from autotrain.blocks.error_rates import word_errors
from autotrain.blocks.layouts import speech_clips
from autotrain.blocks.normalising import normalised
from autotrain.blocks.speaking import Wish
from autotrain.errors import AutotrainError
from autotrain.files import shipped
from autotrain.task import load_module, load_task

FOLDER = shipped("templates") / "fastspeech2-tts"
CODE = FOLDER / "task.py"
SMALL = {"width": 16, "inner": 24, "encoder_blocks": 1, "decoder_blocks": 1, "dropout": 0.0}
PARTS = ("mel", "duration", "pitch", "energy")
needs_espeak = pytest.mark.skipif(not espeak.is_here(), reason="espeak-ng is not installed")


def load(data=SHIPPED, **options):
    return load_task(CODE, str(data), SMALL | options)


def parameters(model):
    return sum(p.numel() for p in model.parameters())


@pytest.fixture(scope="module")
def task():
    return load()


@pytest.fixture
def model(task):
    torch.manual_seed(0)
    return task.model().eval()


@pytest.fixture
def copied(tmp_path):
    return shutil.copytree(SHIPPED, tmp_path / "corpus")


def table(folder, change):
    """Rewrite the table: `change` takes each row's number and its cells, and gives them back."""
    path = folder / "metadata.csv"
    rows = csv.reader(path.read_text(encoding="utf-8").splitlines(), delimiter="|")
    lines = ["|".join(change(number, cells)) for number, cells in enumerate(rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def spoil_table(path, change):
    alignment_path(path).write_text(alignment_text(change(read_alignment(path))), encoding="utf-8")


def told_apart(phones):
    """The same lengths, of phonemes that every clip has."""
    return [phone._replace(phoneme="_@"[place % 2]) for place, phone in enumerate(phones)]


def talks(model, durations=(3.0, 5.0)):
    """Untrained, it would give most phonemes no time: have them last."""
    model.duration.out.bias.data.fill_(math.log1p(durations[1]))
    model.duration.out.weight.data.zero_()
    return model


def test_a_clips_spectra_and_figures_are_the_same_in_any_batch(task, model):
    samples = [task.train[i] for i in range(4)]
    batch = task.collate(samples)
    code = load_module(CODE)

    def told(batch):
        pitch, energy = code.meant(model, batch)
        time = batch.mels.shape[1]
        return model(batch.phonemes, batch.counts, batch.speaker, batch.durations, pitch, energy,
                     time)  # fmt: skip

    rubbish = batch._replace(
        phonemes=torch.where(batch.phonemes == 0, 5, batch.phonemes), mels=batch.mels.clone()
    )
    together = told(rubbish)
    for row, sample in enumerate(samples):
        one = told(task.collate([sample]))
        frames, count = len(sample.mels), len(sample.phonemes)
        torch.testing.assert_close(
            together.mels[row, :frames], one.mels[0, :frames], atol=1e-4, rtol=1e-4
        )
        for all_of, alone in zip(together[1:], one[1:], strict=True):
            torch.testing.assert_close(all_of[row, :count], alone[0, :count], atol=1e-4, rtol=1e-4)


def test_what_is_spoken_untaught_is_the_same_in_any_batch(task, model):
    talks(model)
    samples = [task.train[i] for i in range(3)]
    batch = task.collate(samples)
    mels, durations = model.speak(batch.phonemes, batch.counts, batch.speaker, Wish(""))
    for row, sample in enumerate(samples):
        one = task.collate([sample])
        alone, lasts = model.speak(one.phonemes, one.counts, one.speaker, Wish(""))
        frames = int(lasts.sum())
        assert int(durations[row].sum()) == frames == 5 * len(sample.phonemes)
        torch.testing.assert_close(mels[row, :frames], alone[0, :frames], atol=1e-4, rtol=1e-4)


def test_every_cut_of_a_batch_gives_the_same_loss_parts_figures_and_gradient(task, model):
    talks(model)
    samples = [task.train[i] for i in range(4)]

    def sums(cuts):
        model.zero_grad()
        found = np.zeros(len(PARTS) + 6)
        for cut in cuts:
            batch = task.collate(cut)
            made, figures = task.loss(model, batch), task.measure(model, batch)
            made.total.backward()
            parts = [made.total, made.weight, *(made.parts[name] for name in PARTS)]
            pairs = [*figures["mcd"], *figures["duration_ms"]]
            found += [float(torch.as_tensor(value).detach()) for value in parts + pairs]
        return found, model.encoder.blocks[0].narrow.weight.grad.clone()

    (whole, gradient), (singly, again) = sums([samples]), sums([[s] for s in samples])
    np.testing.assert_allclose(whole, singly, rtol=1e-4)
    torch.testing.assert_close(gradient, again, rtol=1e-3, atol=1e-2)
    assert whole[0] == pytest.approx(sum(whole[2:6]))
    assert whole[1] == sum(len(sample.mels) for sample in samples)


def test_a_phonemes_errors_count_as_many_frames_as_phonemes_last(task, model):
    batch = task.collate([task.train[i] for i in range(18)])
    made = task.loss(model, batch)
    code = load_module(CODE)
    pitch, energy = code.meant(model, batch)
    told = model(batch.phonemes, batch.counts, batch.speaker, batch.durations, pitch, energy,
                 batch.mels.shape[1])  # fmt: skip
    apart = (told.durations - batch.durations.float().log1p()).square().sum() / batch.counts.sum()
    torch.testing.assert_close(made.parts["duration"] / made.weight, apart, rtol=1e-4, atol=1e-4)


def test_phonemes_without_a_frame_have_neither_pitch_nor_energy(task, model):
    batch = task.collate([task.train[0]])
    place = int((batch.durations[0] > 2).nonzero()[3])
    durations = batch.durations.clone()
    durations[0, place + 1] += durations[0, place]
    durations[0, place] = 0
    silent = batch._replace(durations=durations)
    code = load_module(CODE)
    pitch, energy = code.meant(model, silent)
    assert float(pitch[0, place]) == float(energy[0, place]) == 0
    low = silent._replace(pitch=silent.pitch.clone().index_fill_(1, torch.tensor([place]), 400.0))
    torch.testing.assert_close(task.loss(model, silent).total, task.loss(model, low).total)
    told = model(batch.phonemes, batch.counts, batch.speaker, durations, pitch, energy,
                 batch.mels.shape[1])  # fmt: skip
    for name, aim in (("pitch", pitch), ("energy", energy)):
        apart = (getattr(told, name) - aim)[durations > 0].square().sum()
        lasts = task.loss.__self__.frames
        torch.testing.assert_close(task.loss(model, silent).parts[name], apart * lasts)


def test_the_loss_is_computed_in_fp32_under_autocast(task, model):
    with torch.autocast("cpu", torch.bfloat16):
        made = task.loss(model, task.collate([task.train[0]]))
    assert made.total.dtype == torch.float32


def test_all_four_losses_fall_within_a_few_steps():
    made = load(width=48, inner=64)
    torch.manual_seed(0)
    model, batch = made.model(), made.collate([made.train[i] for i in range(3)])
    optimizer, found = torch.optim.Adam(model.parameters(), lr=5e-3), []
    for _ in range(25):
        step = made.loss(model, batch)
        found.append([float(step.parts[name].detach() / step.weight) for name in PARTS])
        optimizer.zero_grad()
        (step.total / step.weight).backward()
        optimizer.step()
    for name, first, last in zip(PARTS, found[0], found[-1], strict=True):
        assert last < 0.7 * first, name


def test_figures_are_of_what_it_speaks_untaught(task, model):
    talks(model)
    batch = task.collate([task.train[0]])
    wrong, count = task.measure(model, batch)["duration_ms"]
    expected = (batch.durations[0] - 5).abs()[: int(count)].sum() * 256 / 16
    assert float(wrong) == pytest.approx(float(expected))
    total, pairs = task.measure(model, batch)["mcd"]
    assert 2 < total / pairs < 60


@torch.no_grad()
def test_wishes_change_length_pitch_and_energy_and_each_speaker_is_another(task, model):
    talks(model)
    one = task.collate([task.train[0]])
    asked = (one.phonemes, one.counts, one.speaker)
    mels, durations = model.speak(*asked, Wish(""))
    slow, longer = model.speak(*asked, Wish("", speed=0.5))
    assert int(longer.sum()) == 2 * int(durations.sum()) == len(slow[0])
    for other in (Wish("", pitch=6.0), Wish("", energy=2.0)):
        assert float((model.speak(*asked, other)[0] - mels).abs().mean()) > 1e-3
    someone = (one.phonemes, one.counts, (one.speaker + 1) % 7)
    assert float((model.speak(*someone, Wish(""))[0] - mels).abs().mean()) > 1e-3
    octave = model.higher(torch.zeros(1), Wish("", pitch=12.0))
    hertz = model.usual_pitch.undone(torch.stack([torch.zeros(1), octave])).exp().flatten()
    assert float(hertz[1] / hertz[0]) == pytest.approx(2, rel=1e-4)


@needs_espeak
def test_a_text_becomes_a_wav(task, model, tmp_path):
    talks(model)
    voice = model.speakers.units.names[-1]
    said = task.predict(model, f"[voice={voice}] Six horses. Far, far!", tmp_path)
    assert said["voice"] == voice
    assert said["phonemes"].split()[:5] == ["_", "s", "I", "k", "s"]
    json.dumps(said)
    frames = 5 * len(said["phonemes"].split())
    info = soundfile.info(said["wav"])
    assert (info.samplerate, info.frames) == (16_000, (frames - 1) * 256)
    assert said["seconds"] == pytest.approx(info.frames / 16_000, abs=1e-3)


@needs_espeak
def test_texts_that_cannot_be_spoken_are_refused_by_what_they_have(task, model, tmp_path):
    talks(model)
    for given, named in {
        "": "empty text",
        "...": "nothing is spoken",
        "[voice=me] Six.": "no voice 'me' was trained",
        "Loch, Bach, façade, Zürich, ночь": "not among the .* symbols: ",
    }.items():
        with pytest.raises(AutotrainError, match=named):
            task.predict(model, given, tmp_path)
    with pytest.raises(AutotrainError, match="no time at all for '_ s I k s"):
        task.predict(talks(model, (0.0, 0.0)), "Six.", tmp_path)
    assert not list(tmp_path.iterdir())


@needs_espeak
def test_a_speaker_of_another_language_reads_by_its_voice(copied, tmp_path):
    table(copied, lambda _, cells: [*cells[:3], "anna", *cells[4:]])
    german = load(copied, language="de")
    model = talks(german.model().eval())
    with pytest.raises(
        AutotrainError, match=r"no training clip has phonemes .* symbols: "
    ) as found:
        german.predict(model, "Zwölf Boxkämpfer jagen Eva über den Deich.", tmp_path)
    assert "language" in found.value.hint
    said = german.predict(model, "[language=en-us] Six horses.", tmp_path)
    assert (said["voice"], said["phonemes"].split()[:4]) == ("anna", ["_", "s", "I", "k"])
    heard = load(copied).predict(model, "Six horses.", tmp_path)
    assert heard["phonemes"] == said["phonemes"]


def test_a_checkpoint_of_other_phonemes_or_speakers_is_refused(copied, model):
    table(copied, lambda _, cells: [*cells[:3], "me", *cells[4:]])
    other = load(copied).model()
    with pytest.raises(RuntimeError, match=r"speakers.table: the units that it was trained with"):
        other.load_state_dict(model.state_dict(), strict=False)


def test_one_speaker_or_none_is_as_good_as_several(copied):
    table(copied, lambda _, cells: cells[:3])
    made = load(copied)
    model = made.model()
    assert model.speakers.units.names == ("anybody",)
    assert bool(made.loss(model, made.collate([made.train[0]])).total.isfinite())


def test_the_split_of_the_corpus_counts_and_sentences_are_held_out_without_one(copied):
    def split(number, cells):
        return [*cells[:3], "me", "test" if number < 3 else "valid" if number < 5 else "train"]

    table(copied, split)
    for clip in speech_clips(copied)[:5]:
        spoil_table(clip.path, told_apart)
    made = load(copied)
    assert (len(made.train), len(made.valid), len(made.test)) == (15, 2, 3)
    table(copied, lambda _, cells: cells[:3])
    for clip in speech_clips(copied):
        spoil_table(clip.path, told_apart)
    bare = load(copied, valid_share=0.2)
    assert (len(bare.train), len(bare.valid), bare.test) == (16, 4, None)


def test_datasets_and_collate_can_be_sent_to_a_worker(task):
    data, collate = pickle.loads(pickle.dumps((task.train, task.collate)))
    assert torch.equal(data[2].mels, task.train[2].mels)
    batch = collate([data[2]])
    assert task.length(2) == pytest.approx(int(batch.frames), abs=1)
    assert batch.mels.shape[1] % 16 == batch.phonemes.shape[1] % 16 == 0


SPOILED = {
    "silent": lambda path: soundfile.write(path, np.zeros(16_000), 16_000),
    "unreadable audio": lambda path: path.write_bytes(b"nothing of use"),
    "no phonemes beside it": lambda path: alignment_path(path).unlink(),
    "its phonemes last": lambda path: spoil_table(path, lambda phones: phones[:-6]),
    "no phonemes but pauses": lambda path: spoil_table(
        path, lambda phones: [p._replace(phoneme="_") for p in phones]
    ),
    "is no number from 0 to 3600": lambda path: spoil_table(
        path, lambda phones: [phones[0]._replace(seconds=math.nan), *phones[1:]]
    ),
    "over 20 s": lambda path: soundfile.write(path, np.random.default_rng(0).random(21_000), 1000),
    "an empty transcript": lambda path: table(
        path.parents[1], lambda _, cells: [cells[0], "", "", *cells[3:]] if cells[0] == path.stem
        else cells,
    ),
}  # fmt: skip


@pytest.mark.parametrize("problem", SPOILED)
def test_one_bad_clip_of_each_kind_is_named_and_skipped(copied, caplog, problem):
    path = next(clip.path for clip in speech_clips(copied) if clip.split == "train")
    if problem == "silent":
        spoil_table(path, lambda phones: [phones[0]._replace(seconds=1.0, phoneme="a")])
    SPOILED[problem](path)
    with caplog.at_level(logging.WARNING):
        made = load(copied)
    assert len(made.train) == 17
    said = [r.getMessage() for r in caplog.records if "skipped" in r.getMessage()]
    assert [path.stem in line and problem in line for line in said] == [True]


def test_over_a_tenth_of_bad_clips_is_refused(copied):
    for clip in speech_clips(copied)[:3]:
        alignment_path(clip.path).unlink()
    with pytest.raises(AutotrainError, match=r"3 of 20 clips are damaged: .*no phonemes beside it"):
        load(copied)


def test_a_held_out_clip_of_a_phoneme_or_speaker_that_nobody_trained_is_left_out(copied, caplog):
    def split(number, cells):
        who = "stranger" if number == 1 else "me"
        return [*cells[:3], who, "valid" if number < 3 else "train"]

    table(copied, split)
    for clip in speech_clips(copied)[:3]:
        spoil_table(clip.path, told_apart)
    path = speech_clips(copied)[0].path
    spoil_table(path, lambda phones: [phones[0]._replace(phoneme="!x"), *phones[1:]])
    with caplog.at_level(logging.WARNING):
        made = load(copied)
    assert len(made.valid) == 1
    assert f"left out: {path}: not among the" in caplog.text
    assert "'!x'" in caplog.text
    assert "stranger speaks in no training clip" in caplog.text


def test_clips_of_another_rate_and_in_stereo_are_heard_as_they_are(task, copied, caplog):
    from autotrain.blocks import audio

    audio._say_resampled.cache_clear()
    for clip in speech_clips(copied)[:2]:
        samples, rate = soundfile.read(clip.path)
        both = np.stack([samples.repeat(2), samples.repeat(2)], axis=1)
        soundfile.write(clip.path, both, 2 * rate)
    with caplog.at_level(logging.WARNING):
        made = load(copied)
    said = [r for r in caplog.records if "resampled" in r.getMessage()]
    assert len(said) == 1
    here, there = made.train[0], task.train[0]
    assert torch.equal(here.durations, there.durations)
    low = slice(0, 40)  # what repeated samples leave as it was
    assert float((here.mels - there.mels)[:, low].abs().median()) < 0.2


def test_wrong_options_and_no_data_are_refused_by_name():
    for name, value in {"width": 0, "hop": 2000, "highest": 9000, "dropout": 1}.items():
        with pytest.raises(AutotrainError, match=f"task.options.{name}"):
            load(**{name: value})
    with pytest.raises(AutotrainError, match=r"mine.py: a vocoder is an .onnx file"):
        load(vocoder="mine.py")
    with pytest.raises(AutotrainError, match="no data"):
        load_task(CODE, None, {})


def test_the_full_size_is_the_origins_ten_million():
    recipe = tomllib.loads((FOLDER / "full.toml").read_text())
    made = load_task(CODE, str(SHIPPED), recipe["options"])
    assert parameters(made.model()) == pytest.approx(10e6, rel=0.03)
    assert made.train[0].mels.shape[1] == 80
    assert recipe["settings"]["schedule.warmup_steps"] == 4000


def autotrain(folder, *arguments):
    command = [sys.executable, "-m", "autotrain", *arguments]
    environment = {**os.environ, "AUTOTRAIN_HOME": str(folder / "home"), "AUTOTRAIN_BUSY": "ignore"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=True
    )


def parts_of(run):
    """Each loss part per frame, by steps."""
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    return [event["parts"] for event in events if event["event"] == "step"]


def said_in(run):
    """The metrics of its evaluations."""
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    return [event["metrics"] for event in events if event["event"] == "evaluated"]


def make_corpus(out, *arguments):
    command = [sys.executable, "-m", "autotrain.blocks.corpus", str(out), *arguments]
    subprocess.run(command, check=True)


@pytest.mark.slow
@needs_espeak
def test_one_voice_learns_to_speak_all_four_losses_fall(tmp_path):
    make_corpus(tmp_path / "voice", "--clips", "300", "--voices", "en-us+f2", "--speeds", "160",
                "--pitches", "50")  # fmt: skip
    autotrain(tmp_path, "plan", "voice", "--template", "fastspeech2-tts", "--no-trial", "--set",
              "run.name=tts")  # fmt: skip
    autotrain(tmp_path, "run", "plan.toml")
    run = tmp_path / "runs/tts"
    found = parts_of(run)
    for name in PARTS:
        assert found[-1][name] < 0.5 * found[0][name], name
    last = said_in(run)[-1]
    assert last["mcd"] < 4.5
    assert last["duration_ms"] < 15


@pytest.mark.slow
def test_the_origins_recipe_plans_and_runs_as_it_is_written(tmp_path):
    recipe = str(FOLDER / "full.toml")
    autotrain(tmp_path, "plan", str(SHIPPED), "--template", "fastspeech2-tts", "--recipe", recipe,
              "--no-trial", "--set", "run.name=full")  # fmt: skip
    plan = tomllib.loads((tmp_path / "plan.toml").read_text())
    assert (plan["batch"]["micro_batch"], plan["batch"]["accum_steps"]) == (16, 2)
    assert (plan["optimizer"]["name"], plan["optimizer"]["clip_norm"]) == ("adam", 1.0)
    assert (plan["schedule"]["name"], plan["schedule"]["warmup_steps"]) == ("exponential", 4000)
    assert (plan["schedule"]["factor"], plan["schedule"]["period_steps"]) == (0.5, 50_000)
    autotrain(tmp_path, "run", "plan.toml", "--max-steps", "2")
    assert len(parts_of(tmp_path / "runs/full")) == 2


def can_predict():
    asked = [sys.executable, "-m", "autotrain", "predict", "--help"]
    return subprocess.run(asked, capture_output=True, check=False).returncode == 0


@pytest.mark.slow
@needs_espeak
@pytest.mark.skipif(
    not (shipped("templates") / "hybrid-stt").is_dir() or not can_predict(),
    reason="no recogniser to read it back",
)
def test_a_recogniser_of_the_same_corpus_reads_unseen_sentences_back(tmp_path):
    make_corpus(tmp_path / "speech", "--hours", "1")
    for name in ("fastspeech2-tts", "hybrid-stt"):
        autotrain(tmp_path, "plan", "speech", "--template", name, "--no-trial", "--set",
                  f"run.name={name}", "-o", f"{name}.toml")  # fmt: skip
        autotrain(tmp_path, "run", f"{name}.toml")
    unseen = [clip for clip in speech_clips(tmp_path / "speech") if clip.split == "test"][:40]
    texts = [f"[voice={clip.speaker}] {clip.text}" for clip in unseen]
    spoken = answers(autotrain(tmp_path, "predict", "runs/fastspeech2-tts", *texts, "--json"))
    wavs = [str(tmp_path / each["wav"]) for each in spoken]
    read = answers(autotrain(tmp_path, "predict", "runs/hybrid-stt", *wavs, "--json"))
    meant = [normalised(clip.text) for clip in unseen]
    errors, words = word_errors(meant, [each["transcript"] for each in read])
    assert errors < 0.2 * words


def answers(done):
    return [json.loads(line) for line in done.stdout.splitlines()]
