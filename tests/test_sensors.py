"""What a log point reads of the machine: quick, quiet, and of the GPU that trains."""

import os
import subprocess
import sys
from time import perf_counter, process_time
from types import SimpleNamespace

import psutil
import pytest

from autotrain import nvml, sensors
from autotrain.nvml import Load, load_reader
from autotrain.sensors import Others, Reading, Sensors


class FakeError(Exception):
    pass


def refuse(*arguments):
    raise FakeError


def install(monkeypatch, **changes):
    """One GPU at work, known by its UUID."""

    def handle(uuid):
        return "handle" if uuid == b"GPU-1234" else refuse()

    answers = {
        "NVMLError": FakeError,
        "NVMLLibraryMismatchError": FakeError,
        "NVML_TEMPERATURE_GPU": 0,
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetHandleByUUID": handle,
        "nvmlDeviceGetUtilizationRates": lambda handle: SimpleNamespace(gpu=97, memory=40),
        "nvmlDeviceGetTemperature": lambda handle, which: 71,
        "nvmlDeviceGetPowerUsage": lambda handle: 185_500,
        "nvmlDeviceGetCurrentClocksThrottleReasons": lambda handle: 0x4 | 0x1,
    }
    monkeypatch.setitem(sys.modules, "pynvml", SimpleNamespace(**(answers | changes)))


def test_a_gpu_is_read_by_its_uuid(monkeypatch):
    """A power cap and idleness are no reason to worry, and none is told."""
    install(monkeypatch)
    assert load_reader("1234")() == Load(0.97, 71.0, 185.5, None)
    assert load_reader("another") is None


def test_each_figure_that_a_gpu_does_not_tell_is_none(monkeypatch):
    install(
        monkeypatch,
        nvmlDeviceGetUtilizationRates=refuse,
        nvmlDeviceGetTemperature=refuse,
        nvmlDeviceGetPowerUsage=refuse,
        nvmlDeviceGetCurrentClocksThrottleReasons=refuse,
    )
    assert load_reader("1234")() == Load()


@pytest.mark.parametrize(
    ("bits", "said"),
    [(0x40, "hardware thermal slowdown"), (0x20 | 0x4, "thermal slowdown"),
     (0x80 | 0x20, "thermal slowdown, power brake"), (0x8, None)],
)  # fmt: skip
def test_why_a_clock_is_held_down_is_in_words(monkeypatch, bits, said):
    install(monkeypatch, nvmlDeviceGetCurrentClocksThrottleReasons=lambda handle: bits)
    assert load_reader("1234")().slowed == said


def test_the_reasons_bits_are_those_of_the_library():
    pynvml = pytest.importorskip("pynvml")
    assert [*nvml.SLOWED] == [
        pynvml.nvmlClocksEventReasonHwThermalSlowdown,
        pynvml.nvmlClocksEventReasonSwThermalSlowdown,
        pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown,
    ]


def test_without_a_driver_or_a_library_there_is_no_reader(monkeypatch):
    install(monkeypatch, nvmlInit=refuse)
    assert load_reader("1234") is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert load_reader("1234") is None
    assert Sensors("1234").read()[:4] == (None, None, None, None)


def test_a_driver_that_breaks_later_ends_no_run(monkeypatch):
    """Not even with an error that is not its own."""
    calls = []

    def breaks(handle):
        calls.append(handle)
        raise OSError

    install(monkeypatch, nvmlDeviceGetPowerUsage=breaks)
    read = Sensors("1234").read()
    assert calls
    assert read[:4] == Reading()[:4]


def test_a_reading_serves_for_a_second_and_longer_where_it_is_slow(monkeypatch):
    """At most a thousandth of the time goes into reading."""
    now, taken = [100.0], []
    monkeypatch.setattr(sensors, "perf_counter", lambda: now[0])
    install(monkeypatch)
    made = Sensors("1234")

    def slow():
        taken.append(now[0])
        now[0] += 0.005
        return Load(utilisation=len(taken) / 10)

    made._gpu = slow
    for _ in range(2000):
        made.read()
        now[0] += 0.01
    assert 3 <= len(taken) <= 5
    assert made.read().gpu_utilisation == len(taken) / 10


def test_a_log_point_costs_next_to_nothing():
    made = Sensors(None, None)
    made.read()
    begun = process_time()
    for _ in range(1000):
        made.read()
    assert process_time() - begun < 0.1


def test_other_programs_are_told_from_this_one():
    """Of one core: this process's work is not others', a child's that is no worker's is."""
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system has no affinity")
    cores = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {max(cores)})
        rounds = []
        for _ in range(5):  # what else runs on that core, another test say, comes and goes
            rounds.append((share_while(lambda: None), beside_another()))
            if rounds[-1][1] > max(rounds[-1][0], 0.2):
                return
    finally:
        os.sched_setaffinity(0, cores)
    pytest.fail(f"others' share without and with another program: {rounds}")


def beside_another():
    """What others take while a child that is no worker does nothing but count."""
    code = "import time\nend = time.monotonic() + 30\nwhile time.monotonic() < end: pass"
    with subprocess.Popen([sys.executable, "-c", code]) as other:
        share = share_while(lambda: None)
        other.kill()
    return share


def share_while(do, seconds=0.6):
    made = Others()
    end = perf_counter() + seconds
    while perf_counter() < end:
        do()
    return made.share()


def test_too_soon_to_tell_is_none():
    assert Others().share() is None


def test_what_others_take_is_unknown_under_a_quota_and_among_ranks(monkeypatch):
    here = len(sensors._affinity())
    assert Others.knowable(None)
    assert Others.knowable(here)
    assert not Others.knowable(here - 1)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert not Others.knowable(here)


def test_a_system_that_tells_no_times_ends_no_run(monkeypatch):
    made = Sensors(None, None)

    def denied(**_):
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "cpu_times", denied)
    assert made.read() == Reading()


def test_nothing_here_imports_torch():
    code = "import sys, autotrain.sensors, autotrain.nvml; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_this_process_and_all_that_it_started_use_is_its_own():
    """A child that computes, and has ended when it is asked: as a trial does."""
    before = sum(sensors.family().values())
    subprocess.run(
        [sys.executable, "-c", "import time\nwhile time.process_time() < 0.4: pass"], check=True
    )
    assert sum(sensors.family().values()) > before + 0.35


def test_others_disturb_from_a_share_on_that_shows_in_what_is_timed(monkeypatch):
    monkeypatch.delenv("AUTOTRAIN_BUSY")
    made = sensors.Quiet()
    for taken, told in ((None, None), (0.05, None), (0.4, 0.4)):
        monkeypatch.setattr(made._others, "share", lambda taken=taken: taken)
        assert made.disturbed() == told


def test_who_cannot_have_the_machine_alone_may_say_so(monkeypatch):
    monkeypatch.setenv("AUTOTRAIN_BUSY", "ignore")
    monkeypatch.setattr(Others, "share", lambda self: 0.9)
    assert sensors.Quiet().disturbed() is None
