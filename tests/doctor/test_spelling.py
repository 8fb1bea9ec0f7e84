"""The commands that mend, as each shell and system takes them."""

import shlex
import shutil
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotrain.doctor import mending, spelling
from autotrain.doctor.checks import CHECKS

POSIX = ("sh", "fish", "csh")


@pytest.fixture
def typed_in(monkeypatch):
    """`typed_in("fish")`: that shell; those of Windows on Windows."""

    def call(shell, system=None):
        windows = shell in ("powershell", "cmd")
        monkeypatch.setattr("sys.platform", system or ("win32" if windows else "linux"))
        monkeypatch.delenv("MSYSTEM", raising=False)
        monkeypatch.setenv("SHELL", f"/usr/bin/{'bash' if shell == 'sh' else shell}")
        theirs = [r"C:\Program Files\WindowsPowerShell\Modules", r"C:\Windows\system32\Modules"]
        own = [r"C:\Users\x\Documents\WindowsPowerShell\Modules"] if shell == "powershell" else []
        monkeypatch.setenv("PSMODULEPATH", ";".join([*own, *theirs]))
        assert spelling.shell() == shell

    return call


@pytest.mark.parametrize(
    ("shell", "setting", "unsetting"),
    [
        ("sh", "export TMPDIR='/a b'", "unset TMPDIR"),
        ("fish", "set -gx TMPDIR '/a b'", "set -e TMPDIR"),
        ("csh", "setenv TMPDIR '/a b'", "unsetenv TMPDIR"),
        ("powershell", "$env:TMPDIR = '/a b'", "Remove-Item Env:TMPDIR"),
        ("cmd", 'set "TMPDIR=/a b"', "set TMPDIR="),
    ],
)
def test_a_variable_is_set_and_taken_away(typed_in, shell, setting, unsetting):
    typed_in(shell)
    assert spelling.setting("TMPDIR", "/a b") == setting
    assert spelling.unsetting("TMPDIR") == unsetting


@pytest.mark.parametrize(
    ("shell", "says"),
    [
        ("sh", "hash -r; source {}/bin/activate"),
        ("fish", "source {}/bin/activate.fish"),
        ("csh", "source {}/bin/activate.csh"),
    ],
)
def test_another_program_is_forgotten_where_a_shell_remembers(typed_in, shell, says):
    typed_in(shell)
    assert mending.entered_anew() == says.format(sys.prefix)


def test_windows_scripts_are_started_not_sourced(typed_in, monkeypatch, tmp_path):
    folder = tmp_path / "my env"
    (folder / "Scripts").mkdir(parents=True)
    monkeypatch.setattr("sys.prefix", str(folder))
    for shell, name in (("powershell", "Activate.ps1"), ("cmd", "activate.bat")):
        (folder / "Scripts" / name).touch()
        typed_in(shell)
        script = spelling.shown(folder / "Scripts" / name)
        assert mending.enter() == (f"& {script}" if shell == "powershell" else script)


def test_windows_shells_take_a_program_with_a_space_in_its_path(typed_in, monkeypatch):
    monkeypatch.setattr("sys.executable", r"C:\Program Files\Ann's\python.exe")
    typed_in("powershell")
    pip = r"& 'C:\Program Files\Ann''s\python.exe' -m pip install 'numpy>=1.26'"
    assert mending.install("numpy>=1.26") == pip
    assert spelling.both("a", "b") == "a; b"
    typed_in("cmd")
    assert mending.install("x>=1").endswith('\\python.exe" -m pip install "x>=1"')
    assert spelling.both("a", "b") == "a && b"


@pytest.mark.parametrize(
    ("shell", "system"),
    [*((shell, system) for shell in POSIX for system in ("linux", "darwin")),
     ("powershell", "win32"), ("cmd", "win32")],
)  # fmt: skip
def test_no_command_is_of_another_system(typed_in, tmp_path, shell, system):
    typed_in(shell, system)
    said = [spelling.largest_in(tmp_path), spelling.busiest("mem"), spelling.busiest("cpu"),
            spelling.set_clock(), spelling.reboot(), spelling.kernel_log(),
            spelling.removing(tmp_path), spelling.package("c++")]  # fmt: skip
    words = {word for each in said for word in each.split()}
    of_linux, of_posix = (
        {"timedatectl", "%MEM", "%CPU"},
        {"sudo", "du", "sort", "tail", "top", "rm"},
    )
    assert bool(words & of_linux) == (system == "linux")
    assert bool(words & of_posix) == (system != "win32")


@given(st.text(st.characters(exclude_characters="\0\n\r", exclude_categories=["Cs"]), min_size=1))
def test_a_shell_reads_back_what_is_shown(text):
    """As POSIX ones do; a real one, where it is not bash, is asked below."""
    assert shlex.split(spelling.shown(text)) == [text]


@pytest.mark.parametrize("name", ["bash", "dash", "zsh", "fish", "csh", "pwsh"])
def test_real_shells_take_what_sets_and_unsets(name):
    program = shutil.which(name)
    if program is None:
        pytest.skip(f"no {name} here")
    kind = {"fish": "fish", "csh": "csh", "pwsh": "powershell"}.get(name, "sh")
    told = "import os; print(os.environ.get('ODD_NAME'))"
    ask = f"{shlex.quote(sys.executable)} -c {shlex.quote(told)}"
    lines = [spelling._SET[kind].format("ODD_NAME", "'it is set'"), ask,
             spelling._UNSET[kind].format("ODD_NAME"), ask]  # fmt: skip
    done = subprocess.run([program, "-c", "\n".join(lines)], capture_output=True, text=True,
                          check=True)  # fmt: skip
    assert done.stdout.split("\n") == ["it is set", "None", ""]


def test_the_checks_leave_the_spelling_to_it():
    """No mend in their source is of one shell alone."""
    import inspect

    sources = {inspect.getmodule(check.look) for check in CHECKS}
    for module in sources:
        text = inspect.getsource(module)
        for word in ('"unset ', '"export ', "apt install", "timedatectl", "| sort", "top -o"):
            assert word not in text, (module.__name__, word)
