import hashlib
import ntpath
from pathlib import PureWindowsPath
from types import SimpleNamespace

import pytest

from autotrain import files, trust
from autotrain.errors import AutotrainError
from autotrain.schema import TaskSection


@pytest.fixture
def task_file(tmp_path):
    path = tmp_path / "my_task.py"
    path.write_text("def task(data): ...\n")
    return path


def planned(path, **more):
    return TaskSection(file=path.name, sha256=hashlib.sha256(path.read_bytes()).hexdigest(), **more)


def test_code_that_nobody_named_on_this_machine_is_refused(task_file):
    """A plan that came by mail does not run its code."""
    with pytest.raises(AutotrainError, match="not been trusted") as caught:
        trust.check(planned(task_file), task_file, accept=False)
    assert "--trust" in caught.value.hint


def test_code_that_was_named_runs(task_file):
    trust.trust(task_file)
    trust.check(planned(task_file), task_file, accept=False)


def test_code_that_changed_since_the_plan_is_refused_even_where_it_was_trusted(task_file):
    plan = planned(task_file)
    trust.trust(task_file)
    task_file.write_text("import os\n")
    trust.trust(task_file)
    with pytest.raises(AutotrainError, match="changed since the plan") as caught:
        trust.check(plan, task_file, accept=False)
    assert "--trust" in caught.value.hint


def test_accept_lets_the_code_run_and_remembers_it(task_file):
    plan = planned(task_file)
    trust.check(plan, task_file, accept=True)
    assert plan.sha256 in trust.trusted()
    trust.check(plan, task_file, accept=False)


def test_a_shipped_template_needs_no_word_but_must_be_what_was_planned(task_file):
    """It came with the program; another version's template is not what the plan was made for."""
    digest = planned(task_file).sha256
    trust.check(TaskSection(template="mine", sha256=digest), task_file, accept=False)
    with pytest.raises(AutotrainError, match="changed since the plan"):
        trust.check(TaskSection(template="mine", sha256="0" * 64), task_file, accept=False)


def test_trust_is_in_the_content_and_adds_up(task_file, tmp_path):
    other = tmp_path / "other.py"
    other.write_text("# other\n")
    digests = {trust.trust(task_file), trust.trust(other)}
    moved = task_file.rename(tmp_path / "moved.py")
    assert set(trust.trusted()) == digests
    trust.check(planned(moved), moved, accept=False)


@pytest.mark.parametrize("content", ["", '{"a": ', "[1, 2]"])
def test_a_torn_record_trusts_nothing_and_can_be_written_again(task_file, content):
    files.config_directory().joinpath("trust.json").write_text(content)
    assert trust.trusted() == {}
    assert trust.trust(task_file) in trust.trusted()


def test_a_record_that_cannot_be_kept_is_said_in_one_line(task_file, tmp_path, monkeypatch):
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    monkeypatch.setenv("AUTOTRAIN_HOME", str(in_the_way / "home"))
    with pytest.raises(AutotrainError) as caught:
        trust.trust(task_file)
    assert caught.value.message == f"{in_the_way / 'home'}: Not a directory"


def test_a_missing_task_file_is_the_users_error(tmp_path):
    with pytest.raises(AutotrainError, match="No such file"):
        trust.trust(tmp_path / "gone.py")


def test_a_plans_code_lies_beside_it_or_in_its_template(tmp_path, monkeypatch):
    (tmp_path / "templates" / "speech").mkdir(parents=True)
    (tmp_path / "templates" / "speech" / "task.py").touch()
    monkeypatch.setattr(files, "shipped", lambda folder: tmp_path / folder)
    ours = TaskSection(template="speech", sha256="")
    theirs = TaskSection(file="code/my_task.py", sha256="")
    absolute = TaskSection(file=str(tmp_path / "x.py"), sha256="")
    assert trust.task_path(ours, tmp_path / "plans") == tmp_path / "templates/speech/task.py"
    assert trust.task_path(theirs, tmp_path / "plans") == tmp_path / "plans/code/my_task.py"
    assert trust.task_path(absolute, tmp_path / "plans") == tmp_path / "x.py"


@pytest.mark.parametrize("name", ["spech", "../speech", ""])
def test_an_unknown_template_names_the_ones_there_are(tmp_path, monkeypatch, name):
    (tmp_path / "templates" / "speech").mkdir(parents=True)
    (tmp_path / "templates" / "speech" / "task.py").touch()
    monkeypatch.setattr(files, "shipped", lambda folder: tmp_path / folder)
    with pytest.raises(AutotrainError) as caught:
        trust.template_path(name)
    assert caught.value.hint == "templates: speech"


@pytest.mark.parametrize(
    ("place", "strange"),
    [
        ("C:\\proj\\runs\\one", False), ("c:/PROJ/runs/one", False), ("runs\\one", False),
        ("C:\\proj", False), ("C:\\project", True), ("C:\\proj\\..\\other", True),
        ("D:\\proj\\runs", True), ("..\\runs", True), ("E:\\named\\one", False),
        ("\\\\server\\share\\runs", True), ("s3://bucket/here", False),
        ("s3://bucket/hereby", True), ("s3://bucket/here/../there", True),
    ],
)  # fmt: skip
def test_places_lie_where_windows_says(place, strange, monkeypatch):
    monkeypatch.setattr(trust, "os", SimpleNamespace(path=ntpath))
    monkeypatch.setattr(trust, "trusted_places", lambda: ["E:\\named", "s3://bucket/here/"])
    wanted = {"checkpoint.mirror": place}
    assert bool(trust.strange_places(wanted, PureWindowsPath("C:\\proj"))) == strange
