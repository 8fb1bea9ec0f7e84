"""What goes into an issue says nothing of who or where one is."""

import getpass
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from run.plans import make_plan

from autotrain import planfile
from autotrain.doctor.checks import Finding
from autotrain.doctor.mending import shown
from autotrain.doctor.paste import block
from autotrain.doctor.result import fail, ok, warn
from autotrain.doctor.scene import Scene
from autotrain.doctor.scrubbing import Scrubber
from autotrain.errors import one_line
from autotrain.task import file_sha256

from .house import Answers, environment, fake_torch


@pytest.fixture
def scene(tmp_path, monkeypatch):
    monkeypatch.setenv("USER", "annlee")
    monkeypatch.setenv("LOGNAME", "annlee")
    monkeypatch.setattr("socket.gethostname", lambda: "workhorse.example.org")
    return Scene(tmp_path, environment={"USER": "annlee"}, asked=Answers())


@pytest.mark.parametrize(
    ("line", "public"),
    [
        ("in /home/annlee/secret project: no", "in <path>: no"),
        ("in '/home/annlee/secret project/x': no", "in <path>: no"),
        ("TMPDIR is /data/annlee/tmp, which; so", "TMPDIR is <path>; so"),
        ("source /srv/env/bin/activate", "source <path>"),
        ("~/secret/run: full", "<path>: full"),
        (r"C:\Users\Ann\run: full", "<path>: full"),
        (r"'C:\Users\Ann Lee\run': full", "<path>: full"),
        (r"\\server\share\ann is slow", "<path>"),
        ("AnnLee's machine workhorse", "<user>'s machine <host>"),
        ("on workhorse.example.org now", "on <host> now"),
        ("free in /dev/shm, /proc/self/maps", "free in /dev/shm, /proc/self/maps"),
        ("/dev/nvidia0 is missing", "/dev/nvidia0 is missing"),
        ("18 steps, 2.3 ms each, 3/4 of it", "18 steps, 2.3 ms each, 3/4 of it"),
        ("https://download.pytorch.org/whl/cu126", "https://download.pytorch.org/whl/cu126"),
        ("(`/home/annlee/x`)", "(`<path>`)"),
        ("s3://ann-bucket/x is not beside", "<path>"),
        ("file:///home/ann/x, and /usr/local/ann", "<path>"),
        ("in /library/ann: /var/tmp/ann", "in <path>: <path>"),
        ("export TMPDIR=/var/tmp", "export TMPDIR=/var/tmp"),
        ("a=/home/annlee/x;b=/home/annlee/y", "a=<path>;b=<path>"),
        ("the plan's '/data/Ann'\"'\"'s deal/clips' is gone", "the plan's <path> is gone"),
        ("/data/My Deal/task.py: not trusted", "<path>: not trusted"),
        ("../My Deal/task.py: not trusted", "<path>: not trusted"),
        ("code: My Deal/task.py: not trusted", "code: <path>: not trusted"),
        ("no such file (/srv/big deal/libfoo.so)", "no such file (<path>)"),
        ("server:/export/deal is slow", "<path>"),
        ("ann@example.org:/srv/deal", "<path>"),
        ("s3:// needs s3fs", "s3:// needs s3fs"),
        ("5 MB/s, each piece synced: slow", "5 MB/s, each piece synced: slow"),
        ("/dev/shm/deal of mine: full", "<path>: full"),
    ],
)
def test_paths_and_names_are_taken_out(scene, line, public):
    assert Scrubber(scene)(line) == public


def test_commands_keep_what_stands_behind_a_path(scene):
    hide = Scrubber(scene)
    assert hide("du -xh /data/x | sort -h | tail", command=True) == "du -xh <path> | sort -h | tail"
    told = "autotrain run '/data/my plan.toml' --trust   # once you have read it"
    assert hide(told, command=True) == "autotrain run <path> --trust   # once you have read it"
    told = "python -m venv .venv && source .venv/bin/activate"
    assert hide(told, command=True) == told


def test_a_plans_name_is_its_owners(scene):
    scene.named = "secret-deal.toml"
    told = "autotrain run secret-deal.toml --trust"
    assert Scrubber(scene)(told, command=True) == "autotrain run <plan> --trust"


def test_names_of_runs_and_stages_are_their_owners(scene):
    scene.named, scene.plan = "x.toml", make_plan(run={"name": "deal-of-mine"})
    scene.stages = {"after-the-deal": scene.plan}
    line = "stage after-the-deal: bf16 is not of this device's own in deal-of-mine"
    told = "stage <stage>: bf16 is not of this device's own in <run>"
    assert Scrubber(scene)(line) == told


# Names of folders: any of these words, with any of these between them.
SECRETS = ("zebra", "Quartz", "ΨΩ", "clip")
ODD = (" ", "'", '"', ": ", "; ", ", ", "(", ") ", "`", "$", " - ", "@", " && ", "#", "\\", "=",
       "<", ">", " is ", "~", " | ", ".", "_", "\n", "/")  # fmt: skip


def names(odd):
    parts = st.tuples(st.sampled_from(odd), st.sampled_from(SECRETS))
    made = st.lists(parts, max_size=3).map(lambda each: "".join(a + b for a, b in each))
    return st.tuples(st.sampled_from(SECRETS), made).map("".join)


def secrets_in(text):
    return [word for word in SECRETS if word.lower() in text.lower()]


@given(names(ODD), names(ODD), names(ODD), names(ODD), st.booleans())
def test_what_the_plan_calls_things_is_never_told(place, task, data, name, command):
    """However it is written, and wherever it stands in a line."""
    scene = Scene(Path(f"/{place}/{name}"), f"{place}.toml", environment={}, asked=Answers())
    plan = make_plan()
    said = {"template": None, "file": f"../{task}/task.py", "data": data}
    scene.plan = plan.model_copy(update={"task": plan.task.model_copy(update=said)})
    hide = Scrubber(scene)
    for path in (f"/{place}/{name}", f"/x/{place}/y z", f"../{task}/task.py", data, scene.named,
                 f"/{place}/../{task}/task.py", f"{task}/x", f"'{place}'"):  # fmt: skip
        for written in (path, shown(path), repr(path), one_line(path), f"`{path}`", f"({path})"):
            for line in (
                f"{written}: no",
                f"it is {written} here",
                f"a={written};b",
                f"-e {written}",
            ):
                assert secrets_in(hide(line, command=command)) == [], line


PLACES = ("/srv/{}/x y", "../{}/x", "~/{}", r"C:\Users\{}\x", r"\\server\{}", "s3://{}/x",
          "host:/{}/x", "{}/x")  # fmt: skip


@given(names([each for each in ODD if each not in (": ", "; ")]), st.sampled_from(PLACES))
def test_a_path_that_nobody_knows_goes_to_the_end_of_its_sentence(name, path):
    hide = Scrubber(Scene(Path("/elsewhere"), environment={}, asked=Answers()))
    path = path.format(name.replace("\n", ""))
    for line in (
        f"{path}: no",
        f"{path} is not there",
        f"no such file ({path})",
        f"it is {shown(path)}",
    ):
        assert secrets_in(hide(line)) == [], line


@given(names(ODD))
def test_a_quoted_path_that_nobody_knows_is_taken_out_alone(name):
    hide = Scrubber(Scene(Path("/elsewhere"), environment={}, asked=Answers()))
    assert hide(f"it is {shown(f'/srv/ {name}/x')} here") == "it is <path> here"


def test_a_plan_beside_a_secret_task(tmp_path, site):
    """The whole command: no name of a folder, of the plan or of its data."""
    fake_torch(site, "2.13.0+cpu")
    for each in ("My Zebra Deal", "Ann's zebra plans"):
        (tmp_path / each).mkdir()
    (tmp_path / "My Zebra Deal/task.py").write_text("import torch\ndef task(data): ...\n")
    plan = make_plan()
    said = {"template": None, "file": "../My Zebra Deal/task.py", "data": "../zebra clips",
            "sha256": file_sha256(tmp_path / "My Zebra Deal/task.py")}  # fmt: skip
    where = {"directory": "/srv/Their Zebra Disk/x"}
    plan = plan.model_copy(update={"task": plan.task.model_copy(update=said),
                                   "run": plan.run.model_copy(update=where)})  # fmt: skip
    planfile.save(plan, tmp_path / "Ann's zebra plans/zebra plan.toml")
    done = subprocess.run(
        [sys.executable, "-m", "autotrain", "doctor", "--no-step", "--paste", "--for",
         "zebra plan.toml"],
        cwd=tmp_path / "Ann's zebra plans", capture_output=True, text=True, check=False,
        env=environment(site=site),
    )  # fmt: skip
    assert re.search(r"fail: plan, code: <\w+>: this code has not been trusted", done.stdout)
    assert "fail: plan, places: run.directory: <run> is not beside" in done.stdout
    assert "zebra" not in done.stdout.lower()


def test_folders_whose_names_help_get_names_of_ours(scene, tmp_path):
    hide = Scrubber(scene)
    assert hide(f"{sys.executable} -m pip install x") == "<env>/bin/python -m pip install x"
    assert hide(f"{tmp_path}: full") == "<run>: full"
    assert hide(f"{tmp_path}-other/x: full") == "<tmp>: full"
    assert hide(f"'{tmp_path}/ann lee/x' and {tmp_path}/b") == "<run> and <run>"


def test_a_python_of_the_system_shares_its_folder_with_others(scene, monkeypatch):
    monkeypatch.setattr("sys.base_prefix", "/usr")
    hide = Scrubber(scene)
    assert hide("/usr/include/python3.11/x.h: gone") == "<python>/include/python3.11/x.h: gone"
    assert hide("/usr/local/deal/lib/x: gone") == "<path>: gone"
    assert hide("'/usr/local/big deal': gone") == "<python>: gone"


def test_the_environment_is_told_as_such_where_path_names_it(scene):
    scene.environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}/usr/bin"
    told = f"{sys.executable} -m pip install x"
    assert Scrubber(scene)(told, command=True) == "<env>/bin/python -m pip install x"


def test_other_peoples_programs_are_not_named(scene):
    found = warn("secretgame (pid 7) holds 6 GiB", "nvidia-smi", ("secretgame",))
    text = block([Finding("gpu", "GPU memory", found)], scene)
    assert "secretgame" not in text
    assert "<program> (pid 7) holds 6 GiB" in text


def test_the_block_says_what_is_here_and_what_is_wrong(scene):
    findings = [
        Finding("memory", "RAM", ok("3 GiB free of 8 GiB")),
        Finding("disk", "run folder", fail("/home/annlee/run: full", "rm /home/annlee/run/x")),
    ]
    lines = block(findings, scene).splitlines()
    assert (lines[0], lines[-1]) == ("```text", "```")
    assert f"python: {platform.python_version()} (CPython)" in lines
    assert "RAM: 3 GiB free of 8 GiB" in lines
    assert "fail: disk, run folder: <path>: full" in lines
    assert "      rm <path>" in lines
    assert "ok: RAM" in lines


def test_the_real_block_has_nothing_private(tmp_path, site):
    """On a broken machine, where most is said: no home, host, user, or folder of this one."""
    secret = tmp_path / "ann lee" / "top-secret"
    secret.mkdir(parents=True)
    fake_torch(site, "2.13.0+cpu")
    done = subprocess.run(
        [sys.executable, "-m", "autotrain", "doctor", "--no-step", "--paste"],
        cwd=secret, capture_output=True, text=True, check=False,
        env=environment(site=site) | {
            "TMPDIR": f"{secret}/gone", "VIRTUAL_ENV": "/srv/annlee/env", "USER": "annlee",
            "LOGNAME": "annlee", "LD_LIBRARY_PATH": f"{secret}", "AUTOTRAIN_HOME": f"{secret}/home",
        },
    )  # fmt: skip
    text = done.stdout
    assert text.startswith("```text\n"), done.stderr
    assert "warn: environment, active environment: VIRTUAL_ENV is <path>" in text
    hidden = ["annlee", "ann lee", "top-secret", sys.prefix, str(Path.home()), platform.node()]
    user = getpass.getuser()
    hidden += [user] if user != "root" else []
    found = [
        word
        for word in hidden
        if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE)
    ]
    assert found == []
