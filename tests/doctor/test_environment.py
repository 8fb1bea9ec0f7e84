"""The wrong Python, other packages in the way, no home, an odd clock: each made for real."""

import os
import subprocess
import sys
import time
import venv
from pathlib import Path

import pytest

from autotrain.doctor import mending

from .house import ROOT, examined, install

PYTHON = [["environment", "python on PATH"], ["environment", "active environment"]]
posix = pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")


@pytest.fixture(scope="session")
def another(tmp_path_factory):
    """Another virtual environment."""
    folder = tmp_path_factory.mktemp("another") / "env"
    venv.create(folder, symlinks=True)
    return folder


@posix
def test_the_wrong_python_in_tmux(another, tmp_path):
    """tmux keeps PATH and VIRTUAL_ENV of the shell that started it."""
    path = f"{another / 'bin'}{os.pathsep}{os.environ['PATH']}"
    variables = {"PATH": path, "VIRTUAL_ENV": str(another), "TMUX": "/tmp/tmux-0/default,1,0"}
    found = examined(*PYTHON, where=tmp_path, variables=variables)
    first, second = found.values()
    assert (first.status, second.status) == ("warn", "warn")
    assert str(another) in first.detail
    assert sys.prefix in first.detail
    assert "tmux and screen keep" in second.detail
    assert first.mend == f"source {sys.prefix}/bin/activate"


@posix
@pytest.mark.parametrize(
    ("shell", "script"), [("/usr/bin/fish", "activate.fish"), ("/bin/zsh", "activate")]
)
def test_the_way_into_an_environment_is_the_shells_own(monkeypatch, shell, script):
    monkeypatch.setenv("SHELL", shell)
    assert mending.enter() == f"source {sys.prefix}/bin/{script}"


@posix
def test_our_own_python_first_on_path_is_fine(tmp_path):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    found = examined(*PYTHON, where=tmp_path, variables={"PATH": path, "VIRTUAL_ENV": sys.prefix})
    assert [each.status for each in found.values()] == ["ok", "ok"]


@posix
def test_a_python_of_the_current_folder_is_not_started(tmp_path):
    """It may be a stranger's; Windows looks there first."""
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    program.chmod(0o755)
    path = f".{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    found = examined(PYTHON[0], where=tmp_path, variables={"PATH": path})
    assert found["environment, python on PATH"].status == "ok"
    assert not (tmp_path / "ran").exists()


def test_an_environment_that_is_gone(tmp_path):
    found = examined(PYTHON[1], where=tmp_path, variables={"VIRTUAL_ENV": str(tmp_path / "gone")})
    assert "which is gone" in found["environment, active environment"].detail


@posix
def test_a_python_on_path_that_does_not_start(tmp_path):
    broken = tmp_path / "bin/python"
    broken.parent.mkdir()
    broken.write_text("#!/nowhere/python\n")
    broken.chmod(0o755)
    found = examined(PYTHON[0], where=tmp_path, variables={"PATH": str(broken.parent)})
    assert "does not start" in found["environment, python on PATH"].detail


MODULE = ["environment", "autotrain module"]
COMMAND = ["environment", "autotrain command"]


@pytest.mark.parametrize("how", ["files", "top_level", "script"])
def test_another_package_that_installs_an_autotrain(site, tmp_path, how):
    """autotrain-advanced does."""
    files = {"autotrain/cli/autotrain.py": "def main(): ...\n"} if how == "files" else {}
    scripts = "autotrain = autotrain.cli.autotrain:main" if how == "script" else ""
    info = install(site, "autotrain-advanced", "0.8.36", files, scripts=scripts)
    if how == "top_level":
        (info / "top_level.txt").write_text("autotrain\n")
    # Behind ours, as a package of the same environment would be.
    variables = {"PYTHONPATH": f"{ROOT}{os.pathsep}{site}"}
    found = examined(MODULE, where=tmp_path, variables=variables)["environment, autotrain module"]
    assert found.status == "warn"
    assert "autotrain-advanced 0.8.36 also installs `autotrain`" in found.detail
    assert "-m pip uninstall -y autotrain-advanced && " in found.mend


def test_a_package_whose_files_are_among_ours(tmp_path):
    """Installed into one folder, the later one has overwritten what the earlier one had."""
    install(tmp_path, "autotrain-advanced", "0.8.36", {"autotrain/trainers/__init__.py": ""})
    for each in (ROOT / "autotrain").iterdir():
        place = tmp_path / "autotrain" / each.name
        if each.name != "__pycache__" and not place.exists():
            place.symlink_to(each)
    (tmp_path / "narrow.py").symlink_to(ROOT / "tests/narrow.py")
    found = examined(MODULE, where=tmp_path, variables={"PYTHONPATH": str(tmp_path)})
    fault = found["environment, autotrain module"]
    assert fault.status == "fail"
    assert "files of both are mixed" in fault.detail


STARTS = "#!{other}/bin/python\n"
# What pip writes where the interpreter's path is too long for a first line.
STARTS_LONG = "#!/bin/sh\n'''exec' {other}/bin/python \"$0\" \"$@\"\n' '''\n"


@pytest.mark.parametrize(
    ("script", "says"),
    [
        (f"{STARTS}from autotrain.cli.autotrain import main\nmain()\n", "another program"),
        (f"{STARTS}from autotrain.__main__ import main\nmain()\n", "another environment's"),
        (f"{STARTS_LONG}from autotrain.__main__ import main\n", "another environment's"),
    ],
)
@posix
def test_another_autotrain_first_on_path(another, tmp_path, script, says):
    place = tmp_path / "bin/autotrain"
    place.parent.mkdir()
    place.write_text(script.format(other=another))
    place.chmod(0o755)
    path = f"{place.parent}{os.pathsep}{os.environ['PATH']}"
    found = examined(COMMAND, where=tmp_path, variables={"PATH": path})
    fault = found["environment, autotrain command"]
    assert fault.status == "warn"
    assert says in fault.detail
    assert fault.mend.startswith("hash -r")


def test_a_package_that_is_too_old(site, tmp_path):
    install(site, "numpy", "1.21.0")
    found = examined(["environment", "versions"], where=tmp_path, site=site)
    fault = found["environment, versions"]
    assert fault.status == "fail"
    assert fault.detail.startswith("numpy 1.21.0 is not ")
    assert ">=1.26" in fault.detail
    assert "pip install 'numpy" in fault.mend


def test_what_is_installed_here_is_what_is_asked_for(look):
    assert look("environment", "versions").status == "ok", look("environment", "versions")


@pytest.mark.parametrize(("folder", "says"), [("~orch", "left"), ("~umpy-2.1.0.dist-info", "left")])
def test_what_pip_left_behind(site, tmp_path, folder, says):
    (site / folder).mkdir()
    found = examined(["environment", "leftovers"], where=tmp_path, site=site)
    fault = found["environment, leftovers"]
    assert (fault.status, fault.mend) == ("warn", f"rm -r '{site / folder}'")
    assert says in fault.detail


def test_a_package_that_is_there_twice(site, tmp_path):
    for version in ("2.10.0", "2.11.0"):
        install(site, "torch", version)
    found = examined(["environment", "leftovers"], where=tmp_path, site=site)
    assert "torch is installed twice" in found["environment, leftovers"].detail


def test_the_deprecated_pynvml(site, tmp_path):
    install(site, "pynvml", "12.0.0")
    found = examined(["environment", "pynvml"], where=tmp_path, site=site)["environment, pynvml"]
    assert "pip uninstall -y pynvml && " in found.mend


def test_a_torch_from_elsewhere(site, tmp_path):
    install(site, "torch", "2.11.0", {"torch/__init__.py": "", "torch/version.py": ""})
    found = examined(["torch", "torch from here"], where=tmp_path, site=site)
    assert found["torch, torch from here"].mend == "unset PYTHONPATH"


@pytest.mark.root
def test_a_user_without_a_name_or_a_home(tmp_path):
    """A container's `--user 12345`."""
    names = ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME",
             "AUTOTRAIN_HOME")  # fmt: skip
    found = examined(["environment", "home"], ["environment", "user"], where=tmp_path, uid=12345,
                     variables=dict.fromkeys(names))  # fmt: skip
    home, user = found["environment, home"], found["environment, user"]
    assert home.status == "fail"
    assert "no home" in home.detail
    assert home.mend.startswith("export AUTOTRAIN_HOME=")
    assert (user.status, user.mend) == ("warn", "export USER=me")


def test_a_home_that_is_a_file(tmp_path):
    (tmp_path / "home").write_text("")
    found = examined(["environment", "home"], where=tmp_path,
                     variables={"AUTOTRAIN_HOME": "/proc/self"})["environment, home"]  # fmt: skip
    assert found.status == "fail"
    assert "cannot be written" in found.detail


def test_letters_beyond_english_that_would_be_lost(tmp_path):
    variables = {
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONIOENCODING": None,
    }
    found = examined(["environment", "encoding"], where=tmp_path, variables=variables)
    assert found["environment, encoding"].mend == "export PYTHONUTF8=1"


def test_a_clock_that_is_before_what_was_installed(site, tmp_path):
    """A laptop whose battery was empty: it is 1970 again, and what lies there is from later."""
    info = install(site, "torch", "2.11.0", {"torch/__init__.py": "", "torch/version.py": ""})
    later = time.time() + 400 * 86_400
    os.utime(info / "RECORD", (later, later))
    found = examined(["environment", "clock"], where=tmp_path, site=site)["environment, clock"]
    assert (found.status, found.mend) == ("fail", "sudo timedatectl set-ntp true")
    assert time.strftime("%Y-%m-%d", time.localtime(later)) in found.detail


def test_pip_that_is_not_there_is_not_advised(tmp_path):
    """uv's environments have none."""
    code = (
        "import sys; sys.modules['pip'] = None\n"
        "from autotrain.doctor.mending import install; print(install('x>=1'))"
    )
    uv = tmp_path / "uv"
    uv.write_text("#!/bin/sh\n")
    uv.chmod(0o755)

    def advised(path):
        return subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"PATH": path}, cwd=ROOT,
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip

    assert advised(str(tmp_path)).startswith(f"uv pip install --python {sys.executable} ")
    assert " -m ensurepip && " in advised("/nowhere")
