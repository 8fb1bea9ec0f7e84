"""`autotrain plan` on bad input: one clear line, the right exit code, nothing written or lost."""

import os
import re
import struct
import sys
import wave
import zlib

import pytest

from autotrain import files

from .house import PLAN, SMALL, TASK, edit, read_only, tree


def png(path, value=0):
    """A grey PNG of 8 x 8, written by hand."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    rows = b"".join(b"\0" + bytes([value] * 8) for _ in range(8))
    path.parent.mkdir(parents=True, exist_ok=True)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


def clip(path, seconds=0.3):
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(os.urandom(int(seconds * 16000) * 2))


def empty(folder):
    (folder / "data").mkdir()


def one_class(folder):
    for i in range(6):
        png(folder / "data" / "cat" / f"{i}.png", i)


def broken_images(folder):
    for name in ("cat", "dog"):
        for i in range(5):
            png(folder / "data" / name / f"{i}.png", 10 * i + len(name))
    for i in range(3):
        (folder / "data" / "dog" / f"{i}.png").write_bytes(b"no image")


def lost_clips(folder):
    for i in range(4):
        clip(folder / "data" / "wavs" / f"c{i}.wav")
    rows = "".join(f"c{i}|text {i}|text {i}\n" for i in range(9))
    (folder / "data" / "metadata.csv").write_text(rows)


def broken_clips(folder):
    lost_clips(folder)
    for i in range(4, 9):
        (folder / "data" / "wavs" / f"c{i}.wav").write_bytes(b"RIFF no clip")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda folder: None, r"data: no such"),
        (empty, r"data: .*(empty|nothing|no )"),
        (one_class, r"one class"),
        (broken_images, r"dog.\d\.png"),
        (lost_clips, r"c\d"),
        (broken_clips, r"c\d.wav"),
    ],
    ids=["no such folder", "empty", "one class", "broken images", "lost clips", "broken clips"],
)
def test_data_that_cannot_be_trained_on(folder, at, make, says):
    make(folder)
    (folder / "plan.toml").unlink()
    before = tree(folder)
    said = at("plan", "data", "--no-calibrate")
    assert said.code == 1
    assert said.out == ""
    assert re.search(says, said.error, re.IGNORECASE)
    assert said.error.startswith("error: ")
    assert "\nhint: " in said.err
    assert tree(folder) == before


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["batch.micro_bach=8"], ["batch.micro_bach: unknown key (did you mean 'batch.micro_ba"]),
        (["batch.micro_batch=many"], ["batch.micro_batch: 'many'"]),
        (["batch.micro_batch=-8"], ["batch.micro_batch: -8"]),
        (["train.epochs"], ["train.epochs: expected key=value"]),
        (["=3"], ["=3: expected key=value"]),
        (["task.file=other.py"], ["task.file: is named on the command line"]),
        (["train.epochs=x", "precision.dtype=fp8", "no.a=1"], ["epochs: 'x'", "'fp8'", "no.a: "]),
    ],
    ids=["unknown", "wrong type", "negative", "no equals", "no key", "elsewhere", "several"],
)  # fmt: skip
def test_settings_that_mean_nothing(folder, at, settings, says):
    (folder / "plan.toml").unlink()
    said = at(*PLAN, *(part for s in settings for part in ("--set", s)))
    assert said.code == 2
    lines = said.err.splitlines()
    assert len([line for line in lines if line.startswith("error: --set ")]) == len(says)
    assert all(part in said.err for part in says)
    assert not (folder / "plan.toml").exists()


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("def task(data:\n", r"task\.py:1: SyntaxError"),
        ("x = 1\n", r"task\.py: defines no function `task`"),
        ("def task(data):\n    return {}\n", r"task\(\) returned dict, not autotrain\.Task"),
        ("import no_such_module\n", r"task\.py:1: ModuleNotFoundError: .*no_such_module"),
        ("def task(data):\n    return 1 / 0\n", r"task\.py:2: ZeroDivisionError"),
        (TASK.replace("lambda: net(width)", "lambda: net(1 / 0)"), r"task\.py:\d+: .*ZeroDivision"),
        (TASK.replace("self.x[index]", "self.z[index]"), r"task\.py:17: .*AttributeError"),
        (TASK.replace("Linear(width, 2)", "Linear(9, 2)"), r"task\.py:.* RuntimeError: mat1"),
    ],
    ids=["syntax", "no task", "wrong return", "import", "task()", "model()", "sample", "shapes"],
)  # fmt: skip
def test_a_task_file_that_fails_names_its_line(folder, at, source, says):
    (folder / "plan.toml").unlink()
    (folder / "task.py").write_text(source)
    before = tree(folder)
    said = at(*PLAN)
    assert said.code == 1
    assert re.search(says, said.error)
    assert len(said.err.splitlines()) <= 4  # what the task printed, the error and its hint
    assert tree(folder) == before


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["plan"], 2, "nothing to plan for"),
        (["plan", "--task", "none.py"], 1, "none.py: No such file"),
        (["plan", "--template", "no-such"], 1, "no template 'no-such'"),
        (["plan", "--template", "starter", "--task", "task.py"], 2, "exclude each other"),
        ([*PLAN, "--machine", "rtx-4060-lapto-8gb"], 1, "no machine is called"),
        ([*PLAN, "--machine", "none.toml"], 1, "none.toml: No such file"),
        ([*PLAN, "--machine", "task.py"], 2, "task.py: not valid TOML"),
        ([*PLAN, "--recipe", "agressive"], 2, "did you mean 'aggressive'"),
        ([*PLAN, "--set", "optimizer.lr=inf"], 2, "optimizer.lr"),
        ([*PLAN, "--set", "schedule.warmup_epochs=-1"], 2, "schedule.warmup_"),
        ([*PLAN, "--set", "device.kind=mps"], 1, "has no device mps"),
        ([*PLAN, "--set", "task.widht=4"], 1, "task() takes no option 'widht'"),
        ([*PLAN, "-o", "task.py"], 1, "task.py: exists and is not a plan"),
        ([*PLAN, "-o", "other.toml"], 1, "other.toml: exists and is not a plan"),
        ([*PLAN, "-o", "."], 1, "exists and is not a plan"),
        ([*PLAN, "-o", "task.py/plan.toml"], 1, "task.py: not a folder"),
    ],
)
def test_what_cannot_be_meant(folder, at, arguments, code, says):
    (folder / "other.toml").write_text("x = 1\n")
    before = tree(folder)
    said = at(*arguments)
    assert said.code == code
    assert says in said.error
    assert said.out == ""
    assert tree(folder) == before


def shrink(profile, target, free):
    """A shipped machine whose GPU has `free` bytes left."""
    text = (files.shipped("profiles") / profile).read_text()
    for key in ("free_bytes", "total_bytes"):
        head, gpu = text.split("[[devices]]", 1)
        text = head + "[[devices]]" + re.sub(rf"(?m)^{key} = \S+", f"{key} = {free}", gpu, count=1)
    target.write_text(text)


def test_a_machine_that_cannot_hold_one_sample_exits_4_and_says_what_would_fit(folder, at):
    shrink("rtx-4060-laptop-8gb.toml", folder / "small.toml", 2**20)
    before = tree(folder)
    said = at(*PLAN, "--machine", "small.toml", "-o", "sub/plan.toml")
    assert said.code == 4
    assert re.search(r"\d.*[KMG]i?B.*\d.*[KMG]i?B", said.err)
    assert "\nhint: " in said.err
    assert tree(folder) == before


def test_planning_again_keeps_what_a_person_edited(folder, at):
    edit(folder / "plan.toml", train={"epochs": 7})
    edited = (folder / "plan.toml").read_bytes()
    said = at(*PLAN, *SMALL)
    assert said.code == 0
    assert "plan.toml.before-1" in said.err
    assert (folder / "plan.toml.before-1").read_bytes() == edited
    again = at(*PLAN, *SMALL)
    assert again.code == 0
    assert not (folder / "plan.toml.before-2").exists()


def test_an_edited_plan_stays_in_place_where_planning_fails(folder, at):
    edit(folder / "plan.toml", train={"epochs": 7})
    before = tree(folder)
    assert at(*PLAN, "--machine", "no-such").code == 1
    assert tree(folder) == before


@pytest.mark.root
@pytest.mark.skipif(sys.platform != "linux", reason="mounts of Linux")
def test_a_folder_one_may_not_write_is_refused_before_anything_is_done(folder):
    before = tree(folder)
    done = read_only(folder, *PLAN)
    assert done.returncode == 1
    assert "not writable" in done.stderr.splitlines()[0]
    assert tree(folder) == before
