from pathlib import Path

import pytest

from autotrain.doctor.checks import CHECKS, FOR_PLAN
from autotrain.doctor.scene import Scene

from .house import Answers


@pytest.fixture
def look(tmp_path):
    """`look("memory", "RAM", root=...)`: one check, in this process."""

    def call(theme, name, *, where=tmp_path, root=Path("/"), environment=(), plan=None, **said):
        check = {(c.theme, c.name): c.look for c in (*CHECKS, *FOR_PLAN)}[theme, name]
        scene = Scene(where, plan, environment=dict(environment), root=root, asked=Answers(**said))
        return check(scene)

    return call


@pytest.fixture
def system(tmp_path):
    """`system({"proc/driver/nvidia/version": "..."})`: a root of files like those of a system."""

    def make(contents):
        root = tmp_path / "system"
        for name, content in contents.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return root

    return make


@pytest.fixture
def site(tmp_path):
    """A folder of packages that is found before the real ones."""
    folder = tmp_path / "site"
    folder.mkdir()
    return folder
