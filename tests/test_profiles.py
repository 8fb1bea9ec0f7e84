import pytest

from autotrain.files import shipped, shipped_names
from autotrain.probe.hardware import load_machine, profile_toml

NAMES = shipped_names("profiles")
GIB = 1 << 30
PROMISED = {
    "rtx-3050-laptop-4gb",
    "rtx-3060-12gb",
    "rtx-4060-laptop-8gb",
    "rtx-4060-8gb",
    "rtx-4090-24gb",
    "t4-16gb",
    "l4-24gb",
    "a100-40gb",
    "a100-80gb",
    "h100-80gb",
    "h200-141gb",
    "cpu-4-core",
    "cpu-8-core",
    "cpu-16-core",
    "cpu-64-core",
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
        assert device.free_bytes < device.total_bytes
        assert 10e9 <= rates.bandwidth <= 10e12
        assert 1e-6 <= rates.op_seconds <= 1e-4
        assert set(rates.matmul) == set(rates.convolution) == set(device.native_dtypes)
        for flops in (rates.matmul, rates.convolution):
            assert all(flops["fp32"] <= value for value in flops.values())
            assert flops.get("tf32", 0) <= flops.get("bf16", 0)
            assert flops.get("bf16", flops.get("fp16")) == flops.get("fp16", flops.get("bf16"))


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("gb")])
def test_a_gpu_shows_the_memory_its_name_says(name):
    gpu = load_machine(name).devices[0]
    said = int(name.rsplit("-", 1)[1].removesuffix("gb"))
    assert gpu.kind == "cuda"
    assert 0.93 * said * 1e9 < gpu.total_bytes <= said * GIB
    assert gpu.free_bytes > 0.8 * gpu.total_bytes


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
    text = (shipped("profiles") / f"{name}.toml").read_text()
    assert profile_toml(load_machine(name)) == text
