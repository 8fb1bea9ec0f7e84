import os
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from autotrain import files
from autotrain.errors import AutotrainError, UsageError
from autotrain.probe import disk, hardware, limits
from autotrain.probe.disk import nearest_folder, probe_disk, write_bandwidth
from autotrain.probe.hardware import load_machine, probe_hardware, profile_toml
from autotrain.probe.processor import native_dtypes, parse_cpuinfo
from autotrain.schema import Cpu, Device, Disk, HardwareProfile, Rates

RATES = Rates(matmul={"fp32": 1e11}, bandwidth=1e10, op_seconds=5e-6, source="measured")
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
counts = st.integers(1, 2**50)


def machine(name="m", path="runs", total=8, free=4, flops=1e11, feature="avx2"):
    rates = RATES.model_copy(update={"matmul": {"fp32": flops}})
    gpu = Device(
        kind="cuda",
        name=name,
        total_bytes=total,
        free_bytes=free,
        compute_capability="8.9",
        native_dtypes=("fp32", "bf16"),
        neighbours=({"pid": 7, "name": name, "used_bytes": free},),
        rates=rates,
    )
    cpu = Device(
        kind="cpu", name="c", total_bytes=total, free_bytes=0, native_dtypes=("fp32",), rates=RATES
    )
    return HardwareProfile(
        name=name,
        cpu=Cpu(name="c", cores=2, logical=4, features=(feature,)),
        ram_total_bytes=total,
        ram_available_bytes=0,
        disk=Disk(path=path, total_bytes=total, free_bytes=free),
        devices=(gpu, cpu),
        versions={"torch": "2.11.0"},
    )


@given(texts, texts, counts, counts, st.floats(1e-300, 1e300), texts)
@example("m", "", 1, 1, 1.0, "\x85")  # ends a line for Python, not for TOML
def test_a_profile_reads_back_equal(tmp_path_factory, name, path, total, free, flops, feature):
    profile = machine(name, path, total, free, flops, feature)
    file = tmp_path_factory.getbasetemp() / "machine.toml"
    file.write_bytes(profile_toml(profile).encode())
    assert load_machine(str(file)) == profile


def test_the_written_profile_names_its_schema():
    assert profile_toml(machine()).startswith("schema = 1\n")


def test_an_unknown_machine_is_answered_with_close_ones_and_the_list():
    with pytest.raises(AutotrainError) as caught:
        load_machine("rtx-4065")
    assert "'rtx-4065'" in caught.value.message
    assert "did you mean" in caught.value.hint
    assert "rtx-4060-8gb" in caught.value.hint
    assert "cpu-4-core" in caught.value.hint
    assert caught.value.exit_code == 1


def test_a_missing_machine_file_is_named():
    with pytest.raises(AutotrainError, match=r"nowhere\.toml"):
        load_machine("nowhere.toml")


def test_a_malformed_machine_is_answered_with_all_its_faults(tmp_path):
    file = tmp_path / "friend.toml"
    text = profile_toml(machine()).replace("cores = 2", "cors = 2")
    file.write_text(text.replace("ram_total_bytes = 8", "ram_total_bytes = -8"))
    with pytest.raises(UsageError) as caught:
        load_machine(str(file))
    assert caught.value.faults == (
        f"{file}: cpu.cors: unknown key (did you mean cores?)",
        f"{file}: ram_total_bytes: -8 should be greater than or equal to 1",
    )
    assert caught.value.exit_code == 2


def test_a_machine_of_another_schema_is_refused(tmp_path):
    file = tmp_path / "later.toml"
    file.write_text(profile_toml(machine()).replace("schema = 1", "schema = 2"))
    with pytest.raises(UsageError, match=r"later\.toml: schema: 2 is not 1"):
        load_machine(str(file))


def test_a_machine_file_may_have_any_name_once_it_exists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "friend").write_text(profile_toml(machine(name="friends")))
    assert load_machine("friend").name == "friends"


def test_cpuinfo_of_an_x86_server():
    text = (
        "processor\t: 0\nmodel name\t: Intel(R) Xeon(R) Platinum 8480+\n"
        "flags\t\t: fpu avx2 avx512f avx512_bf16 amx_bf16 amx_tile\n\n"
        "processor\t: 1\nmodel name\t: other\nflags\t\t: fpu\n"
    )
    name, features = parse_cpuinfo(text)
    assert name == "Intel(R) Xeon(R) Platinum 8480+"
    assert features == ("avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16")
    assert native_dtypes(features) == ("fp32", "bf16")


def test_cpuinfo_of_an_arm_server():
    name, features = parse_cpuinfo("processor\t: 0\nFeatures\t: fp asimd sve bf16\n")
    assert name
    assert features == ("asimd", "sve", "bf16")
    assert native_dtypes(features) == ("fp32", "bf16")


def test_a_cpu_without_bf16_has_fp32_only():
    assert native_dtypes(("avx2", "avx512f")) == ("fp32",)


def test_an_empty_cpuinfo_still_names_something():
    name, features = parse_cpuinfo("")
    assert name
    assert features == ()


def test_the_disk_of_a_folder_that_is_not_there_yet_is_its_parents(tmp_path):
    where = tmp_path / "runs" / "tonight"
    probed = probe_disk(where)
    assert probed.path == str(where)
    assert 0 < probed.free_bytes <= probed.total_bytes
    assert nearest_folder(where) == nearest_folder(where.parent) == tmp_path
    assert nearest_folder(tmp_path) == tmp_path
    assert not where.exists()


def test_write_speed_is_measured_and_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "TEST_BYTES", disk.CHUNK_BYTES)
    assert write_bandwidth(tmp_path) > 0
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_not_written_to(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "SPARE_BYTES", 1 << 70)
    monkeypatch.setattr(disk.tempfile, "TemporaryFile", pytest.fail)
    assert write_bandwidth(tmp_path) is None


def test_a_disk_that_refuses_writes_has_no_speed(tmp_path, monkeypatch):
    def refuse(**arguments):
        raise PermissionError

    monkeypatch.setattr(disk.tempfile, "TemporaryFile", refuse)
    assert write_bandwidth(tmp_path) is None


@pytest.mark.skipif(os.name != "posix", reason="bytes that are no text exist in POSIX paths only")
def test_a_path_that_is_no_text_still_makes_a_profile(tmp_path):
    probed = probe_disk(tmp_path / os.fsdecode(b"caf\xe9"))
    assert probed.path.encode()


def test_this_machine_without_calibration(tmp_path):
    profile = probe_hardware(tmp_path, calibrate=False)
    assert profile.devices[-1].kind == "cpu"
    assert profile.devices[-1].rates.source == "assumed"
    assert profile.cpu.cores == limits.usable_cores() <= profile.cpu.logical
    assert profile.ram_available_bytes <= profile.ram_total_bytes
    assert profile.disk.write_bandwidth is None
    assert {"autotrain", "python", "torch"} <= set(profile.versions)
    assert list(files.cache_directory().iterdir()) == []


def test_probing_prints_nothing_and_is_quick_without_measuring(tmp_path, capfd):
    probe_hardware(tmp_path, calibrate=False)
    start = time.process_time()
    probe_hardware(tmp_path, calibrate=False)
    assert time.process_time() - start < 1
    assert capfd.readouterr() == ("", "")


def test_a_probed_machine_round_trips_and_gives_no_host_name_away(tmp_path):
    profile = probe_hardware(tmp_path, calibrate=False)
    file = tmp_path / "machine.toml"
    file.write_text(profile_toml(profile))
    assert load_machine(str(file)) == profile
    assert hardware.platform.node() != profile.name


def test_wsl_is_told_from_linux(monkeypatch):
    monkeypatch.setattr(hardware.platform, "system", lambda: "Linux")
    monkeypatch.setattr(hardware.platform, "release", lambda: "6.6.87-microsoft-standard-WSL2")
    assert hardware.system() == "wsl"
    monkeypatch.setattr(hardware.platform, "system", lambda: "Darwin")
    assert hardware.system() == "macos"
