"""GPUs, told from what a driver and torch would say, and from real files and processes."""

import os
import shutil
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from autotrain.doctor import cards, fitting, gpu, gpu_health, step
from autotrain.doctor.asking import Asked, NoAnswerError
from autotrain.doctor.scene import Scene
from autotrain.doctor.step import LIMITS

from .house import GIB, TORCH, Answers, devices, environment, examined, tried

linux = pytest.mark.skipif(sys.platform != "linux", reason="files of Linux")
ABSENT = {"error": "NVML Shared Library Not Found", "gpus": []}
# The kernel's half of NVIDIA's driver, as /proc shows it.
KERNEL = {
    "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06\n"
}
WELL = {
    "compute_mode": "default", "uncorrected_errors": 0, "repair_pending": False,
    "repair_failed": False, "display": False, "watts_cap": 700.0, "watts_default": 700.0,
    "slowed": None,
}  # fmt: skip


def card(name="NVIDIA H200", free=140, total=141, neighbours=(), uuid="", capability=(9, 0)):
    size = {"free_bytes": free * GIB, "total_bytes": total * GIB}
    return {"name": name, "uuid": f"GPU-{uuid or name}", **size, "neighbours": list(neighbours),
            "capability": list(capability), "split": False}  # fmt: skip


def nvml(*gpus, cuda=(13, 0), **health):
    driver = {"version": "580.65.06", "cuda": list(cuda)}
    return {
        "error": "",
        "driver": driver,
        "gpus": list(gpus),
        "health": [WELL | health] * len(gpus),
    }


def test_without_a_gpu_nothing_is_wrong(look, system):
    here = system({"proc/cpuinfo": ""})
    said = {"nvml": ABSENT, "torch": TORCH, "cuda": devices()}
    names = ("driver", "device files", "driver and CUDA", "GPUs of torch", "GPU memory", "ROCm",
             "memory errors", "Xid errors", "throttling", "power cap", "desktop", "compute mode",
             "compute capability", "WSL")  # fmt: skip
    assert {look("gpu", name, root=here, **said).status for name in names} == {"skip"}


@linux
def test_a_driver_whose_library_is_hidden(look, system):
    """The kernel has it, and there is no libnvidia-ml.so.1: a container without --gpus."""
    asked = Asked()
    asked.begin("nvml")
    if not asked.answer("nvml")["error"]:
        pytest.skip("a driver answers here")
    found = look("gpu", "driver", root=system(KERNEL), nvml=asked.answer("nvml"))
    assert found.status == "fail"
    assert "libnvidia-ml.so.1 is not here" in found.detail
    assert "--gpus all" in found.mend


def test_a_card_without_a_driver(look, system):
    folder = "sys/bus/pci/devices/0000:01:00.0"
    here = system({f"{folder}/vendor": "0x10de\n", f"{folder}/class": "0x030000\n"})
    found = look("gpu", "driver", root=here, nvml=ABSENT)
    assert (found.status, found.mend) == ("fail", "sudo ubuntu-drivers install && sudo reboot")


@pytest.mark.parametrize(
    ("body", "says", "mend"),
    [
        (
            "raise NVMLError('Driver/library version mismatch')",
            "updated while the old one",
            "reboot",
        ),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "segmentation fault", "reboot"),
        ("raise NVMLError('Insufficient Permissions')", "Insufficient Permissions", "modprobe"),
    ],
)
def test_a_driver_that_refuses_or_crashes(look, system, site, monkeypatch, body, says, mend):
    """pynvml's place is taken by one that answers as the real one did on broken machines."""
    (site / "pynvml.py").write_text(
        f"class NVMLError(Exception): ...\ndef nvmlInit():\n    {body}\n"
    )
    monkeypatch.setenv("PYTHONPATH", environment(site=site)["PYTHONPATH"])
    asked = Asked()
    asked.begin("nvml", "images")
    try:
        told = asked.answer("nvml")
    except NoAnswerError as error:
        told = str(error)
    found = look("gpu", "driver", root=system(KERNEL), nvml=told)
    assert found.status == "fail"
    assert says in found.detail
    assert mend in found.mend
    assert asked.answer("images")["broken"] == {}  # who is asked next answers


def test_a_driver_that_hangs(site, monkeypatch):
    (site / "pynvml.py").write_text("import time\ndef nvmlInit():\n    time.sleep(100)\n")
    monkeypatch.setenv("PYTHONPATH", environment(site=site)["PYTHONPATH"])
    asked, begun = Asked(seconds=1.5), time.monotonic()
    with pytest.raises(NoAnswerError, match=r"no answer within 1\.5 s"):
        asked.answer("nvml")
    assert time.monotonic() - begun < 20


@linux
def test_device_files_that_are_missing_or_closed(look, system):
    here = system({"dev/nvidia0": "", "dev/nvidiactl": ""})
    assert "modprobe nvidia_uvm" in look("gpu", "device files", root=here).mend
    here = system({"dev/nvidia-uvm": ""})
    assert look("gpu", "device files", root=here).status == "ok"


@linux
def test_device_files_that_cuda_makes_as_it_starts(look, system):
    """nvidia-uvm is there after the first use, by nvidia-modprobe; a cluster gives one of many."""
    here = system({"dev/nvidia0": "", "dev/nvidia1": "", "dev/nvidiactl": ""})
    said = {"torch": TORCH, "cuda": devices((9, 0))}
    assert look("gpu", "device files", root=here, **said).status == "ok"
    assert look("gpu", "device files", root=here, torch=TORCH, cuda=devices()).status == "fail"


def test_a_driver_too_old_for_torch_gets_wheels_that_it_serves(look):
    found = look("gpu", "driver and CUDA", nvml=nvml(card(), cuda=(12, 4)))
    assert found.status == "fail"
    assert found.mend.endswith(
        "--index-url https://download.pytorch.org/whl/cu128 torch==2.11.0 torchaudio==2.11.0 "
        "torchvision==0.26.0"
    )
    found = look("gpu", "driver and CUDA", nvml=nvml(card(), cuda=(11, 8)))
    assert "ubuntu-drivers" in found.mend


def test_a_driver_that_is_newer_is_fine(look):
    assert look("gpu", "driver and CUDA", nvml=nvml(card(), cuda=(13, 2))).status in ("ok", "skip")


def test_gpus_that_torch_does_not_see(look):
    said = {"nvml": nvml(card()), "torch": TORCH}
    blind = devices() | {"complaint": "CUDA initialization: unknown error"}
    found = look("gpu", "GPUs of torch", **said, cuda=blind)
    assert found.status == "fail"
    assert "unknown error" in found.detail
    found = look("gpu", "GPUs of torch", **said, cuda="a segmentation fault")
    assert "a segmentation fault" in found.detail
    assert look("gpu", "GPUs of torch", **said, cuda=devices((9, 0))).status == "ok"
    full = devices((9, 0))
    full["devices"][0]["problem"] = "AcceleratorError: CUDA error: out of memory"
    found = look("gpu", "GPUs of torch", **said, cuda=full)
    assert (found.status, "out of memory" in found.detail) == ("fail", True)
    assert found.mend.startswith("nvidia-smi")


@pytest.mark.parametrize(
    ("told", "status"), [("", "fail"), ("-1", "fail"), ("0", "warn"), ("0,1", "ok")]
)
def test_gpus_that_are_hidden_by_a_variable(look, told, status):
    said = {"nvml": nvml(card("H200 a"), card("H200 b"))}
    for each in said["nvml"]["gpus"]:
        each["name"] = "NVIDIA H200"
    found = look("gpu", "hidden GPUs", environment={"CUDA_VISIBLE_DEVICES": told}, **said)
    assert found.status == status
    assert status == "ok" or found.mend == "unset CUDA_VISIBLE_DEVICES"


@pytest.mark.parametrize(
    ("variable", "said", "status"),
    [
        ("HIP_VISIBLE_DEVICES", "", "ok"),
        ("ROCR_VISIBLE_DEVICES", "7", "ok"),
        ("CUDA_VISIBLE_DEVICES", "1", "warn"),
        ("CUDA_VISIBLE_DEVICES", "GPU-T4", "warn"),
    ],
)
def test_variables_of_another_maker_hide_nothing(look, variable, said, status):
    """Unlike GPUs, of which CUDA's numbers are another matter than how many there are."""
    gpus = nvml(card("T4", total=16, free=15), card())
    assert look("gpu", "hidden GPUs", environment={variable: said}, nvml=gpus).status == status


def test_a_gpu_that_torch_lacks_and_nothing_hides(look):
    two = nvml(card(uuid="0"), card(uuid="1"))
    said = {"nvml": two, "torch": TORCH, "cuda": devices((9, 0))}
    found = look("gpu", "GPUs of torch", **said)
    assert (found.status, "the driver shows 2" in found.detail) == ("warn", True)
    hiding = {"CUDA_VISIBLE_DEVICES": "1"}
    assert look("gpu", "GPUs of torch", environment=hiding, **said).status == "ok"
    two["gpus"][0]["split"] = True  # of a GPU that is split, CUDA shows one part
    assert look("gpu", "GPUs of torch", **said).status == "ok"
    said["cuda"] = devices()
    assert look("gpu", "GPUs of torch", environment=hiding, **said).status == "skip"
    two["gpus"][0]["split"] = False
    assert look("gpu", "GPUs of torch", environment=hiding, **said).status == "fail"


@pytest.mark.parametrize(
    ("capability", "wheels", "status", "mend"),
    [
        ((7, 0), ("sm_75", "sm_80"), "fail", "cu126"),  # a V100 and the wheels of CUDA 13
        ((6, 1), ("sm_75", "sm_80"), "fail", "cu126"),
        ((12, 0), ("sm_70", "sm_90"), "fail", "pip install"),
        ((8, 9), ("sm_75", "sm_80", "sm_86"), "ok", ""),  # of the same generation
        ((10, 3), ("sm_90", "compute_100"), "ok", ""),  # compiled at the start
        ((8, 0), ("sm_86",), "fail", ""),
    ],
)
def test_a_gpu_that_torch_has_no_kernels_for(look, capability, wheels, status, mend):
    said = {"torch": TORCH, "cuda": devices(capability, architectures=wheels)}
    found = look("gpu", "compute capability", **said)
    assert found.status == status
    assert mend in found.mend


@pytest.mark.parametrize(
    ("name", "health", "status", "says"),
    [
        ("compute mode", {"compute_mode": "prohibited"}, "fail", "lets nobody compute"),
        ("compute mode", {"compute_mode": "exclusive"}, "warn", "one program at a time"),
        ("memory errors", {"uncorrected_errors": 3}, "fail", "3 memory errors"),
        ("memory errors", {"repair_pending": True}, "warn", "wait to be replaced"),
        ("memory errors", {"repair_failed": True}, "fail", "could not be repaired"),
        ("memory errors", {"uncorrected_errors": None}, "ok", "no ECC"),
        ("throttling", {"slowed": "hardware thermal slowdown"}, "warn", "thermal"),
        ("power cap", {"watts_cap": 300.0}, "warn", "300 W of 700 W"),
        ("power cap", {"watts_cap": None, "watts_default": None}, "ok", "does not tell"),
    ],
)
def test_what_ails_a_gpu(look, name, health, status, says):
    found = look("gpu", name, nvml=nvml(card(), **health))
    assert found.status == status
    assert says in found.detail


ILL = {"compute_mode": "prohibited", "uncorrected_errors": 3, "slowed": "power brake",
       "watts_cap": 100.0, "display": True}  # fmt: skip


@pytest.mark.parametrize(
    ("listed", "ill"), [(None, True), ("1", True), ("GPU-b", True), ("0", False), ("", False)]
)
def test_gpus_that_are_hidden_from_us_are_not_ours_to_judge(look, listed, ill):
    """On a shared machine another user's is busy, or ill."""
    game = {"name": "game", "pid": 7, "used_bytes": 100 * GIB}
    said = nvml(card(uuid="a"), card(uuid="b", free=1, neighbours=[game]))
    said["health"][1] = WELL | ILL
    variables = {} if listed is None else {"CUDA_VISIBLE_DEVICES": listed}
    for name in (
        "compute mode",
        "memory errors",
        "GPU memory",
        "throttling",
        "power cap",
        "desktop",
    ):
        found = look("gpu", name, environment=variables, nvml=said)
        assert (found.status in ("warn", "fail")) == ill, (name, found)
        assert not ill or name == "GPU memory" or "GPU 1" in found.detail


def test_which_of_unlike_gpus_are_ours_is_torchs_to_tell(look):
    """CUDA puts the fastest first; the driver goes by the bus."""
    said = nvml(card("T4", uuid="a", free=1), card(uuid="b"))
    answers = {"nvml": said, "torch": TORCH, "cuda": devices((9, 0))}
    answers["cuda"]["devices"][0]["uuid"] = "b"
    variables = {"CUDA_VISIBLE_DEVICES": "0"}
    assert look("gpu", "GPU memory", environment=variables, **answers).status == "ok"


def test_a_gpu_that_others_fill_names_them_but_not_in_public(look):
    game = {"name": "secretgame", "pid": 7, "used_bytes": 6 * GIB}
    found = look("gpu", "GPU memory", nvml=nvml(card(free=1, total=8, neighbours=[game])))
    assert found.status == "warn"
    assert "secretgame (pid 7) holds 6 GiB" in found.detail
    assert found.private == ("secretgame",)


def test_a_desktop_on_the_same_card(look):
    assert look("gpu", "desktop", nvml=nvml(card(free=6, total=8), display=True)).status == "warn"
    assert look("gpu", "desktop", nvml=nvml(card(), display=True)).status == "ok"


def test_faults_in_the_kernels_log():
    bad = "[ 12.3] NVRM: Xid (PCI:0000:01:00): 79, pid=1, GPU has fallen off the bus.\n"
    old = "[  9.1] NVRM: Xid (PCI:0000:01:00): 13, pid=77, Graphics Exception\n"
    assert gpu_health.xids_in(old + bad).status == "fail"
    assert "79: fell off the bus" in gpu_health.xids_in(old + bad).detail
    assert gpu_health.xids_in(old).status == "warn"
    assert gpu_health.xids_in("[ 1.0] Linux version 6.18\n").status == "ok"


def test_faults_of_a_gpu_that_is_not_ours(look, system):
    """A GPU of which nobody knows whose it is (it fell off the bus) counts."""
    folder = "proc/driver/nvidia/gpus/0000:{}:00.0/information"
    here = system({folder.format("01"): "Model: x\nGPU UUID: GPU-a\n",
                   folder.format("02"): "Model: x\nGPU UUID: GPU-b\n"})  # fmt: skip
    scene = Scene(here, environment={"CUDA_VISIBLE_DEVICES": "0"}, root=here,
                  asked=Answers(nvml=nvml(card(uuid="a"), card(uuid="b"))))  # fmt: skip
    others = gpu_health._not_ours(scene)
    line = "NVRM: Xid (PCI:0000:{}:00): 79, pid=1, GPU has fallen off the bus.\n"
    found = {bus: gpu_health.xids_in(line.format(bus), others).status for bus in ("01", "02", "03")}
    assert found == {"01": "fail", "02": "ok", "03": "fail"}


# What Linux's amdgpu shows of a processor, its GPU (Raphael's), and a Radeon RX 7900.
NODE = "sys/class/kfd/kfd/topology/nodes/{}/properties"
CPU = {NODE.format(0): "cpu_cores_count 16\nsimd_count 0\ngfx_target_version 0\n"}
WITHIN = {NODE.format(1): "simd_count 4\ndrm_render_minor 128\ngfx_target_version 100306\n",
          "dev/dri/renderD128": ""}  # fmt: skip
RADEON = {NODE.format(2): "simd_count 192\ndrm_render_minor 129\ngfx_target_version 110000\n",
          "dev/dri/renderD129": ""}  # fmt: skip
KFD = {"dev/kfd": "", **CPU}


@pytest.fixture
def for_rocm(monkeypatch):
    """torch as AMD's wheels say of themselves."""
    built = SimpleNamespace(cuda=None, hip="7.2", build="2.11.0+rocm7.2", made_for="ROCm 7.2")
    for module in (cards, fitting, gpu):
        monkeypatch.setattr(module, "wheel", lambda name: built)


@linux
@pytest.mark.parametrize(
    ("files", "status", "says"),
    [
        (RADEON | WITHIN, "warn", "AMD gfx1100: here, and torch is built for CUDA"),
        (WITHIN, "skip", "have kernels for"),
        ({}, "skip", ""),
    ],
)
def test_an_amd_gpu_and_a_torch_for_nvidia(look, system, files, status, says):
    found = look("gpu", "ROCm", root=system(KFD | files), nvml=ABSENT)
    assert (found.status, "rocm7.2" in found.mend) == (status, status == "warn")
    assert says in found.detail


@linux
def test_a_ryzen_with_an_nvidia_gpu_is_left_alone(look, system, monkeypatch):
    """amdgpu makes /dev/kfd for the processor's own GPU, which this user need not reach."""
    said = {"nvml": nvml(card()), "torch": TORCH, "cuda": devices((8, 9))}
    real = os.access
    monkeypatch.setattr("os.access", lambda path, mode: "kfd" not in str(path) and real(path, mode))
    for files in (WITHIN, RADEON, {}):
        found = look("gpu", "ROCm", root=system(KFD | files), **said)
        assert (found.status, found.mend) == ("skip", "")


@linux
def test_an_amd_gpu_of_which_an_old_kernel_says_nothing(look, system):
    found = look("gpu", "ROCm", root=system({"dev/kfd": ""}), nvml=ABSENT)
    assert (found.status, "rocm7.2" in found.mend) == ("warn", True)


@linux
def test_an_amd_gpu_that_torch_does_not_see(look, system, for_rocm):
    here = system(KFD | RADEON | WITHIN)
    said = {"root": here, "nvml": ABSENT, "torch": TORCH, "cuda": devices()}
    found = look("gpu", "GPUs of torch", **said)
    assert (found.status, "AMD gfx1100: there, and torch sees none" in found.detail) == (
        "fail",
        True,
    )
    assert found.mend.startswith("rocminfo")
    assert look("gpu", "ROCm", **said).status == "ok"
    said["cuda"] = devices((11, 0))
    assert look("gpu", "GPUs of torch", **said).status == "ok"


@linux
@pytest.mark.parametrize(
    ("variables", "status", "name"),
    [
        ({}, "ok", ""),
        ({"HIP_VISIBLE_DEVICES": ""}, "fail", "HIP_VISIBLE_DEVICES"),
        ({"HIP_VISIBLE_DEVICES": "-1"}, "fail", "HIP_VISIBLE_DEVICES"),
        ({"ROCR_VISIBLE_DEVICES": "GPU-5"}, "ok", ""),
        ({"CUDA_VISIBLE_DEVICES": "1"}, "fail", "CUDA_VISIBLE_DEVICES"),
        ({"CUDA_VISIBLE_DEVICES": "0"}, "ok", ""),
        ({"CUDA_VISIBLE_DEVICES": "7", "HIP_VISIBLE_DEVICES": "0"}, "ok", ""),
    ],
)
def test_an_amd_gpu_that_is_hidden_by_a_variable(look, system, for_rocm, variables, status, name):
    found = look("gpu", "hidden GPUs", root=system(KFD | RADEON), environment=variables)
    assert (found.status, found.mend) == (status, f"unset {name}" if name else "")


@linux
def test_what_torch_sees_all_the_same_is_not_hidden(look, system, for_rocm):
    said = {"torch": TORCH, "cuda": devices((11, 0)), "environment": {"HIP_VISIBLE_DEVICES": ""}}
    assert look("gpu", "hidden GPUs", root=system(KFD | RADEON), **said).status == "ok"


@linux
def test_an_amd_gpu_gets_a_torch_for_it(system, monkeypatch):
    """Where there is none yet, or one for a CPU."""
    monkeypatch.setattr(cards, "wheel", lambda name: None)
    monkeypatch.setattr(fitting, "wheel", lambda name: None)
    for files, folder in ((RADEON, "/rocm7.2 "), (WITHIN, "")):
        scene = Scene(Path("/x"), root=system(KFD | files), asked=Answers(nvml=ABSENT))
        mend = fitting.torch_that_fits(scene)
        assert (folder in mend, "--index-url" in mend) == (True, bool(folder))
        shutil.rmtree(scene.root / "sys")


@linux
def test_wsl_with_data_on_the_windows_disk(look, system):
    release = {"proc/sys/kernel/osrelease": "5.15.0-microsoft-standard-WSL2\n"}
    here = system({**release, "dev/dxg": "", "mnt/c/runs/plan.toml": ""})
    assert look("gpu", "WSL", root=here, where=here / "mnt/c/runs").mend == "cd ~"
    assert look("gpu", "WSL", root=here).status == "ok"


@linux
def test_wsl_shows_a_gpu_that_need_not_be_nvidias(look, system):
    release = {"proc/sys/kernel/osrelease": "5.15.0-microsoft-standard-WSL2\n", "dev/dxg": ""}
    assert look("gpu", "driver", root=system(release), nvml=ABSENT).status == "skip"
    here = system({"usr/lib/wsl/drivers/nvlt.inf_amd64/nvidia.inf": ""})
    assert look("gpu", "driver", root=here, nvml=ABSENT).mend.startswith("wsl.exe --update")


@pytest.mark.parametrize(
    ("said", "status", "says"),
    [
        (tried(), "ok", "9 steps"),
        (tried(error=0.4), "fail", "40.0% of the way"),
        (tried(drift=0.4), "fail", "apart from time to time"),
        (tried(finite=False), "fail", "NaN"),
        ({"dtype": "fp32", "problem": "RuntimeError: no kernel image"}, "fail", "no kernel image"),
        (tried(dtype="bf16", error=0.02), "ok", "bf16"),
        ({"dtype": "bf16", "problem": "RuntimeError: unsupported"}, "warn", "unsupported"),
    ],
)
def test_what_steps_on_a_gpu_say(look, said, status, says):
    which = "GPU in fp32" if said["dtype"] == "fp32" else "GPU as planned"
    answers = {"torch": TORCH, "cuda": devices((9, 0), (9, 0))}
    step = {"devices": [{"name": "cuda:0", "tried": [tried(), tried(dtype="bf16")]},
                        {"name": "cuda:1", "tried": [said, said]}]}  # fmt: skip
    found = look("step", which, **answers, step=step)
    assert found.status == status
    assert says in found.detail
    assert "cuda:0" in found.detail


def test_real_steps_on_the_cpu_agree_with_fp64():
    """Each precision far within its limit, and a wrong result far beyond."""
    from autotrain.doctor import stepping

    [cpu] = stepping.on_all("cpu", "bf16", 0.2)
    for each in cpu["tried"]:
        assert each["finite"], each
        assert each["error"] < LIMITS[each["dtype"]] / 5, each
        assert each["drift"] <= each["error"], each


def test_a_step_that_computes_wrongly_is_seen(monkeypatch):
    """As a processor that drops a bit would: one product in the model is a little off."""
    import torch

    from autotrain.doctor import stepping

    real = torch.nn.functional.linear

    def off(inputs, *more):
        made = real(inputs, *more)
        return made * 1.05 if inputs.dtype == torch.float32 else made

    monkeypatch.setattr(torch.nn.functional, "linear", off)
    [cpu] = stepping.on_all("cpu", "fp32", 0.1)
    assert cpu["tried"][0]["error"] > LIMITS["fp32"]


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), 1e4])
def test_a_step_that_is_wrong_now_and_then_is_seen(monkeypatch, wrong):
    """Right for the first time, so that the reference and the first comparison say nothing."""
    import torch

    from autotrain.doctor import stepping

    real, calls = torch.nn.functional.linear, 0

    def now_and_then(inputs, *more):
        nonlocal calls
        calls += inputs.dtype == torch.float32
        return real(inputs, *more) * (wrong if calls == 4 * stepping.STEPS else 1.0)

    monkeypatch.setattr(torch.nn.functional, "linear", now_and_then)
    [cpu] = stepping.on_all("cpu", "fp32", 0.4)
    assert cpu["tried"][0]["error"] < LIMITS["fp32"]
    assert step._judged("cpu", cpu["tried"][0], "cpu").status == "fail"


@pytest.mark.gpu
def test_a_real_gpu_passes(tmp_path):
    names = [["gpu", n] for n in ("driver", "GPUs of torch", "compute capability", "GPU memory")]
    found = examined(*names, ["step", "GPU in fp32"], ["step", "GPU as planned"], where=tmp_path)
    assert {each.status for each in found.values()} <= {"ok", "warn"}, found
