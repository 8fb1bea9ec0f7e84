"""Figures at W&B and MLflow, by their own packages, without a network."""

import importlib.util
import json
import sys
import threading
import time
from contextlib import contextmanager

import pytest
from plans import a_plan, a_run, a_step, saved, started, stopped

from autotrain import planfile, presence
from autotrain.events import to_json
from autotrain.report import tracking

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    planfile.save(a_plan(checkpoint={"mirror": "s3://me/x"}), folder / "plan.toml")
    write(folder, a_run(3))
    return folder


def write(folder, events):
    with open(folder / "events.jsonl", "a") as file:
        file.writelines(to_json(event) + "\n" for event in events)


@pytest.mark.slow
def test_mlflow_keeps_every_figure_in_a_folder_and_goes_on_after_a_resume(
    run, tmp_path, monkeypatch
):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", str(tmp_path / "mlruns"))
    assert tracking.follow(run, a_plan(), "mlflow") > 30
    client = mlflow.tracking.MlflowClient(str(tmp_path / "mlruns"))
    kept = json.loads((run / "tracking.json").read_text())["mlflow"]
    history = client.get_metric_history(kept["id"], "train/loss")
    assert [m.step for m in history] == [*range(1, 31)]
    assert history[6].value == pytest.approx(a_step(7).loss)
    found = client.get_run(kept["id"])
    assert found.data.params["optimizer.lr"] == "0.0015"
    assert not {"task.data", "run.directory", "checkpoint.mirror"} & {*found.data.params}
    assert found.info.status == "FINISHED"
    write(run, [started(step=30), a_step(31), saved(31, "step"), stopped(31)])
    tracking.follow(run, a_plan(), "mlflow")
    assert [m.step for m in client.get_metric_history(kept["id"], "train/loss")][-2:] == [30, 31]


@pytest.mark.slow
def test_mlflow_without_its_database_keeps_figures_in_a_folder(run, tmp_path, monkeypatch):
    """As the small package has it: nobody says where, and SQLite needs SQLAlchemy."""
    pytest.importorskip("mlflow")
    if importlib.util.find_spec("sqlalchemy"):
        pytest.skip("SQLAlchemy is there")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.chdir(tmp_path)
    assert tracking.follow(run, a_plan(), "mlflow") > 30
    assert [*(tmp_path / "mlruns").glob("*/*/metrics/train/loss")]


@pytest.mark.slow
def test_wandb_offline_leaves_a_run_in_the_runs_folder_and_whole_after_a_resume(run, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    sent = tracking.follow(run, a_plan(), "wandb")
    (first,) = (run / "wandb").glob("offline-run-*")
    (file,) = first.glob("*.wandb")
    assert b"train/loss" in file.read_bytes()
    assert b"s3://me" not in file.read_bytes()
    write(run, [started(step=30), a_step(31), stopped(31)])
    assert tracking.follow(run, a_plan(), "wandb") == sent + 3
    both = sorted((run / "wandb").glob("offline-run-*"))
    assert len(both) == 2
    identity = json.loads((run / "tracking.json").read_text())["wandb"]["id"]
    assert all(f"-{identity}" in folder.name for folder in both)  # or `-1` behind it, if at once


class Fake:
    """A tracker that keeps what it is sent."""

    def __init__(self, *, fails=0):
        self.rows, self.identities, self.fails = [], [], fails

    @contextmanager
    def opened(self, about):
        self.identities.append(about.identity)
        yield tracking.Sender(about.identity or "first", self.send)

    def send(self, rows):
        if self.fails:
            self.fails -= 1
            raise ConnectionError("no route to host")
        self.rows += rows


@pytest.fixture
def fake(monkeypatch):
    found = Fake()
    monkeypatch.setitem(sys.modules, "autotrain.report.tracking.to_fake", found)
    monkeypatch.setattr(tracking, "POLL_SECONDS", 0.01)
    return found


def test_each_event_is_sent_once_and_what_could_not_be_sent_is_sent_later(run, fake):
    fake.fails = 1
    with pytest.raises(ConnectionError):
        tracking.follow(run, a_plan(), "fake")
    tracking.follow(run, a_plan(), "fake")
    assert [row.step for row in fake.rows if "train/loss" in row.figures] == [*range(1, 31)]
    count = len(fake.rows)
    assert tracking.follow(run, a_plan(), "fake") == 0
    write(run, [started(step=30), a_step(31), stopped(31)])
    assert tracking.follow(run, a_plan(), "fake") == 3
    assert [row.step for row in fake.rows[count:]] == [31]
    assert fake.identities == [None, None, "first", "first"]


def test_a_run_that_goes_on_is_followed_until_it_ends_or_its_process_is_gone(run, fake):
    place = presence.mark().partition("@")[2]
    write(run, [started(step=30, process=f"999999999@{place}"), a_step(31)])
    tracking.follow(run, a_plan(), "fake")
    assert fake.rows[-1].step == 31
    write(run, [started(step=31, process=presence.mark(), time=time.time()), a_step(32)])
    late = threading.Timer(0.5, write, (run, [a_step(33), stopped(33)]))
    late.start()
    tracking.follow(run, a_plan(), "fake")
    late.join()
    assert [row.step for row in fake.rows[-2:]] == [32, 33]


def test_what_is_kept_of_it_may_be_torn_or_strange(tmp_path):
    for text in ("{", "[]", '{"mlflow": 3}', ""):
        (tmp_path / tracking.KEPT).write_text(text)
        assert tracking._kept(tmp_path) == {}
