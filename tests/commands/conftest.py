import shutil

import pytest

from autotrain.report import figures

from .house import PLAN, SMALL, TASK, cli, typist


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def own_home(home, monkeypatch):
    """One home for these tests: what is planned once is trusted in all of them."""
    monkeypatch.setenv("AUTOTRAIN_HOME", str(home))


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """Most of what a tiny run takes goes into its picture: tests/report draws it, and so does a
    run in a process of its own.
    """
    monkeypatch.setattr(figures, "png", lambda result, plan: b"\x89PNG, nearly")


@pytest.fixture(scope="session")
def planned_once(tmp_path_factory, home):
    """A folder with a task and its plan, and what `plan --json` printed, by the real thing."""
    folder = tmp_path_factory.mktemp("planned") / "mine"
    folder.mkdir()
    (folder / "task.py").write_text(TASK)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTOTRAIN_HOME", str(home))
        done = cli(*PLAN, *SMALL, "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, done


@pytest.fixture
def folder(planned_once, tmp_path, monkeypatch):
    """A copy of that folder, to spoil; the test works in it."""
    copy = tmp_path / "mine"
    shutil.copytree(planned_once[0], copy)
    monkeypatch.chdir(copy)
    return copy


@pytest.fixture
def at(capsys, monkeypatch):
    """The command line in this process: `at("run", "plan.toml")`."""
    return typist(capsys, monkeypatch)


@pytest.fixture(scope="session")
def trained_once(planned_once, home, tmp_path_factory):
    """The planned folder after its run, and what `run --json` printed, by the real thing."""
    folder = tmp_path_factory.mktemp("trained") / "mine"
    shutil.copytree(planned_once[0], folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTOTRAIN_HOME", str(home))
        done = cli("run", "plan.toml", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, done


@pytest.fixture
def trained(trained_once, tmp_path, monkeypatch):
    """A copy of that folder, to spoil; the test works in it."""
    copy = tmp_path / "trained"
    shutil.copytree(trained_once[0], copy)
    monkeypatch.chdir(copy)
    return copy
