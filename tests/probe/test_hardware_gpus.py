import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from autotrain import nvml
from autotrain.nvml import (
    Driver,
    Health,
    NvmlGpu,
    nvml_driver,
    nvml_gpus,
    nvml_health,
    nvml_problem,
    used_bytes,
)
from autotrain.probe import gpus

GIB = 1 << 30
LARGE = NvmlGpu("NVIDIA A100-SXM4-40GB", "GPU-aaaa-1", 40 * GIB, 39 * GIB, (8, 0))
SMALL = NvmlGpu("Tesla T4", "GPU-bbbb-2", 15 * GIB, 14 * GIB, (7, 5))
TWIN = replace(LARGE, uuid="GPU-aaaa-3")


class FakeError(Exception):
    pass


def fake_pynvml(**changes):
    """One RTX 4060 held by a game (pid 7, twice) and by this process."""
    game = SimpleNamespace(pid=7, usedGpuMemory=300)
    shown = SimpleNamespace(pid=7, usedGpuMemory=None)

    def refuse(*arguments):
        raise FakeError

    answers = {
        "NVMLError": FakeError,
        "NVMLLibraryMismatchError": FakeError,
        "NVML_CLOCK_SM": 1,
        "NVML_CLOCK_MEM": 2,
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlSystemGetDriverVersion": lambda: "580.65.06",
        "nvmlSystemGetCudaDriverVersion_v2": lambda: 13010,
        "nvmlDeviceGetCount": lambda: 1,
        "nvmlDeviceGetHandleByIndex": lambda index: f"handle {index}",
        "nvmlDeviceGetName": lambda handle: "NVIDIA GeForce RTX 4060",
        "nvmlDeviceGetUUID": lambda handle: "GPU-1234",
        "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(total=8 * GIB, free=7 * GIB),
        "nvmlDeviceGetCudaComputeCapability": lambda handle: (8, 9),
        "nvmlDeviceGetMigMode": refuse,
        "nvmlDeviceGetNumGpuCores": lambda handle: 3072,
        "nvmlDeviceGetMaxClockInfo": lambda handle, clock: {1: 2460, 2: 8501}[clock],
        "nvmlDeviceGetMemoryBusWidth": lambda handle: 128,
        "nvmlDeviceGetComputeRunningProcesses": lambda handle: [game],
        "nvmlDeviceGetGraphicsRunningProcesses": lambda handle: [shown],
    }
    return SimpleNamespace(**(answers | changes), refuse=refuse)


@pytest.fixture
def driver(monkeypatch):
    def install(**changes):
        library = fake_pynvml(**changes)
        monkeypatch.setitem(sys.modules, "pynvml", library)
        return library

    return install


def refuse(*arguments):
    raise FakeError


def test_a_gpu_is_read_from_the_driver(driver):
    driver()
    [gpu] = nvml_gpus()
    assert (gpu.name, gpu.total_bytes, gpu.free_bytes) == (
        "NVIDIA GeForce RTX 4060",
        8 * GIB,
        7 * GIB,
    )
    assert gpu.fp32_flops == pytest.approx(15.1e12, rel=0.01)
    assert gpu.bandwidth == pytest.approx(272e9, rel=0.01)
    assert not gpu.split
    assert nvml_driver() == Driver("580.65.06", (13, 1))


def test_a_neighbour_is_counted_once_and_we_are_none(driver, monkeypatch):
    driver()
    monkeypatch.setattr(nvml, "_process_name", lambda pid: "game")
    [found] = nvml_gpus()[0].neighbours
    assert (found.pid, found.name, found.used_bytes) == (7, "game", 300)
    monkeypatch.setattr(nvml.os, "getpid", lambda: 7)
    assert nvml_gpus()[0].neighbours == ()


def test_a_neighbour_that_is_gone_has_an_unknown_name():
    assert nvml._process_name(2**22 + 1) == "unknown"


def test_no_driver_means_no_gpus(driver):
    driver(nvmlInit=refuse)
    assert nvml_gpus() == []
    assert nvml_driver() is None


def test_no_library_means_no_gpus(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert nvml_gpus() == []


def test_a_driver_that_refuses_details_still_shows_the_gpu(driver):
    driver(
        nvmlDeviceGetNumGpuCores=refuse,
        nvmlDeviceGetComputeRunningProcesses=refuse,
        nvmlDeviceGetMemoryInfo=refuse,
    )
    [gpu] = nvml_gpus()
    assert gpu.fp32_flops is None
    assert gpu.total_bytes > 0


HEALTHY = {
    "NVML_MEMORY_ERROR_TYPE_UNCORRECTED": 1,
    "NVML_VOLATILE_ECC": 0,
    "NVML_TEMPERATURE_GPU": 0,
    "nvmlDeviceGetRemappedRows": lambda handle: (1, 2, 1, 0),
    "nvmlDeviceGetEnforcedPowerLimit": lambda handle: 80_000,
    "nvmlDeviceGetPowerManagementDefaultLimit": lambda handle: 115_000,
    "nvmlDeviceGetDisplayActive": lambda handle: 1,
    "nvmlDeviceGetComputeMode": lambda handle: 3,
    "nvmlDeviceGetTotalEccErrors": lambda handle, kind, since: 4 if (kind, since) == (1, 0) else 0,
    "nvmlDeviceGetUtilizationRates": refuse,
    "nvmlDeviceGetTemperature": refuse,
    "nvmlDeviceGetPowerUsage": refuse,
    "nvmlDeviceGetCurrentClocksThrottleReasons": lambda handle: 0x48,
}


def test_what_may_be_wrong_with_a_gpu_is_read_from_the_driver(driver):
    driver(**HEALTHY)
    assert nvml_health() == [
        Health("exclusive", 4, True, False, True, 80.0, 115.0, "hardware thermal slowdown")
    ]


def test_a_driver_that_tells_nothing_of_health_finds_none_wrong(driver):
    driver(**{name: refuse if callable(told) else told for name, told in HEALTHY.items()})
    assert nvml_health() == [Health()]


def test_why_nobody_tells_of_gpus_is_said_in_the_drivers_words(driver, monkeypatch):
    driver()
    assert nvml_problem() is None

    def mismatch():
        raise FakeError("Driver/library version mismatch")

    driver(nvmlInit=mismatch)
    assert nvml_problem() == "Driver/library version mismatch"
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert "pynvml" in nvml_problem()


def test_all_are_visible_when_nothing_is_said():
    assert gpus.visible_gpus([LARGE, TWIN], {}) == [LARGE, TWIN]


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ("", []),
        ("-1", []),
        ("1", [TWIN]),
        ("1,0", [TWIN, LARGE]),
        ("0,5,1", [LARGE]),
        ("0,0", []),
        (" 1 , 0 ", [TWIN, LARGE]),
        ("GPU-aaaa-3", [TWIN]),
        ("GPU-aaaa", []),
        ("nonsense", []),
    ],
)
def test_cuda_visible_devices_chooses_and_orders(listed, expected):
    assert gpus.visible_gpus([LARGE, TWIN], {"CUDA_VISIBLE_DEVICES": listed}) == expected


def test_indices_over_unlike_gpus_are_for_cuda_to_resolve():
    unlike = [SMALL, LARGE]
    assert gpus.visible_gpus(unlike, {}) is None
    assert gpus.visible_gpus(unlike, {"CUDA_VISIBLE_DEVICES": "0"}) is None
    assert gpus.visible_gpus(unlike, {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}) == unlike
    assert gpus.visible_gpus(unlike, {"CUDA_VISIBLE_DEVICES": "GPU-aaaa-1"}) == [LARGE]


def test_a_split_gpu_is_for_cuda_to_resolve():
    assert gpus.visible_gpus([replace(LARGE, split=True)], {}) is None
    assert gpus.visible_gpus([LARGE], {"CUDA_VISIBLE_DEVICES": "MIG-1"}) is None


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        ((6, 1), ("fp32",)),
        ((7, 5), ("fp32", "fp16")),
        ((8, 0), ("fp32", "tf32", "bf16", "fp16")),
        ((12, 0), ("fp32", "tf32", "bf16", "fp16")),
    ],
)
def test_native_dtypes_follow_the_compute_capability(capability, expected):
    assert gpus.cuda_dtypes(capability) == expected


@pytest.mark.parametrize(
    ("architecture", "bf16"), [("gfx1100", True), ("gfx942", True), ("gfx906", False)]
)
def test_bf16_on_amd_follows_the_architecture(architecture, bf16):
    assert ("bf16" in gpus.rocm_dtypes(architecture)) is bf16


def test_bytes_in_use_are_those_of_the_gpu_named(driver):
    used = {b"GPU-one": 5, b"GPU-two": 7}
    driver(
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid if uuid in used else refuse(),
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(total=9, used=used[handle]),
    )
    assert (used_bytes("one"), used_bytes("two"), used_bytes("three")) == (5, 7, None)


def test_bytes_in_use_without_a_driver_are_nobodys_to_tell(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert used_bytes("one") is None


@pytest.fixture
def cuda_build(monkeypatch):
    import torch

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return torch


def test_gpus_are_listed_without_a_cuda_context(driver, cuda_build, monkeypatch):
    driver()
    monkeypatch.setattr(cuda_build.cuda, "is_available", pytest.fail)
    monkeypatch.setattr(cuda_build.cuda, "get_device_properties", pytest.fail)
    [gpu] = gpus.usable_gpus()
    assert (gpu.kind, gpu.index, gpu.compute_capability) == ("cuda", 0, "8.9")


def test_a_driver_older_than_torchs_cuda_gives_no_gpu(driver, cuda_build):
    driver(nvmlSystemGetCudaDriverVersion_v2=lambda: 12080)
    assert gpus.usable_gpus() == []


def test_torch_without_cuda_gives_no_gpu(driver, cuda_build, monkeypatch):
    driver()
    monkeypatch.setattr(cuda_build.version, "cuda", None)
    assert gpus.usable_gpus() == []


def test_unlike_gpus_come_in_torchs_order(cuda_build, monkeypatch):
    """CUDA lists the A100 first; NVML the T4, which sits on the lower bus."""
    told = [SimpleNamespace(uuid="aaaa-1"), SimpleNamespace(uuid="bbbb-2")]
    monkeypatch.setattr(gpus, "nvml_gpus", lambda: [SMALL, LARGE])
    monkeypatch.setattr(gpus, "nvml_driver", lambda: Driver("580", (13, 0)))
    monkeypatch.setattr(cuda_build.cuda, "is_available", lambda: True)
    monkeypatch.setattr(cuda_build.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(cuda_build.cuda, "get_device_properties", lambda index: told[index])
    found = gpus.usable_gpus()
    assert [(gpu.index, gpu.name) for gpu in found] == [(0, LARGE.name), (1, SMALL.name)]


def test_rocm_goes_through_torch(cuda_build, monkeypatch):
    told = SimpleNamespace(
        name="AMD Radeon RX 7900 XTX",
        gcnArchName="gfx1100:sramecc-",
        uuid="x",
        memory_bus_width=384,
        memory_clock_rate=1_249_000,
    )
    monkeypatch.setattr(cuda_build.version, "cuda", None)
    monkeypatch.setattr(cuda_build.version, "hip", "7.0")
    monkeypatch.setattr(cuda_build.cuda, "is_available", lambda: True)
    monkeypatch.setattr(cuda_build.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(cuda_build.cuda, "get_device_properties", lambda index: told)
    monkeypatch.setattr(cuda_build.cuda, "mem_get_info", lambda index: (20 * GIB, 24 * GIB))
    [gpu] = gpus.usable_gpus()
    assert (gpu.kind, gpu.compute_capability, gpu.free_bytes) == ("rocm", "gfx1100", 20 * GIB)
    assert "bf16" in gpu.native_dtypes


def test_an_apple_gpu_is_found(cuda_build, monkeypatch):
    monkeypatch.setattr(cuda_build.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(cuda_build.mps, "recommended_max_memory", lambda: 24 * GIB)
    monkeypatch.setattr(cuda_build.mps, "driver_allocated_memory", lambda: GIB)
    monkeypatch.setattr(gpus.platform, "mac_ver", lambda: ("14.5", ("", "", ""), "arm64"))
    [gpu] = gpus.usable_gpus()
    assert (gpu.kind, gpu.total_bytes) == ("mps", 24 * GIB)
    assert gpu.free_bytes <= 23 * GIB
    assert "bf16" in gpu.native_dtypes
