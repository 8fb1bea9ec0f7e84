import shutil
import string
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pyarrow import parquet

from autotrain.errors import AutotrainError
from autotrain.probe.dataset import data_now, probe_dataset
from autotrain.probe.findings import percentiles, spread


def image(path: Path, width: int = 8, height: int = 6, shade: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (shade % 256, shade // 256, 7)).save(path)


def classes(root: Path, **counts: int) -> Path:
    for at, (name, count) in enumerate(counts.items()):
        for i in range(count):
            image(root / name / f"{i}.png", 8 + i % 3, shade=1000 * at + i)
    return root


def clip(path: Path, seconds: float = 0.1, rate: int = 16000, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).normal(0, 0.1, int(seconds * rate))
    soundfile.write(path, noise, rate)


def features(path: Path, frames: int = 20, width: int = 12, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.random.default_rng(seed).normal(size=(frames, width)).astype("float32")
    np.savez(path, features=array, label=np.array("x"))


def problems(profile) -> dict[str, str]:
    return {fault.path: fault.problem for fault in profile.faults}


# --- what each kind holds -------------------------------------------------------------------


def test_images_are_counted_by_class_and_measured(tmp_path):
    profile = probe_dataset(classes(tmp_path, cat=3, dog=6))
    assert (profile.kind, profile.count) == ("images", 9)
    assert profile.took_for == "folder per class: 2 classes"
    assert profile.classes == {"cat": 3, "dog": 6}
    assert profile.bytes == sum(p.stat().st_size for p in tmp_path.rglob("*.png"))
    assert (profile.length.unit, profile.length.minimum, profile.length.maximum) == (
        "pixels",
        48,
        60,
    )
    assert profile.facts["width_p50"] == 9
    assert profile.facts["height_p50"] == 6
    assert profile.facts["same_size"] is False
    assert profile.facts["modes"] == "RGB"
    assert profile.faults == ()


def test_split_sizes_are_told(tmp_path):
    classes(tmp_path / "train", a=3, b=2)
    for name in "ab":
        image(tmp_path / "val" / name / "v.png", shade=9000 + ord(name))
    profile = probe_dataset(tmp_path)
    assert (profile.count, profile.classes) == (7, {"a": 4, "b": 3})
    assert (profile.facts["train_count"], profile.facts["valid_count"]) == (5, 2)


def test_speech_is_measured_in_seconds_with_its_rates(tmp_path):
    for i in range(5):
        clip(tmp_path / f"wavs/{i}.flac", 0.1 * (i + 1), seed=i)
    clip(tmp_path / "wavs/extra.wav", seed=9)
    (tmp_path / "metadata.csv").write_text("".join(f"{i}|Go {i}|go\n" for i in range(5)))
    profile = probe_dataset(tmp_path)
    assert (profile.kind, profile.count) == ("speech", 5)
    assert profile.length.unit == "seconds"
    assert profile.length.minimum == pytest.approx(0.1)
    assert profile.length.maximum == pytest.approx(0.5)
    assert profile.facts["sample_rate"] == 16000
    assert profile.facts["channels"] == 1
    assert profile.facts["mean_seconds"] == pytest.approx(0.3)
    assert profile.facts["letters"] == 2
    assert profile.facts["unlisted"] == 1


def test_another_sample_rate_silence_and_empty_transcripts_are_noted_not_refused(tmp_path):
    for i in range(4):
        clip(tmp_path / f"wavs/{i}.wav", seed=i)
    clip(tmp_path / "wavs/4.wav", rate=22050)
    soundfile.write(tmp_path / "wavs/5.wav", np.zeros((800, 2)), 16000)
    (tmp_path / "metadata.csv").write_text(
        "".join(f"{i}|{'' if i == 2 else 'x'}\n" for i in range(6))
    )
    found = [(fault.path, fault.problem) for fault in probe_dataset(tmp_path).faults]
    assert ("wavs/4.wav", "22050 Hz where most have 16000; 1 of 6 sampled clips differ") in found
    assert ("wavs/5.wav", "2 channels where most have 1; 1 of 6 sampled clips differ") in found
    assert ("wavs/5.wav", "silence") in found
    assert ("wavs/2.wav", "an empty transcript") in found
    assert len(found) == 4


def test_features_are_measured_in_frames(tmp_path):
    for i in range(3):
        features(tmp_path / f"{i}.npz", frames=10 * (i + 1), seed=i)
    (tmp_path / "table.csv").write_text(
        "file,glosses,signer,split\n0.npz,ME GO,a,train\n1.npz,GO,b,train\n2.npz,YOU,b,test\n"
    )
    profile = probe_dataset(tmp_path)
    assert (profile.kind, profile.count) == ("features", 3)
    assert (profile.length.unit, profile.length.p50, profile.length.maximum) == ("frames", 20, 30)
    facts = profile.facts
    assert (facts["feature_width"], facts["glosses"], facts["signers"]) == (12, 3, 2)
    assert (facts["train_count"], facts["test_count"], facts["array"]) == (2, 1, "features")
    assert profile.faults == ()


def test_glosses_that_ctc_cannot_align_are_named(tmp_path):
    for i in range(3):
        features(tmp_path / f"{i}.npz", frames=3, seed=i)
    (tmp_path / "table.csv").write_text("file,glosses\n0.npz,A A A\n1.npz,A B C\n2.npz,\n")
    assert problems(probe_dataset(tmp_path)) == {
        "0.npz": "3 glosses, more than its 3 frames",
        "2.npz": "no glosses",
    }


def test_features_of_another_width_count_as_unreadable(tmp_path):
    for i in range(11):
        features(tmp_path / f"{i}.npz", width=5 if i == 4 else 12, seed=i)
    rows = "".join(f"{i}.npz,A\n" for i in range(11))
    (tmp_path / "table.csv").write_text("file,glosses\n" + rows)
    assert problems(probe_dataset(tmp_path)) == {"4.npz": "5 features a frame where most have 12"}
    features(tmp_path / "5.npz", width=5)
    with pytest.raises(
        AutotrainError, match=r"2 of 11 sampled feature files cannot be read: 4\.npz"
    ):
        probe_dataset(tmp_path)


def test_a_parquet_is_counted_from_its_metadata(tmp_path):
    table = pyarrow.table({"x": range(1000), "label": ["a"] * 1000})
    parquet.write_table(table, tmp_path / "one.parquet")
    for root in (tmp_path, tmp_path / "one.parquet"):
        profile = probe_dataset(root)
        assert (profile.kind, profile.count) == ("table", 1000)
        assert (profile.facts["columns"], profile.facts["column_names"]) == (2, "x, label")


def test_parquet_without_pyarrow_gives_the_command(tmp_path, monkeypatch):
    parquet.write_table(pyarrow.table({"x": [1]}), tmp_path / "one.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(AutotrainError, match="needs pyarrow") as caught:
        probe_dataset(tmp_path)
    assert "pip install" in caught.value.hint


def test_csv_rows_are_counted_with_quoted_line_ends(tmp_path):
    (tmp_path / "rows.csv").write_text('a,b\n1,"two\nlines"\n\n3,4\n')
    profile = probe_dataset(tmp_path / "rows.csv")
    assert (profile.kind, profile.count, profile.took_for) == ("table", 2, "rows.csv")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1\n", r"rows\.csv:2: 1 columns where the header has 2"),
        ("a,b\n", "a table without rows"),
        ("", r"all 1 listed tables are missing, empty or named twice: rows\.csv \(an empty file\)"),
    ],
)
def test_a_bad_csv_is_named(tmp_path, content, message):
    (tmp_path / "rows.csv").write_text(content)
    with pytest.raises(AutotrainError, match=message):
        probe_dataset(tmp_path / "rows.csv")


# --- what is refused ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["missing", "empty", "file.txt"])
def test_no_folder_of_data_is_one_line_with_a_hint(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(AutotrainError) as caught:
        probe_dataset(tmp_path / name)
    assert str(tmp_path / name) in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint
    assert caught.value.exit_code == 1


def test_one_class_only_is_refused_with_its_name(tmp_path):
    with pytest.raises(AutotrainError, match=r"one class only: cat \(2 images\)"):
        probe_dataset(classes(tmp_path, cat=2))


def test_a_wrapping_folder_is_pointed_into(tmp_path):
    classes(tmp_path / "digits", a=2, b=2)
    with pytest.raises(AutotrainError, match="one class only") as caught:
        probe_dataset(tmp_path)
    assert str(tmp_path / "digits") in caught.value.hint


def test_unreadable_images_are_skipped_up_to_a_tenth_then_refused(tmp_path):
    classes(tmp_path, a=10, b=10)
    for i in range(2):
        (tmp_path / f"a/{i}.png").write_text(f"not an image {i}")
    profile = probe_dataset(tmp_path)
    assert problems(profile) == {"a/0.png": "not an image", "a/1.png": "not an image"}
    assert profile.facts["faults"] == 2
    (tmp_path / "a/2.png").write_bytes((tmp_path / "a/3.png").read_bytes()[:45])
    with pytest.raises(AutotrainError) as caught:
        probe_dataset(tmp_path)
    assert "3 of 20 sampled images cannot be read: a/0.png (not an image), " in caught.value.message
    assert "10%" in caught.value.hint


def test_empty_files_are_skipped_up_to_a_tenth_of_all_then_refused(tmp_path):
    classes(tmp_path, a=10, b=10)
    (tmp_path / "a/0.png").write_bytes(b"")
    profile = probe_dataset(tmp_path)
    assert problems(profile) == {"a/0.png": "an empty file"}
    assert profile.count == 19
    for i in range(4):
        (tmp_path / f"b/{i}.png").write_bytes(b"")
    with pytest.raises(
        AutotrainError,
        match=r"5 of 20 listed images are missing, empty or named twice: .*, \.\.\.\n",
    ):
        probe_dataset(tmp_path)


def test_nothing_readable_is_said_so(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.wav").write_text("no sound")
    with pytest.raises(AutotrainError, match="all 3 sampled clips cannot be read"):
        probe_dataset(tmp_path)


def test_clips_that_a_table_names_and_that_are_missing_are_named_then_refused(tmp_path):
    for i in range(10):
        clip(tmp_path / f"wavs/{i}.wav", seed=i)
    rows = "".join(f"{i}|x\n" for i in range(10))
    (tmp_path / "metadata.csv").write_text(rows + "gone|x\n")
    assert problems(probe_dataset(tmp_path)) == {"gone": "missing; metadata.csv:11 names it"}
    (tmp_path / "metadata.csv").write_text(rows + "gone|x\nlost|x\n")
    with pytest.raises(
        AutotrainError, match="2 of 12 listed clips are missing, empty or named twice: gone"
    ):
        probe_dataset(tmp_path)


def test_single_image_classes_empty_classes_strays_and_duplicates_are_noted(tmp_path):
    classes(tmp_path, a=4, b=4, lonely=1)
    (tmp_path / "nothing").mkdir()
    image(tmp_path / "stray.png", shade=77)
    shutil.copy(tmp_path / "a/0.png", tmp_path / "b/copy.png")
    assert problems(probe_dataset(tmp_path)) == {
        "lonely/0.png": "the only image of class lonely",
        "nothing": "a class folder without images",
        "stray.png": "does not lie in a class folder of a split",
        "b/copy.png": "the same content as a/0.png",
    }


@pytest.mark.parametrize("seconds", [2, 20])
def test_large_files_that_differ_in_the_middle_are_no_duplicates(tmp_path, seconds):
    for i in range(3):
        clip(tmp_path / f"{i}.wav", seconds)
    middle = (tmp_path / "1.wav").stat().st_size // 3
    with open(tmp_path / "1.wav", "r+b") as file:
        file.seek(middle)
        file.write(bytes(2000))
    assert problems(probe_dataset(tmp_path)) == {"2.wav": "the same content as 0.wav"}


# --- fingerprint ----------------------------------------------------------------------------


def test_the_fingerprint_ignores_times_and_place(tmp_path):
    first = probe_dataset(classes(tmp_path / "one", a=3, b=3)).fingerprint
    shutil.copytree(tmp_path / "one", tmp_path / "two" / "deeper", copy_function=shutil.copyfile)
    assert probe_dataset(tmp_path / "two" / "deeper").fingerprint == first
    (tmp_path / "one/notes.md").write_text("about the data")
    assert probe_dataset(tmp_path / "one").fingerprint == first


def test_the_fingerprint_sees_a_transcript_of_the_same_size(tmp_path):
    clip(tmp_path / "wavs/a.wav")
    (tmp_path / "metadata.csv").write_text("a|cat\n")
    first = probe_dataset(tmp_path).fingerprint
    (tmp_path / "metadata.csv").write_text("a|dog\n")
    assert probe_dataset(tmp_path).fingerprint != first


@given(
    change=st.sampled_from(["add", "remove", "resize", "rename", "edit"]),
    which=st.integers(0, 5),
    tail=st.binary(min_size=1, max_size=9),
)
@settings(max_examples=25, deadline=None)
def test_the_fingerprint_sees_every_change_of_the_files(tmp_path_factory, change, which, tail):
    root = classes(tmp_path_factory.mktemp("data"), a=6, b=6)
    first, _ = data_now(root)
    path = root / f"a/{which}.png"
    raw = path.read_bytes()
    if change == "add":
        (root / f"b/new{which}.png").write_bytes(raw + tail)
    elif change == "remove":
        path.unlink()
    elif change == "resize":
        path.write_bytes(raw + tail)
    elif change == "rename":
        path.rename(root / f"a/other{which}.png")
    else:
        other = Image.open(path).copy()
        other.putpixel((0, 0), (255, 255, 255))
        other.save(path)
    assert data_now(root)[0] != first


# --- figures --------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=300))
def test_percentiles_are_ordered_and_taken_from_the_values(values):
    found = percentiles("pixels", values)
    assert found.minimum <= found.p50 <= found.p95 <= found.maximum
    assert {found.minimum, found.p50, found.p95, found.maximum} <= set(values)
    assert sum(v <= found.p95 for v in values) >= 0.95 * len(values)


def test_percentiles_by_hand():
    found = percentiles("seconds", list(range(1, 101)))
    assert (found.minimum, found.p50, found.p95, found.maximum) == (1, 50, 95, 100)


@given(st.integers(0, 2000), st.integers(1, 256))
def test_samples_are_spread_without_repeats_in_order(length, count):
    found = spread(range(length), count)
    assert found == sorted(set(found))
    assert len(found) == min(length, count)
    gaps = np.diff(found)
    assert not len(gaps) or gaps.max() - gaps.min() <= 1


@given(st.text(string.ascii_letters + "é日 .-_", min_size=1, max_size=12))
@settings(max_examples=10, deadline=None)
def test_any_class_name_is_kept(tmp_path_factory, name):
    root = tmp_path_factory.mktemp("data")
    name = "n" + name
    image(root / name / "1.png")
    image(root / "other class" / "1.png", shade=5)
    assert set(probe_dataset(root).classes) == {name, "other class"}


def test_a_name_that_is_not_text_is_shown_escaped(tmp_path):
    classes(tmp_path, a=9, b=9)
    bad, copy = (raw.decode("utf-8", "surrogateescape") for raw in (b"d\xe9j.png", b"vu\xe0.png"))
    (tmp_path / "a" / bad).symlink_to("gone.png")
    for name in (copy, "z" + copy):
        shutil.copy(tmp_path / "a/0.png", tmp_path / "a" / name)
    profile = probe_dataset(tmp_path)
    assert set(problems(profile)) == {r"a/d\xe9j.png", r"a/vu\xe0.png", r"a/zvu\xe0.png"}
    assert profile.model_dump_json()


@pytest.mark.slow
def test_twenty_thousand_files_take_seconds(tmp_path):
    image(tmp_path / "one.png")
    raw = (tmp_path / "one.png").read_bytes()
    for i in range(20_000):
        folder = tmp_path / "data" / f"class{i % 20}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i}.png").write_bytes(raw + b"%d" % i)
    start = time.monotonic()
    assert probe_dataset(tmp_path / "data").count == 20_000
    assert time.monotonic() - start < 5
