"""torch and its companions that do not fit: told from their files, whatever import would do."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
from narrow import can_unshare

from autotrain.doctor import cards, elf, fitting, gpu, mending, pairing

from .house import CUDA_TOO, LIBRARY, doctor, examined, fake_torch

linux = pytest.mark.skipif(sys.platform != "linux", reason="libraries of Linux")
ALL = [["torch", name] for name in ("torch", "torchaudio", "torchvision", "files")]


def of_real(name):
    """The folder of the real one."""
    return Path(find_spec(name).origin).parent


@linux
def test_a_cpu_only_torch_beside_torchaudio_is_named_and_nothing_crashes(site, tmp_path):
    """`import torch` ends with a segmentation fault here, and the doctor looks at all the rest."""
    fake_torch(site, "2.13.0+cpu")
    done = doctor("--no-step", cwd=tmp_path, site=site)
    found = done.found
    assert done.code == 1
    assert "2.13.0+cpu, built for a CPU; autotrain is made for 2.11" in found["torch, torch"].detail
    for name in ("torchaudio", "torchvision"):
        fault = found[f"torch, {name}"]
        assert fault.status == "fail"
        assert "built for CUDA 13.0" in fault.detail
        assert "libtorch_cuda.so" in fault.detail
        assert "torch built for a CPU" in fault.detail
        assert fault.mend.endswith(
            "--force-reinstall torch==2.11.0 torchaudio==2.11.0 torchvision==0.26.0"
        )
        assert found[f"torch, import {name}"].status == "skip"
    assert found["torch, import torch"].status == "fail"
    assert "segmentation fault" in found["torch, import torch"].detail
    assert found["codecs, sound"].status == "ok"
    assert found["disk, run folder"].status == "ok"
    assert not any("this check failed" in each.detail for each in found.values())


@linux
def test_a_torch_of_another_cuda_is_refused_by_torchaudio_alone(site, tmp_path):
    """torchvision minds the generation, torchaudio the whole version (torch 2.15 on CUDA 13.2)."""
    fake_torch(site, "2.15.0+cu132", cuda="13.2", libraries=CUDA_TOO)
    found = examined(*ALL, where=tmp_path, site=site)
    assert "built for CUDA 13.0, torch for CUDA 13.2" in found["torch, torchaudio"].detail
    assert found["torch, torchvision"].status == "fail"
    assert "it asks for torch 2.11.0" in found["torch, torchvision"].detail


@linux
def test_of_another_minor_version_is_a_warning_where_nothing_else_is_wrong(site, tmp_path):
    fake_torch(site, "2.12.1+cu130", cuda="13.0", libraries=CUDA_TOO)
    found = examined(*ALL, where=tmp_path, site=site)
    assert found["torch, torchaudio"].status == "warn"
    assert "made for torch 2.11" in found["torch, torchaudio"].detail


def test_metadata_of_one_torch_over_the_code_of_another(site, tmp_path):
    fake_torch(site, "2.11.0+cu130", cuda="13.0", metadata="2.12.0")
    found = examined(*ALL, where=tmp_path, site=site)["torch, torch"]
    assert found.status == "fail"
    assert "pip holds it for 2.12.0: two installs in one" in found.detail


def test_a_library_cut_short_by_a_full_disk(site, tmp_path):
    """Loading such a file ends with a bus error; its size says so before."""
    fake_torch(site, "2.11.0+cu130", cuda="13.0", libraries=CUDA_TOO)
    os.truncate(site / "torch/lib/libtorch_cpu.so", 17)
    found = examined(*ALL, where=tmp_path, site=site)["torch, files"]
    assert found.status == "fail"
    assert "torch: libtorch_cpu.so: gone, or not as long as it was installed" in found.detail
    assert "--force-reinstall --no-deps --no-cache-dir torch==2.11.0+cu130" in found.mend


def test_no_torch_at_all(tmp_path):
    """As in an environment of the standard library alone: `-S` leaves site-packages out."""
    code = (
        "from pathlib import Path; from autotrain.doctor import pairing, scene;"
        "print(pairing.torch_is_there(scene.Scene(Path('.'))))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=root, capture_output=True, text=True, check=False,
        env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert "torch is not installed here" in done.stdout, done.stderr


def hiding(what):
    """A command before a command: an empty disk over a folder, for that process alone."""
    return ["unshare", "-m", "sh", "-c", f'mount --make-rprivate / && {what} && exec "$0" "$@"']


@pytest.fixture
def cuda():
    """Where NVIDIA's wheels have put most of their libraries."""
    places = (Path(entry) / "nvidia/cu13/lib" for entry in sys.path)
    found = next((place for place in places if place.is_dir()), None)
    if found is None or not can_unshare():
        pytest.skip("torch is built without CUDA here, or nothing can be mounted")
    return found


@linux
@pytest.mark.root
def test_cuda_libraries_that_are_hidden(tmp_path, cuda):
    """The real torch; the system may have some of them elsewhere, too."""
    found = examined(
        ["torch", "CUDA libraries"], ["torch", "files"], where=tmp_path,
        before=hiding(f'mount -t tmpfs none "{cuda}"'),
    )  # fmt: skip
    fault = found["torch, CUDA libraries"]
    assert fault.status == "fail"
    assert "torch needs libcublas.so.13, " in fault.detail
    assert re.search(r"--force-reinstall --no-deps .*nvidia-cublas==\S+", fault.mend)
    assert "nvidia-cuda-runtime: libcudart.so.13" in found["torch, files"].detail
    assert re.search(r" nvidia-cuda-runtime==[\d.]+", found["torch, files"].mend)


@linux
@pytest.mark.root
def test_one_cuda_library_that_is_no_library(tmp_path, cuda):
    """An empty file in its place is what the loader takes, whatever the system has elsewhere."""
    found = examined(
        ["torch", "CUDA libraries"], where=tmp_path,
        before=hiding(f'mount --bind /dev/null "{cuda}/libcudart.so.13"'),
    )["torch, CUDA libraries"]  # fmt: skip
    assert found.status == "fail"
    assert "torch needs libcudart.so.13, found nowhere" in found.detail
    assert re.search(r"--no-deps nvidia-cuda-runtime==[\d.]+$", found.mend)


def test_what_is_really_here_fits(look):
    for name in (
        "torch",
        "torchaudio",
        "torchvision",
        "files",
        "CUDA libraries",
        "torch from here",
    ):
        assert look("torch", name).status in ("ok", "skip"), look("torch", name)


@linux
def test_needs_are_read_as_readelf_reads_them():
    library = next(of_real("torchaudio").glob("lib/*.so"))
    done = subprocess.run(["readelf", "-d", library], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("no readelf")
    assert list(elf.needs(library).names) == re.findall(r"NEEDED\).*\[(.+)\]", done.stdout)
    image = of_real("torchvision") / "image.so"
    own = str(image.parent)
    assert [str(f) for f in elf.needs(image).folders] == [
        own,
        f"{Path(own).parent}/torchvision.libs",
    ]


@pytest.mark.parametrize("size", [0, 3, 63, 64, 100, 4096, 20_000])
def test_a_library_cut_anywhere_is_refused_not_crashed_on(tmp_path, size):
    library = next(of_real("torchvision").glob("*.so"))
    cut = tmp_path / "cut.so"
    cut.write_bytes(library.read_bytes()[:size])
    with pytest.raises(ValueError, match=r"short|library"):
        elf.needs(cut)


def test_a_script_is_no_library(tmp_path):
    (tmp_path / "x.so").write_text("INPUT(libm.so.6)" * 10)
    with pytest.raises(ValueError, match="not a 64-bit library"):
        elf.needs(tmp_path / "x.so")


def test_the_versions_that_mend_are_those_that_autotrain_asks_for():
    from packaging.requirements import Requirement

    from autotrain.doctor.packages import _asked_for

    asked = {each.name: each.specifier for each in map(Requirement, _asked_for())}
    for text in (mending.TORCH, mending.TORCHAUDIO, mending.TORCHVISION):
        name, _, version = text.partition("==")
        assert version in asked[name]


@pytest.mark.parametrize(
    ("serves", "folder"),
    [((13, 1), "cu130"), ((13, 0), "cu130"), ((12, 8), "cu128"), ((12, 2), "cu128"), ((11, 8), "")],
)
def test_a_driver_gets_the_newest_wheels_that_it_serves(serves, folder):
    assert mending.for_driver(serves) == folder


@pytest.mark.parametrize(
    ("built", "serves", "capability", "folder"),
    [
        ("12.6", (13, 0), (7, 0), "cu126"),  # a V100 keeps what it has
        ("13.0", (13, 0), (7, 0), "cu126"),
        ("13.0", (12, 4), (9, 0), "cu128"),
        ("12.6", (13, 0), (9, 0), "cu126"),  # it works
        ("12.6", (12, 8), (12, 0), "cu128"),
        (None, (13, 2), (9, 0), "cu130"),
        (None, (12, 8), (8, 6), "cu128"),
        ("13.2", (13, 2), (8, 9), "cu130"),
        ("12.8", None, None, "cu128"),  # no driver: what is there was chosen
        (None, None, None, ""),
    ],
)
def test_what_mends_torch_goes_with_the_gpu_and_its_driver(
    look, monkeypatch, built, serves, capability, folder
):
    """Every check that would have torch anew says the same."""
    here = SimpleNamespace(name="torch", cuda=built, hip=None, build="2.10.0", version="2.10.0",
                           release=(2, 10, 0), made_for="x", native=[])  # fmt: skip
    for module in (cards, fitting, gpu):
        monkeypatch.setattr(module, "wheel", lambda name: here)
    monkeypatch.setattr(pairing, "wheel", {"torch": here}.get)
    card = {"name": "a", "uuid": "GPU-a", "total_bytes": 9, "free_bytes": 9,
            "capability": capability, "split": False}  # fmt: skip
    driver = {"version": "1", "cuda": serves}
    nvml = {"error": "", "driver": driver, "gpus": [card], "health": []} if serves else "no NVML"
    shipped = folder == "cu130" and sys.platform.startswith("linux")
    mend = mending.matching_torch("" if shipped else folder)
    names = ["torch", "torchaudio", "torchvision", "import torch"]
    found = {name: look("torch", name, nvml=nvml, torch="a bus error").mend for name in names}
    assert found == dict.fromkeys(names, mend)


def test_an_ld_library_path_with_cuda_in_it(look, tmp_path):
    (tmp_path / "libcudnn.so.8").write_bytes(LIBRARY)
    found = look("torch", "library path", environment={"LD_LIBRARY_PATH": f"/nowhere:{tmp_path}"})
    assert (found.status, found.mend) == ("warn", "unset LD_LIBRARY_PATH")
    assert "libcudnn.so.8" in found.detail


def test_libraries_of_the_system_are_not_looked_for():
    names = ("libc.so.6", "libstdc++.so.6", "libcuda.so.1", "libnvidia-ml.so.1", "libcudart.so.13")
    assert [pairing._a_wheels(name) for name in names] == [False, False, False, False, True]
