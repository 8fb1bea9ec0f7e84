"""What goes into an issue says nothing of who or where one is."""

import getpass
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from autotrain.doctor.checks import Finding
from autotrain.doctor.paste import Scrubber, block
from autotrain.doctor.result import fail, ok, warn
from autotrain.doctor.scene import Scene

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
        ("in /home/annlee/secret project: no", "in <path> project: no"),
        ("in '/home/annlee/secret project/x': no", "in <path>: no"),
        ("TMPDIR is /data/annlee/tmp, which", "TMPDIR is <path>, which"),
        ("source /srv/env/bin/activate", "source <path>"),
        ("~/secret/run: full", "<path>: full"),
        (r"C:\Users\Ann\run: full", "<path>: full"),
        (r"'C:\Users\Ann Lee\run': full", "<path>: full"),
        (r"\\server\share\ann is slow", "<path> is slow"),
        ("AnnLee's machine workhorse", "<user>'s machine <host>"),
        ("on workhorse.example.org now", "on <host> now"),
        ("free in /dev/shm, /proc/self/maps", "free in /dev/shm, /proc/self/maps"),
        ("/dev/nvidia0 is missing", "/dev/nvidia0 is missing"),
        ("18 steps, 2.3 ms each, 3/4 of it", "18 steps, 2.3 ms each, 3/4 of it"),
        ("https://download.pytorch.org/whl/cu126", "https://download.pytorch.org/whl/cu126"),
        ("(`/home/annlee/x`)", "(`<path>`)"),
        ("s3://ann-bucket/x is not beside", "<url> is not beside"),
        ("file:///home/ann/x, and /usr/local/ann", "<url>, and <path>"),
        ("in /library/ann and /var/tmp/ann", "in <path> and <path>"),
        ("export TMPDIR=/var/tmp", "export TMPDIR=/var/tmp"),
        ("a=/home/annlee/x;b=/home/annlee/y", "a=<path>;b=<path>"),
    ],
)
def test_paths_and_names_are_taken_out(scene, line, public):
    assert Scrubber(scene)(line) == public


def test_a_plans_name_is_its_owners(scene):
    scene.named = "secret-deal.toml"
    assert (
        Scrubber(scene)("autotrain run secret-deal.toml --trust") == "autotrain run <plan> --trust"
    )


def test_folders_whose_names_help_get_names_of_ours(scene, tmp_path):
    hide = Scrubber(scene)
    assert hide(f"{sys.executable} -m pip install x") == "<env>/bin/python -m pip install x"
    assert hide(f"{tmp_path}: full") == "<run>: full"
    assert hide(f"{tmp_path}-other/x: full") == "<tmp>: full"
    assert hide(f"'{tmp_path}/ann lee/x' and {tmp_path}/b") == "<run> and <run>"


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
