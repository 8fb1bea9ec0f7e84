"""Figures to MLflow, by its own package: a server, a database or a folder, as MLflow is told."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import islice

from autotrain.report.tracking import About, Row, Sender

EXPERIMENT = "autotrain"
# What MLflow takes at once, and of one value.
METRICS, PARAMETERS, LENGTH = 1000, 100, 500
# Where MLflow kept figures before it had a database, and `mlflow ui` still looks.
_URI, FOLDER = "MLFLOW_TRACKING_URI", "mlruns"


@contextmanager
def opened(about: About) -> Iterator[Sender]:
    """A run of MLflow, the same after each resume."""
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.tracking import MlflowClient

    if _lacks_its_database():
        os.environ[_URI] = FOLDER
    if _is_folder(os.environ.get(_URI, "")):
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # MLflow 3.13 on asks for it
    client = MlflowClient()
    identity = about.identity
    if identity is None:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        found = client.get_experiment_by_name(name)
        experiment = found.experiment_id if found is not None else client.create_experiment(name)
        identity = client.create_run(experiment, run_name=about.name).info.run_id
        said = iter([Param(key, value[:LENGTH]) for key, value in about.plain.items()])
        while some := [*islice(said, PARAMETERS)]:
            client.log_batch(identity, params=some)
        client.log_batch(identity, tags=[RunTag("autotrain.name", about.name)])
    client.update_run(identity, status="RUNNING")

    def send(rows: list[Row]) -> None:
        every = (
            Metric(tag, value, int(row.time * 1000), row.step)
            for row in rows
            for tag, value in row.figures.items()
        )
        while some := [*islice(every, METRICS)]:
            client.log_batch(identity, metrics=some)

    try:
        yield Sender(identity, send)
    except BaseException:
        client.set_terminated(identity, "FAILED")
        raise
    client.set_terminated(identity, "FINISHED")


def _lacks_its_database() -> bool:
    """Whether nobody said where figures go, and MLflow's own choice, SQLite, needs what the small
    package does not bring: SQLAlchemy."""
    import mlflow

    chosen = mlflow.get_tracking_uri()
    return chosen.startswith("sqlite:") and not (os.environ.get(_URI) or find_spec("sqlalchemy"))


def _is_folder(uri: str) -> bool:
    """Whether MLflow is told to keep figures in a folder: who names one wants one."""
    return uri.startswith("file:") or (bool(uri) and "://" not in uri and uri != "databricks")
