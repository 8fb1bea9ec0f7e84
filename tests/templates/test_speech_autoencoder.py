"""The speech autoencoder: its size, loss and shipped clips, and what it does with bad ones."""

import logging
import pickle
import shutil
import tomllib
from pathlib import Path

import pytest
import soundfile
import torch

from autotrain.blocks.layouts import speech_clips
from autotrain.errors import AutotrainError
from autotrain.files import shipped
from autotrain.task import load_module, load_task

from .house import losses

FOLDER = shipped("templates") / "speech-autoencoder"
CLIPS = FOLDER / "clips"
CODE = FOLDER / "task.py"


def load(data=CLIPS, **options):
    return load_task(CODE, str(data), options)


def some_clips(folder, count=10):
    folder.mkdir()
    for clip in speech_clips(CLIPS)[:count]:
        shutil.copy(clip.path, folder)
    return folder


@pytest.fixture(scope="module")
def small():
    return load(width=24)


def test_the_model_has_5_8_million_parameters_and_100_latent_features():
    model = load().model()
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(5.8e6, rel=0.02)
    assert model.encode(torch.zeros(2, 3, 441)).shape == (2, 3, 100)
    assert [x.shape for x in model(torch.zeros(2, 3, 441))] == [(2, 3, 441)] * 2


def test_shipped_clips_match_their_table_and_are_small():
    clips = speech_clips(CLIPS)
    rows = (CLIPS / "metadata.csv").read_text(encoding="utf-8").splitlines()
    assert [f"{c.path.stem}|{c.text}" for c in clips] == rows
    assert len({c.path for c in clips}) == len(list((CLIPS / "wavs").iterdir())) == 20
    for clip in clips:
        info = soundfile.info(str(clip.path))
        assert (info.samplerate, info.channels, info.format) == (16_000, 1, "FLAC")
        assert 2 <= info.duration <= 4.5
    assert sum(c.path.stat().st_size for c in clips) < 2_000_000


def test_the_script_that_made_the_clips_has_their_sentences():
    module = load_module(FOLDER / "make_clips.py")
    assert list(module.SENTENCES) == [c.text for c in speech_clips(CLIPS)]


def test_clips_are_split_16_to_4_the_same_every_time(small):
    paths = [[c.path for c in s.loaded.items] for s in (small.train, small.valid)]
    again = load(width=24)
    assert paths == [[c.path for c in s.loaded.items] for s in (again.train, again.valid)]
    assert [len(p) for p in paths] == [16, 4]
    assert not set(paths[0]) & set(paths[1])


def in_librispeech(folder, names):
    for place, clip in zip(3 * ["train-clean-5", "train-clean-5", "dev-clean", "test-clean"], names,
                           strict=True):  # fmt: skip
        (folder / place / "7" / "1").mkdir(parents=True, exist_ok=True)
        shutil.copy(clip.path, folder / place / "7" / "1")
        with open(folder / place / "7" / "1" / "7-1.trans.txt", "a", encoding="utf-8") as table:
            table.write(f"{clip.path.stem} WORDS\n")


def in_ljspeech(folder, names):
    sides = 3 * ["train", "train", "dev", "test"]
    rows = [f"{c.path.stem}|x|x|me|{side}" for c, side in zip(names, sides, strict=True)]
    (folder / "wavs").mkdir(parents=True)
    (folder / "metadata.csv").write_text("\n".join(rows))
    for clip in names:
        shutil.copy(clip.path, folder / "wavs")


def in_common_voice(folder, names):
    (folder / "clips").mkdir(parents=True)
    for table, some in (("train", names[0::4] + names[1::4]), ("dev", names[2::4]),
                        ("test", names[3::4])):  # fmt: skip
        rows = ["path\tsentence", *(f"{clip.path.name}\tx" for clip in some)]
        (folder / f"{table}.tsv").write_text("\n".join(rows))
    for clip in names:
        shutil.copy(clip.path, folder / "clips")


@pytest.mark.parametrize("layout", [in_librispeech, in_ljspeech, in_common_voice])
def test_a_corpus_own_split_is_kept_to(layout, tmp_path):
    clips = speech_clips(CLIPS)[:12]
    layout(tmp_path / "corpus", clips)
    task = load(tmp_path / "corpus", width=24)
    parts = [[c.path.name for c in each.loaded.items] for each in (task.train, task.valid)]
    names = [clip.path.name for clip in clips]
    assert sorted(parts[0]) == sorted(names[0::4] + names[1::4])
    assert sorted(parts[1]) == names[2::4]
    assert sorted(clip.path.name for clip in task.test.loaded.items) == names[3::4]


def test_without_a_test_split_there_is_none(small):
    assert small.test is None


def test_lengths_are_the_frames_of_each_clip(small):
    for index in range(len(small.train)):
        assert small.train[index].shape[1] == 441
        assert small.length(index) == pytest.approx(len(small.train[index]), abs=1)


def test_a_constant_scores_a_loss_of_one(small):
    model = small.model()
    torch.nn.init.zeros_(model.rebuild.weight)
    torch.nn.init.zeros_(model.rebuild.bias)
    loss = small.loss(model, small.collate([small.train[i] for i in range(16)]))
    assert loss.total.item() / loss.weight == pytest.approx(1.0, abs=1e-3)


def test_every_cut_of_a_batch_gives_the_same_loss_measures_and_gradient(small):
    torch.manual_seed(0)
    model = small.model()
    samples = [small.train[i][: 20 + 15 * i] for i in range(4)]

    def sums(cuts):
        model.zero_grad()
        total, weight, figures = 0.0, 0, {}
        for cut in cuts:
            batch = small.collate(cut)
            loss = small.loss(model, batch)
            loss.total.backward()
            total, weight = total + loss.total.item(), weight + loss.weight
            for name, (share, count) in small.measure(model, batch).items():
                old = figures.get(name, (0.0, 0.0))
                figures[name] = (old[0] + share.item(), old[1] + float(count))
        return total, weight, figures, model.squeeze.weight.grad.clone()

    whole, singly = sums([samples]), sums([[s] for s in samples])
    assert whole[1] == singly[1] == sum(s.numel() for s in samples)
    assert whole[0] == pytest.approx(singly[0], rel=1e-5)
    for name in ("explained", "error_db"):
        assert whole[2][name] == pytest.approx(singly[2][name], rel=1e-4)
    assert torch.allclose(whole[3], singly[3], rtol=1e-3, atol=1e-2)


def test_what_stands_in_the_padding_does_not_change_the_loss(small):
    model = small.model().eval()
    batch = small.collate([small.train[0][:10], small.train[1][:30]])
    other = batch.spectra.clone()
    other[0, 10:] = 1e3
    first, second = (small.loss(model, b).total for b in (batch, batch._replace(spectra=other)))
    assert torch.equal(first, second)


def test_the_loss_falls_within_a_few_steps(small):
    found = losses(small, torch.optim.Adam, samples=4, steps=25, lr=5e-3)
    assert found[-1] < 0.5 * found[0]


def test_samples_collate_and_dataset_can_be_sent_to_a_worker(small):
    copy = pickle.loads(pickle.dumps((small.train, small.collate)))
    assert torch.equal(copy[0][0], small.train[0])


def test_one_damaged_clip_in_ten_is_named_and_skipped(tmp_path, caplog):
    folder = some_clips(tmp_path / "clips")
    (folder / "bn-03.flac").write_bytes((folder / "bn-03.flac").read_bytes()[:3000])
    with caplog.at_level(logging.WARNING):
        task = load(folder, width=8)
    assert len(task.train) + len(task.valid) == 9
    assert "skipped" in caplog.text
    assert "bn-03.flac" in caplog.text


def test_two_damaged_clips_in_ten_are_refused_by_name(tmp_path):
    folder = some_clips(tmp_path / "clips")
    (folder / "bn-03.flac").write_bytes(b"no audio")
    soundfile.write(folder / "bn-04.flac", torch.zeros(16_000).numpy(), 16_000)
    (folder / "bn-05.flac").write_bytes(b"no audio")
    with pytest.raises(AutotrainError, match=r"2 of 10 clips are damaged: .*bn-03.flac"):
        load(folder)


def test_a_corpus_of_silence_or_of_one_clip_is_refused(tmp_path):
    one = some_clips(tmp_path / "one", 1)
    with pytest.raises(AutotrainError, match="clips that can be read: 1; 2 are the least"):
        load(one)
    (tmp_path / "silent").mkdir()
    for name in "ab":
        soundfile.write(tmp_path / "silent" / f"{name}.wav", torch.zeros(16_000).numpy(), 16_000)
    with pytest.raises(AutotrainError, match=r"2 of 2 clips are damaged: .*silent"):
        load(tmp_path / "silent")


def test_without_data_the_shipped_clips_are_taken_and_long_ones_are_cut():
    task = load_task(CODE, None, {"max_seconds": 1.0, "width": 8})
    assert len(task.train) + len(task.valid) == 20
    assert {len(task.train[i]) for i in range(16)} == {51}


def test_the_origins_table_stands_in_the_template():
    table = [
        (s.get("up_to"), *s["settings"].values())
        for s in tomllib.loads((FOLDER / "template.toml").read_text())["sizes"]
        if s.get("devices") == ["cpu"]
    ]
    assert table == [
        (10, 2, 1.5e-3, 50, 5, 10),
        (50, 4, 1.5e-3, 30, 5, 6),
        (200, 8, 1.0e-3, 20, 20, 4),
        (None, 16, 1.0e-3, 20, 20, 4),
    ]


def test_wrong_options_are_refused_by_name():
    for name, value in {"latent": 0, "dropout": 1.5, "valid_share": 0.0}.items():
        with pytest.raises(AutotrainError, match=f"task.options.{name}"):
            load(**{name: value})
    with pytest.raises(AutotrainError, match="no such folder"):
        load(Path("/nowhere"))


def test_a_clip_is_answered_with_what_is_left_of_it(small, tmp_path):
    """A model whose output is its input leaves all of it but the phases."""
    clip = speech_clips(CLIPS)[0].path
    model = small.model().eval()
    with torch.no_grad():
        found = small.predict(model, str(clip), tmp_path)
        frames = small.train[0]
        rough = found["explained"], found["error_db"]
        model.decode = lambda _: (frames_of(clip)[None] - model.level) / model.spread
        found = small.predict(model, str(clip), tmp_path)
    assert frames.shape[1] == 441
    assert found["explained"] == pytest.approx(1.0)
    assert found["error_db"] < 1e-3 < rough[1]
    sound, rate = soundfile.read(found["wav"])
    assert rate == 16_000
    assert abs(len(sound) / rate - soundfile.info(str(clip)).duration) < 0.04
    heard = load_module(CODE).spectrum(type(speech_clips(CLIPS)[0])(Path(found["wav"])), 20.0)
    assert (heard - frames_of(clip)[: len(heard)]).abs().mean() < 6
    assert Path(found["picture"]).read_bytes().startswith(b"\x89PNG")
    with pytest.raises(AutotrainError, match=r"gone\.wav"):
        small.predict(model, "gone.wav", tmp_path)


def frames_of(path):
    return load_module(CODE).spectrum(next(c for c in speech_clips(CLIPS) if c.path == path), 20.0)
