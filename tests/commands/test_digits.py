"""The acceptance of the main job: handwritten digits as PNG folders, two commands, 97 %."""

import json
import subprocess
import sys

import pytest

from autotrain import files

from .house import cli


@pytest.mark.slow
def test_digits_as_png_folders_reach_97_percent(tmp_path, monkeypatch):
    pytest.importorskip("sklearn")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    make = files.shipped("templates") / "image-classifier" / "make_digits.py"
    subprocess.run([sys.executable, make, tmp_path / "digits"], check=True, capture_output=True)
    done = cli("plan", "digits", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = cli("run", "plan.toml", "--json", cwd=tmp_path, seconds=900)
    assert done.returncode == 0, done.stderr
    stopped = json.loads(done.stdout.splitlines()[-1])
    print(f"accuracy {stopped['best']:.4f} after {stopped['seconds']:.0f} s")
    assert stopped["best"] >= 0.97
