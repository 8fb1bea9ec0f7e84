import os
import subprocess
import sys
from pathlib import Path

import pytest

from autotrain.blocks.layouts import (
    Clip,
    Features,
    data_kind,
    feature_table,
    image_folder,
    image_splits,
    speech_clips,
)
from autotrain.blocks.layouts.features import signing_in
from autotrain.blocks.layouts.listing import list_files
from autotrain.blocks.layouts.rows import delimiter_of, read_rows
from autotrain.blocks.layouts.speech import speech_in
from autotrain.errors import AutotrainError


def put(root: Path, *names: str, content: str | bytes = "x") -> Path:
    """Files that are listed, never decoded."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def names(root: Path, classes: dict[str, list[Path]]) -> dict[str, list[str]]:
    return {
        name: [p.relative_to(root).as_posix() for p in paths] for name, paths in classes.items()
    }


# --- images ---------------------------------------------------------------------------------


def test_a_folder_per_class_in_sorted_order_whatever_the_case_of_suffixes(tmp_path):
    put(tmp_path, "b/2.PNG", "b/1.jpg", "a/deep/x.JPeG", "top.png", "a/notes.txt")
    assert names(tmp_path, image_folder(tmp_path)) == {
        "a": ["a/deep/x.JPeG"],
        "b": ["b/1.jpg", "b/2.PNG"],
    }
    assert data_kind(tmp_path) == ("images", "folder per class: 2 classes")


def test_litter_hidden_and_empty_files_are_skipped(tmp_path):
    put(
        tmp_path, "a/1.png", "a/._1.png", ".git/x.png", "__MACOSX/b/1.png", "b/Thumbs.db", "b/1.png"
    )
    put(tmp_path, "b/empty.png", content="")
    assert names(tmp_path, image_folder(tmp_path)) == {"a": ["a/1.png"], "b": ["b/1.png"]}


def test_the_folder_of_a_run_of_ours_is_not_data(tmp_path):
    put(tmp_path, "a/1.png", "b/1.png")
    put(tmp_path, "runs/one/plan.toml", "runs/one/events.jsonl", "runs/one/report.png")
    assert set(image_folder(tmp_path)) == {"a", "b"}


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        (("train", "valid"), ("train", "valid")),
        (("Train", "val"), ("train", "valid")),
        (("train", "test"), ("train", "test")),
        (("train", "validation", "test"), ("train", "valid", "test")),
    ],
)
def test_train_beside_another_split_is_recognised(tmp_path, folders, splits):
    for folder in folders:
        put(tmp_path, f"{folder}/a/1.png", f"{folder}/b/1.png")
    found = image_splits(tmp_path)
    assert tuple(found) == splits
    assert names(tmp_path, found[splits[1]])["a"] == [f"{folders[1]}/a/1.png"]
    assert names(tmp_path, image_folder(tmp_path))["b"] == [f"{folders[0]}/b/1.png"]


def test_a_class_called_train_is_a_class(tmp_path):
    put(tmp_path, "train/1.png", "test/1.png", "plane/1.png")
    assert set(image_splits(tmp_path)["all"]) == {"train", "test", "plane"}


def test_train_beside_unlabelled_test_images_gives_the_classes_of_train(tmp_path):
    put(tmp_path, "train/a/1.png", "train/b/1.png", "test/1.png")
    assert set(image_splits(tmp_path)["all"]) == {"a", "b"}
    put(tmp_path, "test/unknown/1.png")
    assert set(image_splits(tmp_path)["all"]) == {"a", "b"}


def test_a_validation_class_unknown_to_training_is_refused_by_name(tmp_path):
    put(tmp_path, "train/a/1.png", "train/b/1.png", "val/a/1.png", "val/zebra/1.png")
    with pytest.raises(AutotrainError, match="zebra"):
        image_splits(tmp_path)


# --- speech ---------------------------------------------------------------------------------


def test_ljspeech_takes_the_normalised_text_and_any_audio_suffix(tmp_path):
    put(tmp_path, "wavs/a1.wav", "wavs/a2.flac", "wavs/a.3.wav")
    put(
        tmp_path,
        "metadata.csv",
        content='\ufeffa1|He said "5"|he said five\na2|raw only\n\na.3|x|y|anna\n',
    )
    assert speech_clips(tmp_path) == [
        Clip(tmp_path / "wavs/a1.wav", "he said five"),
        Clip(tmp_path / "wavs/a2.flac", "raw only"),
        Clip(tmp_path / "wavs/a.3.wav", "y", "anna"),
    ]
    assert data_kind(tmp_path) == ("speech", "LJSpeech table metadata.csv: 3 clips")


@pytest.mark.parametrize("bad", ["a1", "|text", "a|b|c|d|e"])
def test_a_malformed_line_is_named_with_its_file(tmp_path, bad):
    put(tmp_path, "wavs/a1.wav")
    put(tmp_path, "metadata.csv", content=f"a1|one\na1|two\n{bad}\n")
    with pytest.raises(AutotrainError, match=r"metadata\.csv:3: "):
        speech_clips(tmp_path)


def test_text_that_is_not_utf8_is_named_with_its_line(tmp_path):
    put(tmp_path, "wavs/a1.wav")
    put(tmp_path, "metadata.csv", content=b"a1|one\na1|caf" + b"\xe9\n")
    with pytest.raises(AutotrainError, match=r"metadata\.csv:2: not UTF-8"):
        speech_clips(tmp_path)


TEXTS = ["Printing, in the only sense, with which we are, at present, concerned", "Yes, please."]


@pytest.mark.parametrize(("delimiter", "rows"), [
    ("|", [f"c{n}|{TEXTS[n % 2]}|{TEXTS[n % 2]}" for n in range(30)]), ("|", ["a|Yes, please."]),
    ("|", ["a|Yes, please, do.", *(f"c{n}|words" for n in range(20)), "no bar, in this one"]),
    (",", ["path,text", *(f'c{n},"{TEXTS[n % 2]}; or | not"' for n in range(30))]),
    (",", ["path,text", "a.wav,hello"]), (",", ["path"]), (",", []),
    (";", ["path;text", *(f"c{n};{TEXTS[n % 2]}" for n in range(30))]),
    ("\t", ["path\ttext", *(f"c{n}\t{TEXTS[n % 2]}" for n in range(30))]),
])  # fmt: skip
def test_what_parts_the_cells_is_not_what_texts_have_most_of(tmp_path, delimiter, rows):
    """The real LJSpeech begins with a sentence of four commas."""
    (tmp_path / "metadata.csv").write_text("\n".join(rows) + "\n")
    assert delimiter_of(tmp_path / "metadata.csv") == delimiter


def test_a_row_without_end_is_refused_instead_of_kept(tmp_path):
    """A quote may hold line after line, and a row any number of quotes."""
    (tmp_path / "x.csv").write_text("a,b\n" + '"\n",' * 800_000)
    with pytest.raises(AutotrainError, match=r"x\.csv:\d+: a row of over 2 Mi characters"):
        list(read_rows(tmp_path / "x.csv", ","))
    (tmp_path / "x.csv").write_text("a,b\n" + '"1\n2",3\n' * 270_000)  # long, of short rows
    assert sum(1 for _ in read_rows(tmp_path / "x.csv", ",")) == 270_001


def test_zero_bytes_are_not_text(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"a,b\n1,\x002\n")
    with pytest.raises(AutotrainError, match=r"x\.csv:2: not text: it holds a zero byte"):
        list(read_rows(tmp_path / "x.csv", ","))


def test_a_table_that_is_a_pipe_holds_nothing_up(tmp_path):
    os.mkfifo(tmp_path / "x.csv")
    with pytest.raises(AutotrainError, match=r"x\.csv: not a regular file"):
        list(read_rows(tmp_path / "x.csv", ","))


def test_a_line_without_end_is_refused_instead_of_read(tmp_path):
    put(tmp_path, "wavs/a1.wav")
    put(tmp_path, "metadata.csv", content="a1|one\n" + "x" * (2 << 20))
    with pytest.raises(AutotrainError, match=r"metadata\.csv:2: a line of over 1 MiB"):
        speech_clips(tmp_path)


def test_common_voice_prefers_validated_and_finds_converted_clips(tmp_path):
    header = "client_id\tpath\tsentence\tup_votes\n"
    put(tmp_path, "clips/1.wav", "clips/2.mp3")
    put(tmp_path, "train.tsv", content=header + "s1\t1.mp3\tone\t2\n")
    assert speech_clips(tmp_path) == [Clip(tmp_path / "clips/1.wav", "one", "s1")]
    put(
        tmp_path,
        "validated.tsv",
        content=header + 's1\t1.mp3\tshe said "hi\t2\ns2\t2.mp3\ttwo\t0\n',
    )
    assert [(c.text, c.speaker) for c in speech_clips(tmp_path)] == [
        ('she said "hi', "s1"),
        ("two", "s2"),
    ]
    assert data_kind(tmp_path)[1] == "Common Voice table validated.tsv: 2 clips"


def test_a_row_of_another_width_is_named_with_its_line(tmp_path):
    put(tmp_path, "clips/1.mp3")
    put(tmp_path, "train.tsv", content="path\tsentence\n1.mp3\tone\n1.mp3\n")
    with pytest.raises(AutotrainError, match=r"train\.tsv:3: 1 columns where the header has 2"):
        speech_clips(tmp_path)


def test_librispeech_reads_transcripts_beside_the_clips(tmp_path):
    put(tmp_path, "84/12/84-12-0000.flac", "84/12/84-12-0001.flac", "85/1/85-1-0000.flac")
    put(tmp_path, "84/12/84-12.trans.txt", content="84-12-0000 GO ON\n84-12-0001 YES\n")
    put(tmp_path, "85/1/85-1.trans.txt", content="85-1-0000 NO\n")
    assert [(c.text, c.speaker) for c in speech_clips(tmp_path)] == [
        ("GO ON", "84"),
        ("YES", "84"),
        ("NO", "85"),
    ]
    assert data_kind(tmp_path) == ("speech", "LibriSpeech tree: 3 clips")


def splits(root):
    return [(clip.path.stem, clip.split) for clip in speech_clips(root)]


def test_ljspeech_may_have_a_fifth_column_with_the_split(tmp_path):
    put(tmp_path, "wavs/1.wav", "wavs/2.wav", "wavs/3.wav", "wavs/4.wav")
    rows = "1|A|a|anna|train\n2|B|b||Dev\n3|C|||test\n4|D\n"
    put(tmp_path, "metadata.csv", content=rows)
    assert splits(tmp_path) == [("1", "train"), ("2", "valid"), ("3", "test"), ("4", "")]
    put(tmp_path, "metadata.csv", content=rows + "4|D|d|anna|later\n")
    with pytest.raises(AutotrainError, match=r"metadata\.csv:5: split 'later' is none of train"):
        speech_clips(tmp_path)


def test_a_table_may_have_a_column_with_the_split(tmp_path):
    put(tmp_path, "1.wav", "2.wav")
    put(tmp_path, "metadata.csv", content="file_name,text,split\n1.wav,a,validation\n2.wav,b,\n")
    assert splits(tmp_path) == [("1", "valid"), ("2", "")]


def test_common_voices_split_tables_say_which_clips_are_for_what(tmp_path):
    """In validated.tsv are all; without it the tables are read one after the other."""
    header = "client_id\tpath\tsentence\n"
    put(tmp_path, *(f"clips/{i}.mp3" for i in range(4)))
    for table, clip in (("train", 0), ("dev", 1), ("test", 2)):
        put(tmp_path, f"{table}.tsv", content=f"{header}s\t{clip}.mp3\tx\n")
    assert splits(tmp_path) == [("0", "train"), ("1", "valid"), ("2", "test")]
    took = "Common Voice tables train.tsv, dev.tsv, test.tsv: 3 clips"
    assert data_kind(tmp_path)[1] == took
    every = "".join(f"s\t{i}.mp3\tx\n" for i in (3, 2, 1, 0))
    put(tmp_path, "validated.tsv", content=header + every)
    assert splits(tmp_path) == [("3", ""), ("2", "test"), ("1", "valid"), ("0", "train")]


def test_librispeechs_folders_are_splits(tmp_path):
    for folder in ("train-clean-100", "dev-other", "test-clean"):
        put(tmp_path, f"{folder}/84/12/84-12-0000.flac")
        put(tmp_path, f"{folder}/84/12/84-12.trans.txt", content="84-12-0000 YES\n")
    found = {clip.path.parts[-4]: clip.split for clip in speech_clips(tmp_path)}
    assert found == {"train-clean-100": "train", "dev-other": "valid", "test-clean": "test"}


@pytest.mark.parametrize("corpus", ["LJSpeech-1.1", "cv-corpus-17.0/fa"])
def test_a_corpus_in_the_folder_it_was_unpacked_into_keeps_its_table(corpus, tmp_path):
    put(tmp_path, f"{corpus}/wavs/a1.wav", f"{corpus}/clips/a1.wav", f"{corpus}/clips/a2.wav")
    if "cv" in corpus:
        put(tmp_path, f"{corpus}/train.tsv", content="path\tsentence\na1\tone\n")
        put(tmp_path, f"{corpus}/dev.tsv", content="path\tsentence\na2\ttwo\n")
        found = [("clips/a1.wav", "one", "train"), ("clips/a2.wav", "two", "valid")]
    else:
        put(tmp_path, f"{corpus}/metadata.csv", content="a1|One|one\n")
        found = [("wavs/a1.wav", "one", "")]
    clips = speech_clips(tmp_path)
    assert [(c.path, c.text, c.split) for c in clips] == [
        (tmp_path / corpus / name, text, split) for name, text, split in found
    ]


def test_a_clip_that_is_named_twice_is_there_once(tmp_path):
    """Else it may be trained on and validated on; of rows that differ the first counts."""
    put(tmp_path, *(f"wavs/{i}.wav" for i in range(10)))
    rows = [f"{i}|text {i}\n" for i in range(10)]
    put(tmp_path, "metadata.csv", content="".join([*rows, rows[3], "4.wav|other\n"]))
    speech = speech_in(list_files(tmp_path))
    assert [clip.text for clip in speech.clips] == [f"text {i}" for i in range(10)]
    (again,) = speech.absent
    assert (again.name, again.problem) == (
        "wavs/4.wav", "named twice, by metadata.csv:5 and metadata.csv:12",
    )  # fmt: skip
    others = [f"{i}|other {i}\n" for i in range(10)]
    put(tmp_path, "metadata.csv", content="".join([*rows, *others]))
    with pytest.raises(AutotrainError, match=r"10 of 20 files are missing, empty or named twice"):
        speech_clips(tmp_path)


@pytest.mark.parametrize("table", ["metadata.csv", "glosses.csv"])
def test_what_is_absent_counts_in_its_own_split(table, tmp_path):
    """Missing, empty and named twice with other words: of a split that is asked for by itself."""
    speech = table == "metadata.csv"
    read, head = (speech_clips, "") if speech else (feature_table, "file,glosses,signer,split\n")
    file, row = ("wavs/{}.wav", "{}|{}||me|{}\n") if speech else ("{}.npz", "{},{},me,{}\n")
    parts = [*10 * ["train"], *10 * ["dev"], *10 * ["test"]]
    rows = [row.format(number, f"t{number}", part) for number, part in enumerate(parts)]
    rows += [row.format(number, "other", "train") for number in range(3)]
    put(tmp_path, *(file.format(number) for number in range(10, 30)))
    put(tmp_path, *(file.format(number) for number in range(5)))
    put(tmp_path, *(file.format(number) for number in range(5, 7)), content="")
    put(tmp_path, table, content="".join([head, *rows]))
    for split in (None, "train"):
        with pytest.raises(AutotrainError, match=f"8 of {33 if split is None else 13} files"):
            read(tmp_path, split)
    for split in ("valid", "test"):
        assert len(read(tmp_path, split)) == 25


def test_a_clip_in_two_split_tables_is_on_one_side(tmp_path):
    put(tmp_path, *(f"clips/{i}.mp3" for i in range(12)))
    head = "path\tsentence\n"
    train = head + "".join(f"{i}.mp3\tt{i}\n" for i in range(12))
    put(tmp_path, "train.tsv", content=train)
    put(tmp_path, "dev.tsv", content=head + "5.mp3\tt5\n")
    clips = speech_clips(tmp_path)
    assert len(clips) == len({clip.path for clip in clips}) == 12


def test_features_that_are_named_twice_are_there_once(tmp_path):
    put(tmp_path, *(f"{i}.npz" for i in range(10)))
    rows = [f"{i},A B\n" for i in range(10)]
    put(tmp_path, "glosses.csv", content="".join(["file,glosses\n", *rows, rows[0], "1,C\n"]))
    signing = signing_in(list_files(tmp_path))
    assert len(signing.rows) == 10
    (again,) = signing.absent
    assert again.problem == "named twice, by glosses.csv:3 and glosses.csv:13"


def test_a_name_is_the_same_in_either_form_of_unicode(tmp_path):
    put(tmp_path, "wavs/cafe\u0301.wav")
    put(tmp_path, "metadata.csv", content="caf\u00e9|x\n")
    assert [clip.text for clip in speech_clips(tmp_path)] == ["x"]


def test_librispeechs_names_may_end_with_a_tab(tmp_path):
    put(tmp_path, "a/1-2-3.flac")
    put(tmp_path, "a/1-2.trans.txt", content="\ufeff1-2-3\tTWO WORDS\r\n\r\n")
    assert [clip.text for clip in speech_clips(tmp_path)] == ["TWO WORDS"]


def test_another_table_that_cannot_be_read_is_no_table_of_glosses(tmp_path):
    put(tmp_path, "1.npz")
    (tmp_path / "a notes.csv").write_bytes("h\xf6he,x\n1,2\n".encode("latin-1"))
    with pytest.raises(AutotrainError, match=r"a notes\.csv:1: not UTF-8"):
        feature_table(tmp_path)
    put(tmp_path, "glosses.csv", content="file,glosses\n1,A\n")
    assert [row.glosses for row in feature_table(tmp_path)] == [("A",)]


def test_bare_clips_have_no_text(tmp_path):
    put(tmp_path, "b.wav", "sub/a.ogg", "cover.jpg")
    assert speech_clips(tmp_path) == [Clip(tmp_path / "b.wav"), Clip(tmp_path / "sub/a.ogg")]
    assert data_kind(tmp_path) == ("speech", "folder of clips without transcripts: 2 clips")


def test_few_missing_clips_are_left_out_and_many_refused(tmp_path):
    put(tmp_path, *(f"wavs/{i}.wav" for i in range(19)))
    table = "".join(f"{i}|text\n" for i in range(20))
    put(tmp_path, "metadata.csv", content=table)
    assert len(speech_clips(tmp_path)) == 19
    put(tmp_path, "metadata.csv", content=table + "a|x\nb|x\n")
    with pytest.raises(AutotrainError, match=r"3 of 22 files .*19 \(missing; metadata\.csv:20"):
        speech_clips(tmp_path)


@pytest.mark.parametrize("escape", ["../secret", "{absolute}", "..\\secret"])
def test_a_table_cannot_lead_out_of_its_folder(tmp_path, escape):
    secret = put(tmp_path, "secret.wav") / "secret.wav"
    data = put(tmp_path / "data", *(f"wavs/{i}.wav" for i in range(10)))
    rows = "".join(f"{i}|text\n" for i in range(10))
    put(data, "metadata.csv", content=rows + escape.format(absolute=secret) + "|text\n")
    assert all(clip.path.parent == data / "wavs" for clip in speech_clips(data))


def test_a_clip_of_another_folder_is_not_taken_for_one_of_the_same_name(tmp_path):
    put(tmp_path, *(f"wavs/anna/{i}.wav" for i in range(10)), "wavs/ben/1.wav")
    rows = "".join(f"anna/{i}|x\n" for i in range(10)) + "ben/1|x\ncleo/1|x\n"
    put(tmp_path, "metadata.csv", content=rows)
    found = [clip.path.parent.name for clip in speech_clips(tmp_path)]
    assert found == ["anna"] * 10 + ["ben"]


# --- features -------------------------------------------------------------------------------


def test_features_with_their_glosses_signer_and_split(tmp_path):
    put(tmp_path, "arrays/1.npz", "arrays/2.npz", "preview/1.png")
    put(
        tmp_path,
        "table.csv",
        content='file,glosses,signer,split\narrays/1.npz,ME GO HOME,anna,train\n2,"",ben,TEST\n',
    )
    assert feature_table(tmp_path) == [
        Features(tmp_path / "arrays/1.npz", ("ME", "GO", "HOME"), "anna", "train"),
        Features(tmp_path / "arrays/2.npz", (), "ben", "test"),
    ]
    assert data_kind(tmp_path) == ("features", "features with glosses in table.csv")


def test_features_without_a_table_say_which_columns_are_needed(tmp_path):
    put(tmp_path, "1.npz")
    put(tmp_path, "other.csv", content="a,b\n1,2\n")
    with pytest.raises(AutotrainError, match="`file` and `glosses`"):
        feature_table(tmp_path)


# --- what is not data -----------------------------------------------------------------------


def test_not_recognised_lists_what_was_found_and_what_is_known(tmp_path):
    put(tmp_path, "a.docx", "b.docx", "README")
    with pytest.raises(AutotrainError) as caught:
        data_kind(tmp_path)
    assert "2 .docx, 1 without suffix" in caught.value.message
    assert "LibriSpeech" in caught.value.message
    assert "--task my_task.py" in caught.value.hint
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no such folder"),
        (lambda path: path.mkdir(), "an empty folder"),
        (lambda path: path.write_text(""), "a file, where a folder was expected"),
        (os.mkfifo, "a file, where a folder was expected"),
    ],
)
def test_what_is_no_folder_with_files_is_named(tmp_path, make, message):
    path = tmp_path / "data"
    make(path)
    with pytest.raises(AutotrainError, match=message) as caught:
        data_kind(path)
    assert str(path) in caught.value.message
    assert caught.value.hint


def test_links_are_followed_once_and_never_above_the_root(tmp_path):
    put(tmp_path, "elsewhere/1.png", "outside.png")
    data = put(tmp_path / "data", "a/1.png")
    (data / "b").symlink_to(tmp_path / "elsewhere")
    (data / "again").symlink_to(data / "a")
    (data / "a/up").symlink_to(tmp_path)
    (data / "a/all").symlink_to("/")
    (data / "a/self.png").symlink_to("self.png")
    (data / "a/gone.png").symlink_to("nowhere.png")
    listing = list_files(data)
    assert [file.name for file in listing.files] == ["a/1.png", "b/1.png"]
    assert {name for name, _ in listing.skipped} == {
        "again",
        "a/up",
        "a/all",
        "a/self.png",
        "a/gone.png",
    }


def test_a_fifo_is_listed_as_skipped_and_never_opened(tmp_path):
    put(tmp_path, "a/1.png", "b/1.png")
    os.mkfifo(tmp_path / "a/2.png")
    assert names(tmp_path, image_folder(tmp_path))["a"] == ["a/1.png"]
    assert list_files(tmp_path).skipped == (("a/2.png", "not a regular file"),)


def test_layouts_load_nothing_but_the_standard_library():
    code = (
        "import sys, autotrain.blocks.layouts;"
        "print(*{'torch', 'numpy', 'pydantic', 'PIL', 'soundfile'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
