"""What the data was like in training says how a split of it is read later, by itself."""

import logging
import shutil

import numpy as np
import pytest

from autotrain.blocks.corpus import SHIPPED
from autotrain.blocks.layouts import speech_clips
from autotrain.errors import AutotrainError
from autotrain.files import shipped
from autotrain.task import Kept, load_task

from .test_image_classifier import write
from .test_speech_autoencoder import CLIPS, in_ljspeech

TINY = {
    "image-classifier": {"size": 32},
    "sign-ctc": {"width": 16},
    "hybrid-stt": {"width": 16, "heads": 2, "blocks": 1, "layers": 1, "kernel": 3, "units": 60},
    "fastspeech2-tts": {"width": 16, "inner": 32, "encoder_blocks": 1, "decoder_blocks": 1},
    "speech-autoencoder": {"width": 16, "latent": 8},
}


def load(template, data, kept=None, **more):
    file = shipped("templates") / template / "task.py"
    return load_task(file, str(data), TINY[template] | more, kept)


def test_a_test_of_one_picture_is_evaluated_by_itself(tmp_path):
    for split, each in (("train", 6), ("valid", 3)):
        write(tmp_path / split, each=each)
    write(tmp_path / "test", classes="b", each=1)
    facts = dict(load("image-classifier", tmp_path).facts)
    shutil.rmtree(tmp_path / "train")
    shutil.rmtree(tmp_path / "valid")
    task = load("image-classifier", tmp_path, Kept(facts, "test"))
    assert [label for _, label in task.test] == [1]


def test_a_damaged_picture_of_a_small_test_is_left_out_alone_as_beside_the_training(tmp_path):
    for split, each in (("train", 6), ("valid", 3), ("test", 2)):
        write(tmp_path / split, each=each)
    (tmp_path / "test/a/00.png").write_text("no image")
    before = load("image-classifier", tmp_path)
    after = load("image-classifier", tmp_path, Kept(dict(before.facts), "test"))
    assert after.test.pictures.items == before.test.pictures.items
    assert len(after.test) == 5


def spoken(folder, texts):
    """One clip a text; the last is for the test, and the one before for the validation."""
    (folder / "wavs").mkdir(parents=True)
    sides = ["train"] * (len(texts) - 2) + ["valid", "test"]
    clips = speech_clips(SHIPPED)[: len(texts)]
    rows = []
    for clip, text, side in zip(clips, texts, sides, strict=True):
        shutil.copy(clip.path, folder / "wavs")
        rows.append(f"{clip.path.stem}|{text}|{text}|me|{side}\n")
    (folder / "metadata.csv").write_text("".join(rows), encoding="utf-8")


@pytest.mark.parametrize(
    ("texts", "asked", "told", "written"),
    [
        ([*4 * ["the seven of them and you"], "to you", "7"], "", "en", "seven"),
        ([*4 * ["ışık 7 kız"], "kız", "IŞIK"], "", "tr", "ışık"),
        ([*4 * ["der 7 zug, of the"], "zug", "the 7"], "de", "de", "the 7"),
        ([*4 * ["le 7 hotte" + 6 * " hotte"], "hotte", "the 7"], "", "", "the 7"),
    ],
    ids=["en", "tr", "asked", "unknown"],
)
def test_transcripts_of_a_split_are_of_the_language_of_all(texts, asked, told, written, tmp_path):
    """Of a few of them alone it is told otherwise: numbers would stay digits, or become words."""
    spoken(tmp_path, texts)
    task = load("hybrid-stt", tmp_path, language=asked)
    assert task.facts["language"] == told
    kept = Kept(dict(task.facts), "test")
    for test in (task.test, load("hybrid-stt", tmp_path, kept, language=asked).test):
        assert test.units.decode(test[0].units) == written


def test_a_sentence_of_other_units_is_told_by_what_was_usual_in_training(tmp_path, caplog):
    draw, rows = np.random.default_rng(0), ["file,glosses,signer,split"]
    for number in range(24):
        scale = 1e6 if number == 23 else 1.0
        np.savez(tmp_path / f"{number}.npz", x=scale * draw.normal(size=(30, 40)))
        side = "test" if number > 21 else "valid" if number > 19 else "train"
        rows.append(f"{number}.npz,A B,,{side}")
    (tmp_path / "glosses.csv").write_text("\n".join(rows))
    facts = dict(load("sign-ctc", tmp_path).facts)
    again = shutil.copytree(tmp_path, tmp_path / "again")  # what was told of a file is not repeated
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        task = load("sign-ctc", again, Kept(facts, "test"))
    assert len(task.test) == 1
    assert "23.npz: values up to" in caplog.text


def test_a_corpus_own_test_is_read_where_the_rest_is_gone(tmp_path):
    clips = speech_clips(CLIPS)[:12]
    in_ljspeech(tmp_path, clips)
    before = load("speech-autoencoder", tmp_path)
    for place, clip in enumerate(clips):
        if place % 4 != 3:
            (tmp_path / "wavs" / clip.path.name).unlink()
    with pytest.raises(AutotrainError, match="9 of 12 files are missing"):
        load("speech-autoencoder", tmp_path)
    after = load("speech-autoencoder", tmp_path, Kept(dict(before.facts), "test"))
    assert after.test.loaded.items == before.test.loaded.items


def test_clips_are_held_out_the_same_whatever_their_folder_is_called(tmp_path):
    held = []
    for name in ("clips", "other"):
        shutil.copytree(CLIPS / "wavs", tmp_path / name)
        task = load("speech-autoencoder", tmp_path / name)
        again = load("speech-autoencoder", tmp_path / name, Kept(dict(task.facts), "valid"))
        held += [[c.path.name for c in each.valid.loaded.items] for each in (task, again)]
    assert held[0]
    assert all(each == held[0] for each in held)


def test_the_language_that_a_speaker_is_read_by_is_kept():
    task = load("fastspeech2-tts", SHIPPED, language="de")
    assert task.facts["language"] == "de"
    again = load("fastspeech2-tts", SHIPPED, Kept(dict(task.facts), "test"))
    assert again.predict.__self__.language == "de"
