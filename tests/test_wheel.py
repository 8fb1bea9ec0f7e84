"""What a user installs holds what the checkout holds."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SHIPPED = {"profiles": "profiles", "templates": "templates", "autotrain/recipes": "recipes"}
OPEN_ALL = """
import json
from autotrain import files
opened = {}
for folder in ("profiles", "recipes"):
    for name in files.shipped_names(folder):
        opened[str(files.shipped(folder) / f"{name}.toml")] = bool(
            files.read_toml(files.shipped(folder) / f"{name}.toml")
        )
for name in files.shipped_names("templates"):
    folder = files.shipped("templates") / name
    compile((folder / "task.py").read_bytes(), "task.py", "exec")
    opened[str(folder / "template.toml")] = bool(files.read_toml(folder / "template.toml"))
print(json.dumps({"package": files.__file__, "opened": opened}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory):
    """The wheel installed by pip into a folder of its own, without the network."""
    folder = tmp_path_factory.mktemp("installed") / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*install, "--target", str(folder), str(wheel)], check=True)
    return folder


def test_the_installed_wheel_opens_its_profiles_recipes_and_templates(site, tmp_path):
    """-S: no site-packages, so neither the checkout nor its editable install can stand in."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", OPEN_ALL],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert Path(seen["package"]) == site / "autotrain" / "files.py"
    inside = {Path(path).relative_to(site).parts[1] for path in seen["opened"]}
    assert inside == {"profiles", "recipes", "templates"}
    assert all(seen["opened"].values())


@pytest.mark.parametrize("folder", SHIPPED)
def test_the_wheel_holds_every_shipped_file(wheel, folder):
    """Clips and pictures too, and no bytecode."""
    here = {
        path.relative_to(ROOT / folder).as_posix(): path.stat().st_size
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    prefix = f"autotrain/{SHIPPED[folder]}/"
    with zipfile.ZipFile(wheel) as archive:
        there = {
            entry.filename.removeprefix(prefix): entry.file_size
            for entry in archive.infolist()
            if entry.filename.startswith(prefix)
        }
    assert here
    assert there == here


def test_the_clips_of_the_template_and_of_the_corpus_are_in_the_wheel(wheel):
    with zipfile.ZipFile(wheel) as archive:
        clips = [n for n in archive.namelist() if n.endswith(".flac")]
    for place in ("templates/speech-autoencoder/", "blocks/corpus/clips/wavs/"):
        assert sum(name.startswith(f"autotrain/{place}") for name in clips) == 20
    assert len(clips) == 40


def test_the_wheel_carries_its_licence_and_the_command(wheel):
    with zipfile.ZipFile(wheel) as archive:
        texts = {Path(n).name: archive.read(n).decode() for n in archive.namelist() if "info/" in n}
    assert texts["LICENSE"] == (ROOT / "LICENSE").read_text()
    assert "Apache License" in texts["LICENSE"]
    assert "autotrain = autotrain.__main__:main" in texts["entry_points.txt"]
