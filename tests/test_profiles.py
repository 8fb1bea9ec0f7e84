"""The shipped machines: what their datasheets say, dense, and what their drivers show."""

import pytest

from autotrain.files import shipped, shipped_names
from autotrain.probe.gpus import cuda_dtypes, rocm_dtypes
from autotrain.probe.hardware import load_machine, profile_toml

NAMES = shipped_names("profiles")
GPUS = [name for name in NAMES if not name.startswith("cpu-")]
CUDA = [name for name in GPUS if load_machine(name).devices[0].kind == "cuda"]
MIB, GIB = 1 << 20, 1 << 30
PROMISED = {
    "rtx-3050-laptop-4gb",
    "rtx-3060-12gb",
    "rtx-4060-laptop-8gb",
    "rtx-4060-8gb",
    "rtx-4070-12gb",
    "rtx-4090-24gb",
    "rtx-5090-32gb",
    "t4-16gb",
    "l4-24gb",
    "a10-24gb",
    "a100-40gb",
    "a100-80gb",
    "h100-80gb",
    "h200-141gb",
    "rx-7900-xtx-24gb",
    "m3-max-64gb",
    "cpu-4-core",
    "cpu-8-core",
    "cpu-16-core",
    "cpu-64-core",
}
# Dense peaks that NVIDIA and AMD print, in TFLOPS with fp32 accumulation: fp32, tf32, half
# precision; GB/s; the MiB that the driver shows. The sparse ones, twice as high, are the most
# usual mistake in such tables.
PEAKS = {
    "t4-16gb": (8.1, None, 65, 320, 15360),
    "v100-16gb": (15.7, None, 125, 900, 16384),
    "rtx-2080-ti-11gb": (13.4, None, 53.8, 616, 11264),
    "rtx-3060-12gb": (12.7, 12.7, 25.5, 360, 12288),
    "rtx-3090-24gb": (35.6, 35.6, 71, 936, 24576),
    "rtx-a6000-48gb": (38.7, 77.4, 154.8, 768, 49140),
    "a10-24gb": (31.2, 62.5, 125, 600, 23028),
    "a100-40gb": (19.5, 156, 312, 1555, 40960),
    "a100-80gb": (19.5, 156, 312, 2039, 81920),
    "rtx-4060-8gb": (15.1, 15.1, 30.2, 272, 8188),
    "rtx-4070-12gb": (29.1, 29.1, 58.3, 504, 12282),
    "rtx-4090-24gb": (82.6, 82.6, 165.2, 1008, 24564),
    "l4-24gb": (30.3, 60, 121, 300, 23034),
    "l40s-48gb": (91.6, 183, 362, 864, 46068),
    "h100-80gb": (67, 494.7, 989.4, 3350, 81559),
    "h200-141gb": (67, 494.7, 989.4, 4800, 143771),
    "rtx-5090-32gb": (104.8, 104.8, 209.5, 1792, 32607),
    "rx-7900-xtx-24gb": (61.4, None, 122.8, 960, 24560),
    "mi300x-192gb": (163.4, None, 1307.4, 5300, 196592),
}
# Half precision over fp32, dense, by what the tensor cores of an architecture do: whole on data
# centre cards, half of it with fp32 accumulation on GeForce.
GAINS = {
    "7.0": (7.9, 8.1),
    "7.5": (3.9, 8.2),
    "8.0": (15.9, 16.1),
    "8.6": (1.99, 4.1),
    "8.9": (1.99, 4.1),
    "9.0": (14, 15),
    "12.0": (1.99, 4.1),
}


def test_every_promised_machine_is_shipped():
    assert set(NAMES) >= PROMISED


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_machine_is_named_as_its_file_and_says_where_its_figures_come_from(name):
    machine = load_machine(name)
    assert machine.name == name
    assert machine.description
    assert machine.sources
    assert all(source.startswith("https://") for source in machine.sources)
    assert not any(device.neighbours or device.rates.timings for device in machine.devices)
    assert machine.devices[-1].kind == "cpu"
    assert [device.kind for device in machine.devices].count("cpu") == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_machine_is_physically_plausible(name):
    machine = load_machine(name)
    assert machine.cpu.cores <= machine.cpu.logical
    assert machine.ram_available_bytes < machine.ram_total_bytes
    assert machine.disk.free_bytes < machine.disk.total_bytes
    assert machine.devices[-1].total_bytes == machine.ram_total_bytes
    for device in machine.devices:
        rates = device.rates
        assert rates.source == "datasheet"
        assert 0.75 * device.total_bytes < device.free_bytes < device.total_bytes or (
            device.kind == "cpu"
        )
        assert 10e9 <= rates.bandwidth <= 10e12
        assert 1e-6 <= rates.op_seconds <= 1e-4
        assert set(rates.matmul) == set(rates.convolution) == set(device.native_dtypes)
        # A multiply and an add on 4 bytes each: no device computes less than its memory feeds.
        assert 2 < rates.matmul["fp32"] / rates.bandwidth < 150
        for flops in (rates.matmul, rates.convolution):
            assert all(flops["fp32"] <= value for value in flops.values())
            assert flops.get("tf32", 0) <= flops.get("bf16", 0)
            assert flops.get("bf16", flops.get("fp16")) == flops.get("fp16", flops.get("bf16"))


@pytest.mark.parametrize("name", NAMES)
def test_a_price_says_whose_and_when(name):
    """And only what is rented has one."""
    machine, text = load_machine(name), (shipped("profiles") / f"{name}.toml").read_text()
    if machine.price_per_hour is None:
        assert "price" not in text
        return
    assert 0.1 < machine.price_per_hour < 20
    assert machine.description.startswith("Cloud machine")
    comment = " ".join(line[2:] for line in text.splitlines() if line.startswith("# "))
    assert "price_per_hour: " in comment
    assert "https://" in comment
    assert " 2026" in comment


@pytest.mark.parametrize("name", sorted(PEAKS))
def test_rates_are_the_dense_ones_that_are_printed(name):
    device = load_machine(name).devices[0]
    fp32, tf32, half, bandwidth, shown = PEAKS[name]
    rates = device.rates
    assert rates.matmul["fp32"] == pytest.approx(fp32 * 1e12, rel=0.01)
    assert rates.matmul["fp16"] == pytest.approx(half * 1e12, rel=0.01)
    if tf32 is not None:
        assert rates.matmul["tf32"] == pytest.approx(tf32 * 1e12, rel=0.01)
    assert rates.bandwidth == pytest.approx(bandwidth * 1e9, rel=0.01)
    assert round(device.total_bytes / MIB) == shown


def test_every_gpu_of_which_peaks_are_printed_is_checked_against_them():
    """Laptops' depend on their power limit, and Apple prints few."""
    assert set(GPUS) - set(PEAKS) == {
        "rtx-3050-laptop-4gb",
        "rtx-4060-laptop-8gb",
        "m1-16gb",
        "m3-max-64gb",
    }


@pytest.mark.parametrize("name", CUDA)
def test_tensor_cores_gain_what_their_architecture_does(name):
    device = load_machine(name).devices[0]
    low, high = GAINS[device.compute_capability]
    assert low <= device.rates.matmul["fp16"] / device.rates.matmul["fp32"] <= high
    if "GeForce" in device.name and device.compute_capability >= "8":
        assert device.rates.matmul["fp16"] == pytest.approx(2 * device.rates.matmul["fp32"], 0.01)


@pytest.mark.parametrize("name", GPUS)
def test_a_gpu_computes_what_a_probe_would_say_it_computes(name):
    device = load_machine(name).devices[0]
    architecture = device.compute_capability
    if device.kind == "cuda":
        major, minor = map(int, architecture.split("."))
        assert device.native_dtypes == cuda_dtypes((major, minor))
    elif device.kind == "rocm":
        assert device.native_dtypes == rocm_dtypes(architecture)
    else:
        assert (device.kind, architecture) == ("mps", None)


@pytest.mark.parametrize("name", [name for name in GPUS if name.endswith("gb")])
def test_a_gpu_shows_the_memory_its_name_says(name):
    """A Mac's name says its RAM, of which the GPU may have two thirds or three quarters."""
    gpu = load_machine(name).devices[0]
    said = int(name.rsplit("-", 1)[1].removesuffix("gb"))
    least, most = (0.66 * GIB, 0.75 * GIB) if gpu.kind == "mps" else (0.93 * 1e9, GIB)
    assert least * said < gpu.total_bytes <= most * said


def test_a_host_is_the_one_that_the_card_is_rented_with():
    """Older cards stand in older machines, and a GPU's bandwidth is not its CPU's."""
    hosts = {name: load_machine(name) for name in ("t4-16gb", "v100-16gb", "m3-max-64gb")}
    assert "8259CL" in hosts["t4-16gb"].cpu.name
    assert "E5-2686 v4" in hosts["v100-16gb"].cpu.name
    for name in ("t4-16gb", "v100-16gb"):
        assert hosts[name].devices[-1].native_dtypes == ("fp32",)
        assert hosts[name].devices[-1].name == hosts[name].cpu.name
    gpu, cpu = hosts["m3-max-64gb"].devices
    assert cpu.rates.bandwidth < 0.65 * gpu.rates.bandwidth


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("cpu-")])
def test_a_cpu_machine_has_the_cores_its_name_says(name):
    machine = load_machine(name)
    assert machine.cpu.cores == int(name.split("-")[1])
    assert [device.kind for device in machine.devices] == ["cpu"]


def test_a_better_card_is_not_slower():
    order = ["rtx-3050-laptop-4gb", "rtx-4060-8gb", "rtx-4090-24gb", "a100-80gb", "h100-80gb"]
    rates = [load_machine(name).devices[0].rates for name in order]
    assert [r.matmul["bf16"] for r in rates] == sorted(r.matmul["bf16"] for r in rates)
    assert [r.bandwidth for r in rates] == sorted(r.bandwidth for r in rates)


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_file_is_what_we_would_write(name):
    """Below the comments that say what a figure cannot."""
    text = (shipped("profiles") / f"{name}.toml").read_text()
    said = [line for line in text.splitlines(keepends=True) if not line.startswith("#")]
    assert "".join(said).lstrip() == profile_toml(load_machine(name))
