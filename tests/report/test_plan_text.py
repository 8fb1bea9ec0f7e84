import pytest
from plans import GIB, MIB, a_plan, dataset, hardware, model, reason

from autotrain.report.plan_text import plan_summary, probe_text
from autotrain.schema import Device, Fault, Neighbour, Rates

GPU = Device(
    kind="cuda",
    name="NVIDIA GeForce RTX 4060",
    total_bytes=8 * GIB,
    free_bytes=7 * GIB,
    compute_capability="8.9",
    native_dtypes=("fp32", "tf32", "bf16", "fp16"),
    rates=Rates(matmul={"bf16": 6e13}, bandwidth=2.7e11, op_seconds=4e-6, source="datasheet"),
    neighbours=(Neighbour(pid=77, name="Xorg", used_bytes=300 * MIB),),
)


def test_the_summary_shows_settings_reasons_predictions_and_the_next_command():
    text = plan_summary(a_plan(), hardware(), dataset(), model(), path="mine.toml")
    for said in (
        "4 at once x 2 = 8 a step",
        "limit: the number of clips (20)",
        "adamw, lr 0.0015",
        "50 epochs, stop after 5 without progress",
        "you set it",
        "every 10 epochs, 3 kept, 67 MiB each",
        "needs 983 MiB to 1.44 GiB of the 5 GiB it may use (80 % of what there is)",
        "about 200 ms a step",
        "1 min 40 s in all",
        "accumulation is not exact",
        "autotrain run mine.toml",
        "5.81 M parameters",
        "1 fault",
    ):
        assert said in text


@pytest.mark.parametrize("width", [80, 120])
def test_the_summary_is_calm_and_fits_the_terminal(width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    lines = plan_summary(a_plan(), hardware(), dataset(), model()).splitlines()
    assert max(map(len, lines)) <= min(width, 96)
    assert len([line for line in lines if line]) <= 20


def test_a_plan_without_reasons_still_has_a_summary():
    text = plan_summary(a_plan(because={}), hardware(), dataset(), model())
    assert "4 at once x 2 = 8 a step" in text


def test_several_processes_are_part_of_the_batch():
    plan = a_plan(batch={"world_size": 2, "global_batch": 16})
    text = plan_summary(plan, hardware(), dataset(), model())
    assert "4 at once x 2 x 2 processes = 16 a step" in text
    assert "autotrain run plan.toml --nproc 2\n" in text


def test_a_probed_machine_shows_each_device_and_who_else_uses_it():
    machine = hardware(devices=(*hardware().devices, GPU))
    text = probe_text(machine)
    assert "2 of 64 cores usable; avx2, avx512" in text
    assert (
        "cuda:0      NVIDIA GeForce RTX 4060, 7 GiB free of 8 GiB; compute capability 8.9" in text
    )
    assert "also used by Xorg (pid 77, 300 MiB)" in text
    assert text.endswith("autotrain plan DATA")


def test_faults_in_the_data_are_named_up_to_five():
    faults = tuple(Fault(path=f"{n}.wav", problem="empty") for n in range(9))
    text = probe_text(hardware(), dataset(faults=faults))
    assert "4.wav: empty" in text
    assert "5.wav" not in text
    assert "and 4 more" in text
    assert text.endswith("autotrain plan clips")


def test_names_from_files_cannot_carry_control_characters():
    text = probe_text(hardware(name="box\x1b[2J"), dataset(took_for="x\ny"))
    assert all(c.isprintable() or c == "\n" for c in text)


def test_what_a_limit_led_to_and_what_the_run_costs_stand_beside_its_time():
    train = {"within_seconds": 21600.0, "price_per_hour": 0.36}
    because = {"train": {"within_seconds": reason(21600.0, formula="7 of 60 epochs fit")}}
    text = plan_summary(a_plan(train=train, because=because), hardware(), dataset(), model())
    assert "limit       7 of 60 epochs fit" in text
    assert "cost        about $0.01 ($0.008 to $0.012) at $0.36 an hour" in text
    plain = plan_summary(a_plan(), hardware(), dataset(), model())
    assert "limit  " not in plain
    assert "cost  " not in plain
