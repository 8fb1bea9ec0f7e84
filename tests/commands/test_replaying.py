"""`plan --no-trial` on the machine planned for: the traced step is played again, and tells."""

import json
from pathlib import Path

import pytest

from autotrain.commands import replaying
from autotrain.errors import AutotrainError
from autotrain.plan import race as races
from autotrain.probe import calibrate, replay
from autotrain.probe.hardware import probe_hardware
from autotrain.probe.model import ModelTracer
from autotrain.probe.replay import Taken
from autotrain.schema import Timing, Variant
from autotrain.sensors import Quiet

from .house import PLAN, TASK

TIMINGS = (
    Timing("elementwise", "fp32", 1, 0, 1e6, (), 1e-4),
    Timing("matmul", "fp32", 1, 2e6, 1e5, (1, 100, 100, 100), 1e-4),
)
PLAIN = Variant("fp32", "contiguous", 1)
TRIED = ("--set", "device.threads=1", "--set", "batch.global_batch=8")


@pytest.fixture
def task(tmp_path, monkeypatch):
    """A task, on a machine whose operators have been timed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUTOTRAIN_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("AUTOTRAIN_TRIAL")
    (tmp_path / "task.py").write_text(TASK)
    cpu = probe_hardware(tmp_path, calibrate=False)
    rates = cpu.device("cpu", 0).rates.model_copy(update={"timings": TIMINGS})
    saved = calibrate._Saved(rates={"cpu": rates})
    calibrate._keep(calibrate.cache_file(cpu.cpu, []), saved)
    return tmp_path


@pytest.fixture
def plays(monkeypatch):
    """How long each way is to take; `plays.asked` keeps what was asked for."""

    class Plays:
        def __init__(self):
            self.asked, self.taken = [], {}

        def __call__(self, programs, accum_steps, seconds):
            self.asked.append((programs, accum_steps))
            return [self.taken.get(place, Taken(0.010, 0.004)) for place in range(len(programs))]

    made = Plays()
    monkeypatch.setattr(replay, "timed", made)
    return made


def planned(at, *more):
    said = at(*PLAN, *TRIED, "--no-trial", "--json", *more)
    assert said.code == 0, said.err
    return json.loads(said.out), said.err


def test_a_step_takes_what_playing_it_took(task, at, plays):
    plan, _ = planned(at, "--set", "precision.dtype=fp32")
    step = plan["predicted"]["step_seconds"]
    assert 0.010 < step["expected"] < 0.0115
    assert step["high"] / step["low"] == pytest.approx(1.2**2)
    reason = plan["because"]["predicted"]["step_seconds"]
    assert "played again on this device" in reason["source"]


def test_it_is_played_by_the_real_thing_and_runs_none_of_the_task(task, at, monkeypatch):
    """While it is played the dataset is not asked for anything."""
    real, touched = replay.timed, []

    def timed(*arguments):
        before = Path("touched").stat().st_size
        taken = real(*arguments)
        touched.append(Path("touched").stat().st_size - before)
        return taken

    monkeypatch.setattr(replay, "timed", timed)
    spy = "        with open('touched', 'a') as file:\n            file.write('x')\n"
    spy += "        return self.x[index]"
    Path("task.py").write_text(TASK.replace("        return self.x[index]", spy))
    plan, _ = planned(at, "--set", "precision.dtype=fp32")
    assert touched
    assert set(touched) == {0}
    assert 0 < plan["predicted"]["step_seconds"]["expected"] < 1


def test_the_fastest_way_is_planned_and_explained(task, at, plays, monkeypatch):
    bf16 = "bf16" in probe_hardware(task, calibrate=False).device("cpu", 0).native_dtypes
    if not bf16:
        pytest.skip("needs a CPU that computes bf16")
    plays.taken = {1: Taken(0.004, 0.002)}
    plan, err = planned(at)
    assert plan["precision"]["dtype"] == "bf16"
    assert "bf16 took" in plan["because"]["precision"]["dtype"]["formula"]
    assert "compared 2 ways to take a step in" in err


def test_a_batch_that_is_faster_in_parts_is_cut(task, at, plays):
    """Eight at once take 10 ms; two times four, which are played beside them then, 6 ms."""
    real = plays.__class__.__call__

    def call(self, programs, accum_steps, seconds):
        self.taken = {} if not self.asked else {1: Taken(0.003, 0.001)}
        return real(self, programs, accum_steps, seconds)

    plays.__class__.__call__ = call
    plan, _ = planned(at, "--set", "precision.dtype=fp32")
    assert (plan["batch"]["micro_batch"], plan["batch"]["accum_steps"]) == (4, 2)
    assert [len(programs) for programs, _ in plays.asked] == [1, 3]


def test_beside_other_programs_nothing_counts(task, at, plays, monkeypatch):
    monkeypatch.setattr(Quiet, "disturbed", lambda self: 0.6)
    plan, err = planned(at)
    assert plan["precision"]["dtype"] == "fp32"
    assert "other programs took 60% of the cores" in err
    assert "played" not in plan["because"]["predicted"]["step_seconds"]["source"]


def test_what_cannot_be_played_is_said_and_the_plan_made(task, at, monkeypatch):
    def broken(*_):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(replay, "timed", broken)
    plan, err = planned(at)
    assert "the traced step could not be played: no such kernel" in err
    assert plan["predicted"]["step_seconds"]["expected"] > 0


def test_nothing_is_played_where_nothing_is_to_run(task, at, plays, monkeypatch):
    monkeypatch.setenv("AUTOTRAIN_TRIAL", "off")
    planned(at)
    assert plays.asked == []


def test_nothing_is_played_that_is_long_or_large(task, at, plays, monkeypatch):
    monkeypatch.setattr(replaying, "SHARE", 0.0)
    planned(at)
    monkeypatch.setattr(replaying, "SHARE", 0.5)
    monkeypatch.setattr(replaying.trying, "UNASKED_SECONDS", 0.0)
    planned(at)
    assert plays.asked == []


def refusing(monkeypatch):
    """An operator that bf16 has no kernel for: no trace of such a step can be made."""
    real = ModelTracer.trace

    def trace(self, micro_batch, dtype="fp32", *more, **named):
        if dtype == "bf16":
            raise AutotrainError("task.py:9: all tensors must have the same dtype\nand more")
        return real(self, micro_batch, dtype, *more, **named)

    monkeypatch.setattr(ModelTracer, "trace", trace)
    monkeypatch.setattr(races, "variants", lambda *_: [PLAIN, PLAIN._replace(dtype="bf16")])


def test_a_precision_that_the_model_does_not_run_in_is_out(task, at, plays, monkeypatch):
    refusing(monkeypatch)
    plan, err = planned(at)
    assert plan["precision"]["dtype"] == "fp32"
    assert "error" not in err
    assert len(plays.asked[0][0]) == 1
