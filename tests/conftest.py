import os

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["AUTOTRAIN_TRIAL"] = "off"  # seconds each: tests of it turn it on
os.environ["AUTOTRAIN_BUSY"] = "ignore"  # tests run beside one another

# Shared, busy machines: a slow example is no failure.
settings.register_profile("autotrain", deadline=None)
settings.load_profile("autotrain")


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory, monkeypatch):
    """No test reads or writes the user's own settings."""
    monkeypatch.setenv("AUTOTRAIN_HOME", str(tmp_path_factory.mktemp("home")))


def pytest_collection_modifyitems(items):
    """What cannot run here skips, so that a bare `pytest` says the same as `make test`."""
    no_root = pytest.mark.skip(reason="needs root")
    for item in items:
        if "root" in item.keywords and (not hasattr(os, "geteuid") or os.geteuid() != 0):
            item.add_marker(no_root)
        if "gpu" in item.keywords and not _has_gpu():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA GPU"))


def _has_gpu():
    import torch

    return torch.cuda.is_available()
