"""Machines' files: names, what a probe writes, what somebody writes by hand, what is torn."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotrain.commands.probe import _refuse_to_replace as refuse_to_replace
from autotrain.errors import AutotrainError, UsageError
from autotrain.files import shipped_names
from autotrain.probe.machines import load_machine, profile_toml, shareable
from autotrain.schema import Timing

BY_HAND = """\
name = "mine"
ram_total_bytes = 32_000_000_000

[cpu]
cores = 8

[[devices]]
kind = "cuda"
name = "NVIDIA GeForce RTX 4080"
total_bytes = 17_171_480_576
compute_capability = "8.9"

[devices.rates]
bandwidth = 717e9
matmul = { fp32 = 48.7e12, tf32 = 48.7e12, bf16 = 97.5e12, fp16 = 97.5e12 }
"""


@pytest.fixture
def by_hand(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(BY_HAND)
    return file


@pytest.mark.parametrize(
    ("spelled", "meant"),
    [
        ("rtx-4090-24gb", "rtx-4090-24gb"),
        ("rtx4090", "rtx-4090-24gb"),
        ("RTX 4090", "rtx-4090-24gb"),
        ("4090", "rtx-4090-24gb"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090-24gb"),
        ("Tesla T4", "t4-16gb"),
        ("A100-80", "a100-80gb"),
        ("nvidia_h100", "h100-80gb"),
        ("7900 XTX", "rx-7900-xtx-24gb"),
        ("rtx 4060", "rtx-4060-8gb"),
        ("rtx 4060 laptop", "rtx-4060-laptop-8gb"),
        ("Apple M3 Max", "m3-max-64gb"),
    ],
)
def test_a_machine_is_found_however_people_spell_it(spelled, meant):
    assert load_machine(spelled).name == meant


@pytest.mark.parametrize("name", shipped_names("profiles"))
def test_no_spelling_of_a_shipped_machine_means_another(name):
    for spelled in (name, name.upper(), name.replace("-", "_"), name.replace("-", " ")):
        assert load_machine(spelled).name == name
    device = load_machine(name).devices[0]
    if device.kind != "cpu":
        assert load_machine(device.name).name == name


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("a100", "'a100' may be a100-40gb or a100-80gb", "--machine a100-40gb"),
        ("rtx 4080", "no machine is called 'rtx 4080'", "did you mean rtx-4090-24gb"),
        ("", "no machine is called ''", "machines: a10-24gb, a100-40gb"),
        ("amd", "no machine is called 'amd'", "machines: a10-24gb"),
    ],
)
def test_a_name_that_means_none_or_two_is_answered_with_names(name, message, hint):
    with pytest.raises(AutotrainError) as caught:
        load_machine(name)
    assert caught.value.message == message
    assert hint in caught.value.hint


def test_a_machine_written_by_hand_needs_a_dozen_lines(by_hand):
    machine = load_machine(str(by_hand))
    device = machine.devices[0]
    assert machine.cpu.logical == 8
    assert machine.ram_available_bytes == 28_800_000_000
    assert device.free_bytes == int(0.95 * 17_171_480_576)
    assert device.native_dtypes == ("fp32", "tf32", "bf16", "fp16")
    assert (device.rates.source, device.rates.op_seconds) == ("datasheet", 8e-6)
    assert machine.disk.free_bytes > 10e9


def test_the_file_that_the_docs_write_by_hand_is_this_one(tmp_path, by_hand):
    docs = (Path(__file__).parents[2] / "docs" / "machines.md").read_text()
    (tmp_path / "docs.toml").write_text(docs.partition("```toml\n")[2].partition("```")[0])
    assert load_machine(str(tmp_path / "docs.toml")) == load_machine(str(by_hand))


@pytest.mark.parametrize("line", [line for line in BY_HAND.splitlines() if line])
def test_what_such_a_file_lacks_is_named(by_hand, line):
    by_hand.write_text(BY_HAND.replace(f"{line}\n", "", 1))
    key = line.partition(" =")[0].strip("[]").rpartition(".")[2]
    if key in ("compute_capability",):
        assert load_machine(str(by_hand)).devices[0].compute_capability is None
        return
    with pytest.raises(UsageError) as caught:
        load_machine(str(by_hand))
    assert all(fault.startswith(f"{by_hand}: ") for fault in caught.value.faults)
    assert any(f"{key}: " in fault for fault in caught.value.faults)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("cores = 8", "cores = '8'", "cpu.cores: '8' should be a valid integer"),
        ("cores = 8", "cors = 8", "cpu.cors: unknown key (did you mean cores?)"),
        ("bandwidth = 717e9", "bandwidth = nan", "devices.0.rates.bandwidth: nan should be"),
        ('kind = "cuda"', 'kind = "gpu"', "devices.0.kind: 'gpu' should be 'cpu', 'cuda'"),
        ('name = "mine"', 'name = "mine"\nschema = 2', "schema: 2 is not 1, which"),
        ('name = "mine"', 'schema = "1"', "schema: '1' is not 1"),
        ("[[devices]]", "[devices]", "devices: one table; write [[devices]]"),
        ("cores = 8", "cores = -8", "cpu.cores: -8 should be greater than or equal to 1"),
        ("= 32_000_000_000", "= -32", "ram_total_bytes: -32 should be greater"),
        ("= 32_000_000_000", "= '32 gigs'", "ram_total_bytes: '32 gigs' should be a whole number"),
        ("= 17_171_480_576", "= 1.5", "devices.0.total_bytes: 1.5 should be a valid integer"),
        ("{ fp32 = 48.7e12", "{ fp8 = 1e12", "devices.0.rates.matmul.fp8.[key]: 'fp8' should"),
        (
            "fp32 = 48.7e12, tf32 = 48.7e12, bf16 = 97.5e12, fp16 = 97.5e12",
            "",
            "devices.0.rates.matmul: ",
        ),
        ("bandwidth = 717e9\n", "", "devices.0.rates.bandwidth: missing"),
        ("total_bytes = 17_171_480_576\n", "", "devices.0.total_bytes: missing"),
        ("[cpu]\ncores = 8", "cpu = 8", "cpu: 8 should be a valid dictionary"),
        ("[cpu]", "[cpu", "not valid TOML"),
        ('kind = "cuda"', 'kind = "cu', "not valid TOML"),
    ],
)
def test_a_fault_is_named_by_file_and_key(by_hand, old, new, fault):
    by_hand.write_text(BY_HAND.replace(old, new, 1))
    with pytest.raises(UsageError) as caught:
        load_machine(str(by_hand))
    (said,) = caught.value.faults
    assert said.startswith(f"{by_hand}: {fault}")


def test_an_empty_list_of_devices_is_a_fault_of_its_own(by_hand):
    by_hand.write_text(BY_HAND.partition("[[devices]]")[0].replace("[cpu]", "devices = []\n[cpu]"))
    with pytest.raises(UsageError, match=r"devices: \[\] Tuple should have at least 1 item"):
        load_machine(str(by_hand))


def test_sizes_may_be_written_with_their_unit(by_hand):
    text = BY_HAND.replace("32_000_000_000", '"32GB"').replace("17_171_480_576", '"16 GiB"')
    by_hand.write_text(text)
    machine = load_machine(str(by_hand))
    assert machine.ram_total_bytes == 32_000_000_000
    assert machine.ram_available_bytes == 28_800_000_000
    assert machine.devices[0].total_bytes == 16 << 30
    assert machine.devices[0].free_bytes == int(0.95 * (16 << 30))


@given(st.integers(0, len(BY_HAND)))
def test_a_torn_file_is_read_or_refused_in_words(tmp_path_factory, length):
    file = tmp_path_factory.getbasetemp() / "torn.toml"
    file.write_text(BY_HAND[:length])
    if length >= len(BY_HAND) - 1:
        assert load_machine(str(file)).name == "mine"
        return
    with pytest.raises(UsageError) as caught:
        load_machine(str(file))
    assert all(fault.startswith(f"{file}: ") for fault in caught.value.faults)


timings = st.builds(
    Timing,
    kind=st.sampled_from(["matmul", "convolution", "elementwise", 'a "kind"']),
    dtype=st.sampled_from(["fp32", "bf16"]),
    threads=st.integers(1, 128),
    flops=st.floats(0, 1e18),
    bytes=st.floats(0, 1e15),
    shape=st.lists(st.integers(0, 1 << 40), max_size=4).map(tuple),
    seconds=st.floats(1e-9, 1e3),
)


@given(st.lists(timings, max_size=5).map(tuple), st.lists(timings, max_size=5).map(tuple))
def test_timings_of_every_device_read_back_equal_a_row_a_line(tmp_path_factory, first, second):
    machine = load_machine("t4-16gb")
    devices = [
        device.model_copy(update={"rates": device.rates.model_copy(update={"timings": rows})})
        for device, rows in zip(machine.devices, (first, second), strict=True)
    ]
    timed = machine.model_copy(update={"devices": tuple(devices)})
    text, file = profile_toml(timed), tmp_path_factory.getbasetemp() / "timed.toml"
    file.write_text(text)
    assert load_machine(str(file)) == timed
    tables = sum(bool(rows) for rows in (first, second))
    more = len(first) + len(second) + 2 * tables
    assert len(text.splitlines()) == len(profile_toml(machine).splitlines()) + more


def test_what_is_nobody_elses_business_is_not_handed_on():
    machine = load_machine("t4-16gb")
    neighbour = {"pid": 4711, "name": "/home/ada/secret", "used_bytes": 5}
    device = machine.devices[0].model_validate(
        machine.devices[0].model_dump() | {"neighbours": (neighbour,)}
    )
    disk = machine.disk.model_copy(update={"path": "/home/ada/thesis"})
    seen = machine.model_copy(update={"devices": (device,), "disk": disk})
    assert "ada" in profile_toml(seen)
    assert "ada" not in profile_toml(shareable(seen))
    assert "4711" not in profile_toml(shareable(seen))


def test_as_many_timings_as_a_calibration_makes_read_back(tmp_path):
    """Of a CPU with bf16 there were 2,110; of one with fp16 too, beside a GPU, there are more."""
    row = Timing("matmul", "fp32", 64, 123456789.0, 123456.0, (16, 1024, 1024, 1024), 0.0123456789)
    machine = load_machine("cpu-16-core")
    (cpu,) = machine.devices
    rates = cpu.rates.model_copy(update={"timings": (row,) * 8000})
    many = machine.model_copy(update={"devices": (cpu.model_copy(update={"rates": rates}),)})
    file = tmp_path / "friend.toml"
    file.write_text(profile_toml(many))
    assert load_machine(str(file)) == many
    refuse_to_replace(str(file))  # `probe -o` writes it anew
