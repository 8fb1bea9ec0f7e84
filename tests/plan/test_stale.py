"""What a plan was made from beside what is there now, field by field."""

import math

import pytest

from autotrain.plan.stale import changes, inputs_of, memory_change, resumed_with_other_data
from autotrain.schema import InputsSection

from .profiles import GIB, dataset, device, machine, model, planned

GPU = device("cuda", free=8 * GIB, name="RTX 4060", total_bytes=8 * GIB)


def made(hardware=None, of=None, data=None, **more) -> InputsSection:
    hardware = hardware or machine(
        GPU, versions={"torch": "2.11.0", "driver": "550", "python": "3.11.9"}
    )
    data = data or dataset(bytes=1000)
    fields = inputs_of(hardware, hardware.devices[0], data, of or model())
    digests = {"hardware": "h", "dataset": data.fingerprint, "model": "m"}
    return InputsSection.model_validate(digests | fields | more)


def told(now: InputsSection) -> list[str]:
    return [str(change) for change in changes(made(), now)]


def test_what_is_as_it_was_is_not_told():
    assert told(made()) == []


@pytest.mark.parametrize(
    ("now", "says"),
    [
        (made(of=model(train=1340)), "data: 1,000 samples to train on when planned, 1,340 now: "),
        (made(of=model(valid=90)), "data: 100 samples to validate on when planned, 90 now"),
        (made(of=model(weights=80 << 20)), "model: 10.5 M parameters when planned, 21 M now: "),
        (made(of=model(weights=(40 << 20) + 4)), "model: 10,485,760 parameters when"),
        (made(data=dataset(fingerprint="0" * 64, bytes=1000)), "data: other content in as many"),
        (made(data=dataset(fingerprint="0" * 64, bytes=500)), "data: 0.977 KiB when planned, 5"),
        (made(cores=2), "cores: 4 when planned, 2 now: "),
        (made(ram_bytes=8 * GIB), "RAM: 16 GiB when planned, 8 GiB now: "),
        (made(device="RTX 3050"), "device: RTX 4060 (8 GiB) when planned, RTX 3050 (8 GiB) now: "),
        (made(device_bytes=4 * GIB), "memory of RTX 4060: 8 GiB when planned, 4 GiB now: "),
        (made(cpu="another"), "processor: a cpu when planned, another now"),
        (made(system="wsl"), "system: linux when planned, wsl now"),
        (made(versions={"torch": "2.12.0"}), "torch: 2.11.0 when planned, 2.12.0 now: "),
        (made(versions={"driver": "560"}), "driver: 550 when planned, 560 now: "),
        (made(versions={"python": "3.12.1"}), "python: 3.11 when planned, 3.12 now: "),
    ],
)  # fmt: skip
def test_one_thing_that_differs_is_told_once(now, says):
    (line,) = told(now)
    assert line.startswith(says)


@pytest.mark.parametrize(
    "now",
    [
        made(versions={"python": "3.11.10"}),
        made(versions={"autotrain": "9"}),
        made(ram_bytes=16 * GIB - (100 << 20)),
        InputsSection(hardware="other", dataset="", model="other"),
    ],
    ids=["patch release", "autotrain", "a little RAM", "nothing known"],
)
def test_what_does_not_matter_or_is_not_known_is_not_told(now):
    assert told(now) == []


def test_a_plan_of_an_older_version_is_not_compared_where_it_does_not_say():
    old = InputsSection(hardware="a", dataset="f" * 64, model="b")
    assert changes(old, made(of=model(train=9))) == []
    (other,) = changes(old, made(data=dataset(fingerprint="0" * 64)))
    assert other.what == "data"


def test_on_a_cpu_its_memory_is_told_once_as_ram():
    cpu = machine(device(name="a cpu"))
    other = machine(device(name="a cpu", free=1 * GIB), ram=8 * GIB)
    lines = [c.what for c in changes(made(cpu), made(other))]
    assert lines == ["RAM"]


def test_less_free_memory_than_the_plan_may_use_says_what_that_means():
    plan = planned(hardware=machine(device(free=8 * GIB)))
    need = plan.predicted.device_peak_bytes
    assert memory_change(plan, device(free=8 * GIB)) is None
    assert memory_change(plan, device(free=math.ceil(need.high))) is None
    tight = memory_change(plan, device(free=(need.low + need.high) / 2))
    none = memory_change(plan, device(free=need.low / 2))
    assert tight is not None
    assert none is not None
    assert "may not fit" in tight.means
    assert "hardly fit" in none.means


def test_a_run_that_goes_on_with_other_samples_says_that_it_is_another():
    said = resumed_with_other_data(made(), made(dataset="0" * 64))
    assert said.startswith("data: ")
    assert said.endswith(
        ": if it ran with the former, it is not to the bit what it would have been"
    )


def test_what_changes_no_sample_makes_a_run_no_other_one():
    assert resumed_with_other_data(made(), made()) is None
    more = made(ram_bytes=8 * GIB, cores=2, versions={"driver": "560"})
    assert resumed_with_other_data(made(), more) is None
