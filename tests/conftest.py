import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory, monkeypatch):
    """No test reads or writes the user's own settings."""
    monkeypatch.setenv("AUTOTRAIN_HOME", str(tmp_path_factory.mktemp("home")))
