"""`autotrain predict`: an answer for each input; a bad one is named, and the others go on."""

import io
import json
import subprocess
import sys

import pytest

from .house import edit
from .used import WHOLE, copied, learned


@pytest.fixture(scope="module")
def asked(tmp_path_factory, home):
    return learned(tmp_path_factory.mktemp("asked") / "mine", home, WHOLE)


def lines(said):
    return [json.loads(line) for line in said.out.splitlines()]


def test_each_input_gets_a_line_and_a_bad_one_stops_nothing(asked, at):
    run = asked / "runs/mine"
    said = at("predict", run, "--json", "--", "5 1", "no number", "-5 1")
    first, second, third = lines(said)
    assert said.code == 1
    assert first == {"input": "5 1", "class": 1, "left": None}
    assert third["class"] == 0
    assert "could not convert string to float" in second["error"]
    assert "error: no number: " in said.err
    assert "task.py:" in said.err
    assert "1 of 3 inputs could not be answered" in said.err
    assert not (run / "predictions").exists()


def test_a_persons_line_has_the_input_first_and_what_the_task_prints_is_on_stderr(asked, at):
    said = at("predict", asked / "runs/mine", "5 1")
    assert said.code == 0
    assert said.out.startswith("5 1\tclass 1  left ")
    assert len(said.out.splitlines()) == 1
    assert "asked for 5 1" in said.err
    assert "next        autotrain export" in said.err


def test_files_lie_in_a_folder_of_each_input_and_nothing_is_overwritten(asked, at, tmp_path):
    out = tmp_path / "out"
    said = at("predict", asked / "runs/mine", "0 0", "0 0", "-o", out, "--json")
    first, second = lines(said)
    assert said.code == 0
    assert first["eval"]
    assert first["file"] != second["file"]
    assert {p.name for p in out.iterdir()} == {"0-0", "0-0-2"}
    texts = {(out / name / "drawn.txt").read_text() for name in ("0-0", "0-0-2")}
    assert len(texts) == 1  # chance is the same for every input, wherever it stands
    third = lines(at("predict", asked / "runs/mine", "0 0", "-o", out, "--json"))[0]
    assert third["file"] not in (first["file"], second["file"])


def test_what_a_refused_input_wrote_is_taken_away(asked, at, tmp_path):
    out = tmp_path / "out"
    said = at("predict", asked / "runs/mine", "half", "no dict", "-o", out)
    assert said.code == 1
    assert "ValueError: it broke" in said.err
    assert "predict returned list, not a dict" in said.err
    assert not out.exists()


def test_a_folder_stands_for_its_files_and_stdin_for_its_lines(asked, at, tmp_path, monkeypatch):
    for name in ("b.txt", "a.txt", ".hidden"):
        (tmp_path / name).write_text("")
    said = at("predict", asked / "runs/mine", tmp_path, "--json")
    assert [each["input"] for each in lines(said)] == [
        str(tmp_path / n) for n in ("a.txt", "b.txt")
    ]
    monkeypatch.setattr(sys, "stdin", io.StringIO("5 1\n\n-5 1\n"))
    said = at("predict", asked / "runs/mine", "1 1", "-", "--json")
    assert [each["class"] for each in lines(said)] == [1, 1, 0]


def test_a_long_text_an_empty_one_and_a_strange_name_are_inputs_like_others(asked, at):
    given = ["word " * 2000, "", "a\udcffb", "5 1"]
    said = at("predict", asked / "runs/mine", "--json", *given)
    assert [each["input"] for each in lines(said)] == given
    assert [("error" in each) for each in lines(said)] == [True, True, True, False]


def test_text_is_piped_in_and_bytes_that_are_none_are_no_crash(asked, home):
    command = [sys.executable, "-m", "autotrain", "predict", "runs/mine", "--json"]
    done = subprocess.run(command, cwd=asked, input=b"5 1\n\xff\xfe\n", capture_output=True,
                          check=False, timeout=300)  # fmt: skip
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert done.returncode == 1
    assert first["class"] == 1
    assert "error" in second


def test_no_input_is_wrong_usage(asked, at, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    said = at("predict", asked / "runs/mine")
    assert said.code == 2
    assert said.error == "error: no input"


def test_a_task_that_does_not_say_how_is_told_how(asked, at, tmp_path):
    folder = copied(asked, tmp_path)
    (folder / "task.py").write_text(WHOLE.replace(", predict=predict", ""))
    edit(folder / "runs/mine/plan.toml", task={"file": str(folder / "task.py")})
    said = at("predict", folder / "runs/mine", "x", "--trust")
    assert said.code == 1
    assert "task.py: the task does not say how to predict" in said.error
    assert "predict(model, given, out)" in said.err
    assert "docs/own-model.md" in said.err
