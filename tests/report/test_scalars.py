import math
import subprocess
import sys

import pytest
from plans import a_run, a_step, evaluated, saved, started
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from autotrain.errors import AutotrainError
from autotrain.report.scalars import Scalars, scalars


def read(folder):
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    accumulator.Reload()
    return {
        tag: [(event.step, event.value) for event in accumulator.Scalars(tag)]
        for tag in accumulator.Tags()["scalars"]
    }


def test_tensorboard_reads_back_what_was_written(tmp_path):
    with scalars(tmp_path / "metrics") as writer:
        for event in (
            started(),
            a_step(10, loss=0.5, lr=0.25, parts={"mel": 0.125}),
            a_step(20, loss=math.nan),
            evaluated(20, 0.75, best=True, metrics={"wer": 0.5}),
            saved(20, "best"),
        ):
            writer.write(event)
    found = read(tmp_path / "metrics")
    assert found["train/loss"][0] == (10, 0.5)
    assert math.isnan(found["train/loss"][1][1])
    assert found["train/lr"][0] == (10, 0.25)
    assert found["train/mel"] == [(10, 0.125)]
    assert found["valid/wer"] == [(20, 0.5)]
    assert found["valid/loss"] == [(20, 0.75)]
    assert found["speed/save_seconds"][0][0] == 20


def test_sensors_are_written_where_there_are_any(tmp_path):
    with scalars(tmp_path) as writer:
        writer.write(a_step(1))
        writer.write(
            a_step(2, gpu_utilisation=0.5, gpu_celsius=70.0, gpu_watts=150.0, others_cpu=0.25)
        )
    found = read(tmp_path)
    assert found["gpu/utilisation"] == [(2, 0.5)]
    assert found["gpu/celsius"] == [(2, 70.0)]
    assert found["gpu/watts"] == [(2, 150.0)]
    assert found["speed/others_cpu"] == [(2, 0.25)]


def test_a_resumed_run_adds_a_file_and_tensorboard_shows_one_curve(tmp_path):
    for steps in (range(1, 6), range(6, 11)):
        with scalars(tmp_path) as writer:
            for step in steps:
                writer.write(a_step(step))
    assert len(list(tmp_path.iterdir())) == 2
    assert [step for step, _ in read(tmp_path)["train/loss"]] == list(range(1, 11))


def test_figures_are_on_disk_while_the_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr("autotrain.report.scalars.FLUSH_SECONDS", 0.0)
    writer = Scalars(tmp_path)
    writer.write(a_step(1, loss=0.5))
    assert read(tmp_path)["train/loss"] == [(1, 0.5)]
    writer.close()
    writer.close()
    writer.write(a_step(2))


def test_a_full_disk_warns_once_and_stops_nothing(tmp_path, capsys):
    writer = Scalars(tmp_path)
    writer._records._writer.close()
    writer._records._writer = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
    for event in a_run(2):
        writer.write(event)
    writer.close()
    err = capsys.readouterr().err
    assert err == "warning: TensorBoard scalars: No space left on device; training goes on\n"


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path):
    (tmp_path / "metrics").write_text("a file")
    with pytest.raises(AutotrainError, match="File exists"):
        Scalars(tmp_path / "metrics")


def test_neither_torch_nor_tensorflow_is_imported_by_any_report(tmp_path):
    """In a fresh interpreter, with warnings as errors, through every module of `report`."""
    code = """
import pkgutil, sys, importlib, pathlib
import autotrain.report
for module in pkgutil.iter_modules(autotrain.report.__path__):
    importlib.import_module(f"autotrain.report.{module.name}")
from autotrain.report.scalars import Scalars
Scalars(pathlib.Path(sys.argv[1])).close()
assert not {"torch", "tensorflow"} & set(sys.modules)
"""
    subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(tmp_path)], check=True, timeout=60
    )


def test_rich_and_matplotlib_wait_until_they_are_needed():
    code = """
import sys
import autotrain.report.console, autotrain.report.summary, autotrain.report.explain
import autotrain.report.plan_text, autotrain.report.log
assert not {"rich", "matplotlib", "numpy", "tensorboard"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
