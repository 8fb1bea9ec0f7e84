import os
import time

import pytest

from autotrain import files
from autotrain.probe import calibrate, rates
from autotrain.probe.calibrate import assumed_cpu_rates, assumed_gpu_rates, calibration
from autotrain.probe.gpus import Gpu
from autotrain.probe.machines import load_machine
from autotrain.schema import Cpu, Rates
from autotrain.sensors import Quiet

CPU = Cpu(name="test CPU", cores=2, logical=2, features=("avx2",))
MEASURED = Rates(
    matmul={"fp32": 1e11},
    convolution={"fp32": 1e11},
    bandwidth=1e10,
    op_seconds=5e-6,
    source="measured",
)
ALL = ("fp32", "tf32", "bf16", "fp16")


def gpu(name="NVIDIA Something", **changes):
    fields = {
        "kind": "cuda",
        "index": 0,
        "name": name,
        "total_bytes": 8 << 30,
        "free_bytes": 7 << 30,
        "compute_capability": "8.9",
        "native_dtypes": ALL,
    }
    return Gpu(**(fields | changes))


@pytest.fixture
def measurements(monkeypatch):
    """Replaces the measuring; what was asked for is noted."""
    asked = []

    def measure(kind, index, dtypes, threads, seconds):
        asked.append((kind, index, dtypes, threads, seconds))
        return MEASURED

    monkeypatch.setattr(calibrate, "measure", measure)
    monkeypatch.setattr(calibrate, "write_bandwidth", lambda where: 1e8)
    return asked


def test_the_second_call_measures_nothing_and_is_fast(measurements, tmp_path):
    first = calibration(CPU, [], tmp_path)
    start = time.process_time()
    second = calibration(CPU, [], tmp_path)
    assert time.process_time() - start < 0.05
    assert first == second
    assert first.write_bandwidth == 1e8
    assert len(measurements) == 1


def test_without_calibration_kept_rates_are_used(measurements, tmp_path):
    calibration(CPU, [], tmp_path)
    assert calibration(CPU, [], tmp_path, calibrate=False).rates == (MEASURED,)


def test_without_calibration_and_cache_rates_are_assumed_and_not_kept(measurements, tmp_path):
    found = calibration(CPU, [], tmp_path, calibrate=False)
    assert found.rates[-1].source == "assumed"
    assert found.write_bandwidth is None
    assert measurements == []
    assert list(files.cache_directory().iterdir()) == []


@pytest.mark.parametrize("torn", [b"", b"{", b"[]", b'{"rates": {"cpu": {}}}', b"\xff\x00"])
def test_a_torn_cache_is_measured_anew(measurements, tmp_path, torn):
    calibration(CPU, [], tmp_path)
    calibrate.cache_file(CPU, []).write_bytes(torn)
    assert calibration(CPU, [], tmp_path).rates == (MEASURED,)
    assert len(measurements) == 2


def test_rates_from_a_busy_moment_serve_for_a_while_only(measurements, tmp_path, monkeypatch):
    monkeypatch.setattr(Quiet, "disturbed", lambda self: 0.4)
    calibration(CPU, [], tmp_path)
    assert calibration(CPU, [], tmp_path).rates[-1].disturbed
    assert len(measurements) == 1
    later = time.time() + calibrate.BUSY_SECONDS + 1
    monkeypatch.setattr(calibrate.time, "time", lambda: later)
    monkeypatch.setattr(Quiet, "disturbed", lambda self: None)
    assert calibration(CPU, [], tmp_path, calibrate=False).rates[-1].disturbed
    assert len(measurements) == 1
    assert not calibration(CPU, [], tmp_path).rates[-1].disturbed
    assert len(measurements) == 2
    assert calibrate._load(calibrate.cache_file(CPU, [])).until is None


@pytest.mark.skipif(os.name != "posix", reason="needs a place that is no folder")
def test_a_cache_that_cannot_be_written_still_gives_rates(measurements, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AUTOTRAIN_HOME", str(tmp_path / "file" / "below"))
    assert calibration(CPU, [], tmp_path).rates == (MEASURED,)


@pytest.mark.parametrize(
    "change", [{"name": "other"}, {"cores": 1}, {"features": ("avx2", "avx512f")}]
)
def test_another_cpu_has_a_cache_of_its_own(change):
    other = CPU.model_copy(update=change)
    assert calibrate.cache_file(CPU, []) != calibrate.cache_file(other, [])


def test_another_torch_or_gpu_has_a_cache_of_its_own(monkeypatch):
    plain = calibrate.cache_file(CPU, [])
    assert calibrate.cache_file(CPU, [gpu()]) != plain
    monkeypatch.setattr(calibrate, "_torch_version", lambda: "0")
    assert calibrate.cache_file(CPU, []) != plain


def test_like_gpus_are_measured_once_and_all_share_the_time(measurements, tmp_path):
    found = calibration(CPU, [gpu(), gpu(index=1)], tmp_path)
    assert found.rates == (MEASURED, MEASURED, MEASURED)
    assert [kind for kind, *_ in measurements] == ["cuda", "cpu"]
    assert sum(seconds for *_, seconds in measurements) <= calibrate.ALL_SECONDS


def test_a_gpu_that_refuses_gets_assumed_rates_that_are_not_kept(monkeypatch, tmp_path):
    def measure(kind, *rest):
        if kind == "cuda":
            raise RuntimeError("out of memory")
        return MEASURED

    monkeypatch.setattr(calibrate, "measure", measure)
    monkeypatch.setattr(calibrate, "write_bandwidth", lambda where: None)
    found = calibration(CPU, [gpu()], tmp_path)
    assert [r.source for r in found.rates] == ["assumed", "measured"]
    assert "cuda" not in calibrate.cache_file(CPU, [gpu()]).read_text()


def test_a_known_gpu_has_its_datasheets_rates_until_measured(tmp_path):
    shipped = load_machine("t4-16gb").devices[0]
    found = calibration(CPU, [gpu(shipped.name)], tmp_path, calibrate=False)
    assert found.rates[0] == shipped.rates


def test_assumed_cpu_rates_grow_with_cores_and_features():
    few, many = (assumed_cpu_rates(CPU.model_copy(update={"cores": n})) for n in (2, 8))
    assert many.matmul["fp32"] == pytest.approx(4 * few.matmul["fp32"])
    assert many.bandwidth > few.bandwidth
    plain = assumed_cpu_rates(CPU.model_copy(update={"features": ()}))
    assert plain.matmul["fp32"] < few.matmul["fp32"]
    bf16 = assumed_cpu_rates(CPU.model_copy(update={"features": ("avx2", "avx512_bf16")}))
    assert bf16.matmul["bf16"] == 2 * bf16.matmul["fp32"]


def test_assumed_gpu_rates_follow_what_the_driver_tells():
    told = assumed_gpu_rates(gpu(fp32_flops=15e12, bandwidth=272e9))
    assert told.matmul["fp32"] == 7.5e12
    assert told.matmul["bf16"] == 15e12
    assert told.bandwidth == 272e9
    silent = assumed_gpu_rates(gpu(compute_capability=None, native_dtypes=("fp32",)))
    assert set(silent.matmul) == {"fp32"}


def test_measuring_keeps_the_thread_count_and_the_random_state(monkeypatch, few_operators):
    import torch

    monkeypatch.setitem(rates.MATMUL_SIDE, "cpu", 64)
    monkeypatch.setitem(rates.CONVOLUTION_BATCH, "cpu", 1)
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    found = rates.measure("cpu", 0, ("fp32", "bf16"), threads + 1, 0.05)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), state)
    assert set(found.matmul) == set(found.convolution) == {"fp32", "bf16"}
    assert found.source == "measured"


def test_tf32_is_switched_for_its_piece_only():
    import torch

    backends = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)
    before = [backend.fp32_precision for backend in backends]
    with rates._precision(torch, torch.device("cuda"), tf32=True):
        assert [backend.fp32_precision for backend in backends] == ["tf32", "tf32"]
    with rates._precision(torch, torch.device("cuda"), tf32=False):
        assert [backend.fp32_precision for backend in backends] == ["ieee", "ieee"]
    assert [backend.fp32_precision for backend in backends] == before


def test_a_slow_piece_is_timed_once_and_the_deadline_holds():
    import torch

    slow = rates.Piece("slow", 1.0, lambda: time.sleep(0.2))
    quick = rates.Piece("quick", 1.0, lambda: time.sleep(0.001))
    start = time.perf_counter()
    found = rates._per_second(torch, torch.device("cpu"), [slow, quick], 0.5)
    assert time.perf_counter() - start < 1.2
    assert 2 < found["slow"] < 5
    assert found["quick"] > found["slow"]


@pytest.mark.slow
def test_calibrating_this_machine_takes_seconds(tmp_path):
    import torch  # noqa: F401

    from autotrain.probe.processor import probe_cpu

    start = time.perf_counter()
    found = calibration(probe_cpu(), [], tmp_path)
    assert time.perf_counter() - start < 20
    assert found.rates[-1].source == "measured"
    assert found.rates[-1].matmul["fp32"] > 1e9
    assert 1e9 < found.rates[-1].bandwidth < 1e12
    assert 1e-7 < found.rates[-1].op_seconds < 1e-3


@pytest.mark.gpu
def test_a_gpu_here_is_measured_faster_than_its_cpu(tmp_path):
    from autotrain.probe.hardware import probe_hardware

    profile = probe_hardware(tmp_path)
    if profile.devices[0].kind == "cpu":
        pytest.skip("no GPU here")
    assert profile.devices[0].rates.source == "measured"
    assert profile.devices[0].rates.matmul["fp32"] > profile.devices[-1].rates.matmul["fp32"]
