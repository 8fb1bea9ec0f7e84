"""What checks make of answers that this machine does not give."""

import errno
import time
from types import SimpleNamespace

import psutil
import pytest

from autotrain.doctor import interpreter
from autotrain.doctor.asking import Asked, NoAnswerError

from .house import TORCH, environment, examined, tried


@pytest.mark.parametrize(
    ("name", "said", "mend"),
    [
        ("numpy", {"torch": TORCH | {"numpy": "Numpy is not available"}}, "--upgrade numpy"),
        ("import torch", {"torch": TORCH | {"sum": 262_143.0}}, "torch==2.11.0"),
        ("import torch", {"torch": "a bus error"}, "torch==2.11.0"),
        ("import torch", {"torch": "ImportError: failed to map segment"}, "ulimit -v unlimited"),
        ("import torch", {"torch": "the process ended with SIGKILL"}, "docker update --memory"),
        (
            "import torchaudio",
            {"torch": TORCH, "torchaudio": "OSError: no libcudart"},
            "torchaudio==",
        ),
        ("import torchvision", {"torch": TORCH, "torchvision": "no operator nms"}, "torchvision=="),
        ("import torchvision", {"torch": TORCH, "torchvision": "Too many open files"}, "ulimit -n"),
    ],
)
def test_what_does_not_load(look, name, said, mend):
    found = look("torch", name, **said)
    assert found.status == "fail"
    assert mend in found.mend


def test_a_torchcodec_without_ffmpeg(site, tmp_path):
    (site / "torchcodec.py").write_text("raise RuntimeError('Could not load libtorchcodec')\n")
    found = examined(["torch", "torchcodec"], where=tmp_path, site=site)["torch, torchcodec"]
    assert found.status == "warn"
    assert "Could not load libtorchcodec; torchaudio.load fails" in found.detail


@pytest.mark.parametrize(
    ("broken", "status"), [({"WEBP": "no decoder"}, "warn"), ({"JPEG": "no decoder"}, "fail")]
)
def test_images_that_cannot_be_read(look, broken, status):
    found = look("codecs", "images", images={"formats": ["PNG"], "broken": broken})
    assert (found.status, found.mend.endswith("--force-reinstall pillow")) == (status, True)


def test_a_processor_that_computes_wrongly(look):
    step = {
        "devices": [{"name": "cpu", "tried": [tried(error=0.3), tried(dtype="bf16", drift=0.5)]}]
    }
    for name in ("CPU in fp32", "CPU as planned"):
        found = look("step", name, torch=TORCH, step=step)
        assert found.status == "fail"
        assert "memtest86+" in found.mend


def test_steps_that_end_their_process(look):
    found = look("step", "CPU in fp32", torch=TORCH, step="an illegal instruction")
    assert (found.status, "an illegal instruction" in found.detail) == ("fail", True)


def test_a_busy_machine(look, monkeypatch):
    monkeypatch.setattr("os.getloadavg", lambda: (1e4, 0.0, 0.0), raising=False)
    assert look("processor", "load").status == "warn"


def test_a_machine_that_lives_on_swap(look, monkeypatch):
    swap = SimpleNamespace(total=8 << 30, used=7 << 30)
    monkeypatch.setattr(psutil, "swap_memory", lambda: swap)
    memory = SimpleNamespace(total=8 << 30, available=1 << 28)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    found = look("memory", "swap")
    assert (found.status, "7 GiB used of 8 GiB" in found.detail) == ("warn", True)
    assert look("memory", "RAM").status == "fail"


def test_a_slow_disk(look, monkeypatch):
    monkeypatch.setattr("autotrain.probe.disk.write_bandwidth", lambda where: 5e6)
    assert "5 MB/s" in look("disk", "speed").detail
    assert look("disk", "speed").status == "warn"


def test_a_disk_without_locks(look, monkeypatch):
    """An NFS mount whose lock daemon is not there."""

    def refuse(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    found = look("disk", "locks")
    assert found.status == "fail"
    assert "No locks available" in found.detail


def test_a_disk_that_gives_a_lock_twice(look, monkeypatch):
    monkeypatch.setattr("fcntl.flock", lambda *arguments: None)
    found = look("disk", "locks")
    assert (found.status, "given twice" in found.detail) == ("fail", True)


@pytest.mark.root
def test_little_room_for_temporary_files(tmp_path, small_disk):
    place = tmp_path / "tmp"
    place.mkdir()
    small_disk(place, "3m")
    found = examined(["disk", "temporary room"], where=tmp_path, variables={"TMPDIR": str(place)})
    assert found["disk, temporary room"].status == "fail"


@pytest.mark.parametrize(
    ("version", "level", "status"),
    [((3, 10, 4), "final", "fail"), ((3, 15, 0), "alpha", "warn"), ((3, 13, 1), "final", "ok")],
)
def test_pythons_that_are_too_old_or_not_done(look, monkeypatch, version, level, status):
    class Version(tuple):
        releaselevel = level

    monkeypatch.setattr(interpreter.sys, "version_info", Version(version))
    assert look("environment", "python").status == status


def test_a_python_that_belongs_to_the_system(look, monkeypatch, tmp_path):
    """Debian's, for one: pip refuses to install there."""
    (tmp_path / "EXTERNALLY-MANAGED").write_text("")
    monkeypatch.setattr(interpreter.sys, "prefix", str(tmp_path))
    monkeypatch.setattr(interpreter.sys, "base_prefix", str(tmp_path))
    monkeypatch.setattr(interpreter.sysconfig, "get_path", lambda name: str(tmp_path))
    found = look("environment", "virtual environment")
    assert (found.status, "-m venv .venv" in found.mend) == ("warn", True)


def test_a_torch_that_hangs_is_waited_for_once(site, monkeypatch):
    """What is asked behind it would hang as well."""
    (site / "torch.py").write_text("import time\ntime.sleep(100)\n")
    monkeypatch.setenv("PYTHONPATH", environment(site=site)["PYTHONPATH"])
    asked, begun = Asked(seconds=1.5), time.monotonic()
    asked.begin("torch", "cuda", "torchaudio", "torchvision", "step cpu bf16 2", needed="torch")
    for question in ("torch", "torchaudio", "step cpu bf16 2"):
        with pytest.raises(NoAnswerError, match=r"no answer within 1\.5 s"):
            asked.answer(question)
    assert time.monotonic() - begun < 1.5 * 4
