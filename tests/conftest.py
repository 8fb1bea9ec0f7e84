import gc
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from itertools import count, islice

import pytest
from hypothesis import settings
from narrow import CONTROL

os.environ.setdefault("OMP_NUM_THREADS", "1")
# Where tests run beside one another, threads that wait for others burn the cores those need.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# readline, which pytest loads, sets it behind Python's back for every process that is started.
os.environ["COLUMNS"] = ""
del os.environ["COLUMNS"]
os.environ["AUTOTRAIN_TRIAL"] = "off"  # seconds each: tests of it turn it on
os.environ["AUTOTRAIN_BUSY"] = "ignore"  # tests run beside one another
os.environ["AUTOTRAIN_REPORTS"] = "off"  # a process each, at evaluations: tests of it turn it on

# Shared, busy machines: a slow example is no failure.
settings.register_profile("autotrain", deadline=None)
settings.load_profile("autotrain")


@pytest.fixture(scope="session")
def homes(tmp_path_factory):
    """Paths for as many homes as are wanted."""
    folder = tmp_path_factory.mktemp("homes")
    return (folder / str(number) for number in count())


@pytest.fixture(autouse=True)
def own_home(homes, monkeypatch):
    """No test reads or writes the user's own settings."""
    home = next(homes)
    home.mkdir()
    monkeypatch.setenv("AUTOTRAIN_HOME", str(home))


@pytest.fixture(scope="session", autouse=True)
def kept_frozen():
    """A trace unfreezes what it froze, and what was frozen before."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gc, "unfreeze", lambda: None)
        yield


@pytest.fixture(scope="module", autouse=True)
def nothing_old(kept_frozen):
    """What is there by now is no garbage: `gc.collect`, which healing calls, passes over it."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def small_disk():
    """`small_disk(place, "3m")` makes a folder a file system of that size."""
    with ExitStack() as stack:

        def made(place, size):
            command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
            alone = sys.platform != "linux" or os.geteuid()
            if alone or subprocess.run(command, check=False).returncode:
                pytest.skip("needs root and mount")
            stack.callback(subprocess.run, ["umount", "-l", str(place)], check=True)
            return place

        yield made


@pytest.fixture
def group():
    """`group("pids", "pids.max", 3)`: a control group of that limit, as long as the test."""
    made = []

    def make(controller, name, most):
        folder = CONTROL / controller / f"autotrain-{os.getpid()}-{len(made)}"
        try:
            folder.mkdir()
            made.append(folder)
            (folder / name).write_text(str(most))
        except OSError as error:
            pytest.skip(f"needs root and control groups of version 1: {error}")
        return str(folder)

    yield make
    for folder in made:
        deadline = time.monotonic() + 10
        while folder.exists() and time.monotonic() < deadline:
            try:
                folder.rmdir()
            except OSError:  # its processes are still ending
                time.sleep(0.05)


@pytest.fixture
def few_operators(monkeypatch):
    """To measure this machine takes six operators in place of hundreds."""
    from autotrain.probe import timings

    for name in ("products", "by_bytes"):
        every = getattr(timings, name)
        monkeypatch.setattr(timings, name, lambda pool, every=every: islice(every(pool), 3))


def pytest_collection_modifyitems(items):
    """What cannot run here skips, so that a bare `pytest` says the same as `make test`."""
    no_root = pytest.mark.skip(reason="needs root")
    for item in items:
        if "root" in item.keywords and (not hasattr(os, "geteuid") or os.geteuid() != 0):
            item.add_marker(no_root)
        if "browser" in item.keywords and _chromium() is None:
            item.add_marker(pytest.mark.skip(reason="needs Chromium and playwright"))
        if "gpu" in item.keywords and not _has_gpu():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA GPU"))


@pytest.fixture(scope="session")
def chromium():
    """The program."""
    return _chromium()


def _chromium():
    """The program, where it is installed and can be driven."""
    if importlib.util.find_spec("playwright") is None:
        return None
    found = map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))
    return next(filter(None, found), None)


def _has_gpu():
    import torch

    return torch.cuda.is_available()
