"""The one error guard: bugs of ours, readers that go away, streams that are closed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from autotrain.commands import explain as command

from .house import cli, edit


def test_a_bug_of_ours_exits_3_and_saves_its_traceback(folder, at, home, monkeypatch):
    def broken(*_, **__):
        raise LookupError("the missing case")

    monkeypatch.setattr("autotrain.planfile.load", broken)
    said = at("explain", "plan.toml")
    assert said.code == 3
    assert said.error == "error: a bug in autotrain: LookupError: the missing case"
    assert "Traceback" not in said.err
    path = said.err.partition("the traceback is in ")[2].partition(";")[0]
    text = Path(path).read_text()
    assert text.startswith("autotrain explain plan.toml")
    assert "Traceback" in text
    assert "the missing case" in text


def test_a_bug_in_our_own_source_is_named_by_its_last_line(at, monkeypatch):
    def broken(*_, **__):
        raise SyntaxError("invalid syntax", ("text.py", 79, 1, "f(", 79, 2))

    monkeypatch.setattr(command, "explain", broken)
    assert at("explain", "plan.toml").error.endswith("SyntaxError: invalid syntax")


@pytest.mark.parametrize("command", ["doctor", "plan", "--help"])
def test_a_python_that_is_too_old_is_named_before_anything_is_loaded(command):
    """Of ours, but for the guard itself, nothing loads there: not even the doctor."""
    code = (
        "import sys; sys.version_info = (3, 10, 4, 'final', 0); sys.version = '3.10.4 (main)'\n"
        "from autotrain.__main__ import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, command], capture_output=True, text=True, check=False
    )
    said = "error: Python 3.10.4 is too old: autotrain needs 3.11 or newer\n\nhint: python3.11 -m"
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(said)


@pytest.mark.parametrize("place", ["before", "after"])
def test_verbose_shows_the_traceback_wherever_it_stands(folder, at, place):
    words = ["explain", "none.toml"]
    said = at(*(["--verbose", *words] if place == "before" else [*words, "--verbose"]))
    assert said.code == 1
    assert said.err.startswith("error: none.toml: No such file")
    assert "Traceback" in said.err


def test_a_crash_that_cannot_be_saved_still_says_so(folder, at, monkeypatch):
    monkeypatch.setenv("AUTOTRAIN_HOME", str(folder / "task.py"))
    monkeypatch.setattr("autotrain.planfile.load", lambda path: 1 / 0)
    said = at("explain", "plan.toml")
    assert said.code == 3
    assert "run again with --verbose" in said.err


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of POSIX")
def test_a_reader_that_goes_away_is_no_error(folder):
    """`autotrain explain plan.toml | head -1`."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "autotrain", "explain", "plan.toml"],
        cwd=folder, stdout=write, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_an_output_on_a_full_disk_is_the_machines_error(folder):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "autotrain", "explain", "plan.toml"],
            cwd=folder, stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "error: the output: No space left on device"
    assert len(done.stderr.splitlines()) == 3


@pytest.mark.skipif(sys.platform == "win32", reason="a shell of POSIX")
def test_closed_streams_harm_nothing(folder):
    """`<&- >&- 2>&-`: no file of a run takes the number of a stream and is written into."""
    command = f'"{sys.executable}" -m autotrain run plan.toml --max-steps 2 <&- >&- 2>&-'
    assert subprocess.run(["sh", "-c", command], cwd=folder, check=False).returncode == 0
    lines = (folder / "runs/mine/events.jsonl").read_text().splitlines()
    assert all(line.startswith('{"event": ') for line in lines)
    done = cli("explain", "plan.toml", "train.epochs", cwd=folder, stdin=subprocess.DEVNULL)
    assert done.stdout.startswith("train.epochs = 2")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_stderr_on_a_full_disk_ends_no_run(folder):
    """`nohup autotrain run plan.toml 2> FILE`: what cannot be said is lost, and nothing else."""
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "autotrain", "run", "plan.toml", "--max-steps", "1"],
            cwd=folder, stderr=full, timeout=100, check=False,
        )  # fmt: skip
    assert done.returncode == 0
    assert (folder / "runs/mine/checkpoints/step-00000001").is_dir()


@pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")
@pytest.mark.parametrize("command", ["plan --task task.py --no-calibrate", "run plan.toml"])
def test_too_few_addresses_for_torch_are_one_line(folder, command):
    limited = f"ulimit -v 1000000; exec {sys.executable} -m autotrain {command}"
    done = subprocess.run(
        ["sh", "-c", limited], cwd=folder, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: no memory for a library: lib")
    assert "hint: raise `ulimit -v`" in done.stderr


def test_a_run_that_may_be_killed_for_its_memory_is_told_first(folder, at):
    """Of a container's limit below what it is to take: before anything large is loaded."""
    most = {"low": 1 << 50, "expected": 1 << 50, "high": 1 << 50}
    edit(folder / "plan.toml", predicted={"device_peak_bytes": most})
    said = at("run", "plan.toml", "--max-steps", "1")
    assert said.err.startswith("warning: this process may hold ")
    assert "to take 1024 TiB to 1024 TiB: it may be killed" in said.err.splitlines()[0]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_folder_whose_name_is_no_text_is_refused_at_once(folder, at, monkeypatch):
    """No plan could say where it lies; the doctor looks at any machine."""
    odd = Path(os.fsdecode(os.fsencode(folder.parent) + b"/b\xffd"))
    folder.rename(odd)
    (odd.parent / "link").symlink_to(odd)
    for words in (("run", "plan.toml"), ("plan", "--task", "task.py", "--no-calibrate")):
        monkeypatch.chdir(odd)
        said = at(*words)
        assert (said.code, said.error) == (
            1,
            rf"error: {odd.parent}/b\xffd: a name that is not UTF-8",
        )
        assert "hint: rename it" in said.err
        monkeypatch.chdir(odd.parent)
        for place in (odd, "link"):
            said = at(words[0], f"{place}/plan.toml")
            assert said.code == 1
            assert said.error == (
                rf"error: {odd.parent}/b\xffd/plan.toml: a name that is not UTF-8"
            )
    assert not (odd / "runs").exists()
    monkeypatch.chdir(odd)
    assert at("run", "--help").code == 0
