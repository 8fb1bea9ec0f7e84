"""What of a run is kept for the next plan, and what is not."""

import pytest

from autotrain import planfile
from autotrain.commands import remember
from autotrain.commands.remember import Cores, Watch
from autotrain.events import Evaluated, Saved, Started, Step, Stopped
from autotrain.probe import history

from .house import ONE_WAY, PLAN, SMALL, edit

GIB = 1 << 30


def kept():
    """The records in this test's own home."""
    (file,) = history.files.cache_directory().glob("runs-*.json")
    return history._Saved.model_validate_json(file.read_bytes()).runs


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A home without any run, where a busy machine is no reason to pass one over."""
    monkeypatch.setenv("AUTOTRAIN_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(remember, "MOST_OTHERS", 9.0)
    return tmp_path / "home"


# --- one session, event by event ----------------------------------------------------------------


@pytest.fixture(scope="module")
def plan(planned_once):
    return planfile.load(planned_once[0] / "plan.toml")


def watched(plan, steps=40, reason="finished", others=0.0, wait=0.0, **more):
    """A session in which every step took 0.1 s but the first one 2 s, and four evaluations."""
    watch, now = Watch(plan, base_bytes=GIB // 2), 1000.0
    head = {"step": 0, "epoch": 0, "total_steps": 40, "epochs": 2, "steps_per_epoch": 20}
    head |= {"device": "cpu", "monitor": "loss", "better": "lower"}
    watch.see(Started(time=now, train_count=64, valid_count=16, **head))
    for step in range(1, steps + 1):
        took = 0.1 + wait if step > 1 else 2.0
        now += took
        watch.see(
            Step(
                step=step, epoch=0, time=now, loss=1.0, parts={}, lr=0.1, grad_norm=1.0,
                samples=8, weight=8.0, step_seconds=took, wait_seconds=wait, device_bytes=GIB,
                peak_bytes=GIB,
            )
        )  # fmt: skip
        if step % 10 == 0:
            watch.see(
                Evaluated(
                    step=step, epoch=0, time=now, loss=1.0, metrics={}, best=True,
                    bad_evaluations=0, seconds=0.32,
                )
            )  # fmt: skip
            for label in ("best", "latest"):  # the second finds it written already
                seconds = 0.5 if label == "best" else 0.0
                watch.see(Saved(step=step, epoch=0, path="", label=label, bytes=9, seconds=seconds))
    end = {"detail": "", "best": None, "best_step": None, "seconds": 9.0, "checkpoint": None}
    watch.see(Stopped(step=steps, epoch=0, time=now, reason=reason, **end, **more))
    watch.others = others
    return watch


@pytest.fixture
def each_step(plan):
    run = plan.run.model_copy(update={"log_every_steps": 1})
    loader = plan.loader.model_copy(update={"keep": None})
    return plan.model_copy(update={"run": run, "loader": loader})


def trial_of(watch, by_length=False):
    return remember.trial_of(watch, by_length=by_length)


def test_a_run_says_its_steps_without_the_first_and_what_lies_beside_them(each_step):
    trial = trial_of(watched(each_step, wait=0.04))
    assert trial.of_run
    assert trial.step_seconds == pytest.approx(0.1)
    assert trial.sample_seconds == pytest.approx(0.04 / 8)
    assert trial.evaluation_seconds == pytest.approx(0.02)
    assert trial.save_seconds == 0.5
    assert trial.start_seconds == pytest.approx(2.0 - 0.14)
    assert (trial.device_peak_bytes, trial.base_bytes) == (GIB, GIB // 2)


def test_a_save_after_the_last_log_point_is_in_the_peak(each_step):
    assert trial_of(watched(each_step, peak_bytes=2 * GIB)).device_peak_bytes == 2 * GIB


def test_an_interrupted_run_counts_from_some_steps_on(each_step):
    enough = trial_of(watched(each_step, steps=12, reason="interrupted"))
    assert enough.step_seconds == pytest.approx(0.1)
    assert enough.device_peak_bytes is None  # not one epoch: a larger batch may have come
    assert trial_of(watched(each_step, steps=10, reason="interrupted")) is None


@pytest.mark.parametrize("reason", ["error", "out_of_memory", "not_finite"])
def test_a_run_that_failed_says_nothing(each_step, reason):
    assert trial_of(watched(each_step, reason=reason)) is None


def test_on_a_busy_machine_memory_counts_and_time_does_not(each_step):
    watch = watched(each_step, others=0.5)
    trial = trial_of(watch)
    assert remember.passed_over(watch) == "other programs took 50% of the cores"
    assert trial.step_seconds is None
    assert trial.device_peak_bytes == GIB


def test_waiting_for_data_is_not_the_model_s_time(each_step):
    """A loader-bound run: nine tenths of each step are spent waiting."""
    assert trial_of(watched(each_step, wait=0.9)).step_seconds == pytest.approx(0.1)


def test_lengths_and_workers_hide_what_the_largest_step_takes(each_step):
    assert trial_of(watched(each_step), by_length=True).device_peak_bytes is None
    loader = each_step.loader.model_copy(update={"workers": 2})
    fed = trial_of(watched(each_step.model_copy(update={"loader": loader}), wait=0.04))
    assert fed.device_peak_bytes is None
    assert fed.sample_seconds is None
    assert fed.step_seconds == pytest.approx(0.1)


@pytest.mark.parametrize("keep", ["ram", "device"])
def test_samples_that_are_kept_say_nothing_of_reading_them(each_step, keep):
    """Else the next plan would think that reading costs nothing, and keep none."""
    loader = each_step.loader.model_copy(update={"keep": keep})
    plan = each_step.model_copy(update={"loader": loader})
    trial = trial_of(watched(plan, wait=0.04))
    assert trial.sample_seconds is None
    assert trial.device_peak_bytes == GIB
    there = plan.model_copy(update={"device": plan.device.model_copy(update={"kind": "cuda"})})
    assert (trial_of(watched(there)).reserved_peak_bytes is None) == (keep == "device")


def test_on_a_gpu_the_peak_is_the_allocator_s(each_step):
    device = each_step.device.model_copy(update={"kind": "cuda"})
    watch = watched(each_step.model_copy(update={"device": device}), tensor_peak_bytes=GIB // 2)
    trial = trial_of(watch)
    assert trial.reserved_peak_bytes == GIB
    assert trial.tensor_peak_bytes == GIB // 2
    assert trial.device_peak_bytes is None


def test_what_others_take_of_the_cores_is_less_what_we_took():
    before = Cores(wall=0.0, count=2, busy=100.0, own=10.0)
    assert before.others(Cores(10.0, 2, 120.0, 30.0)) == 0.0
    assert before.others(Cores(10.0, 2, 118.0, 18.0)) == pytest.approx(0.5)
    assert before.others(Cores(0.0, 2, 100.0, 10.0)) == 0.0


# --- the real thing -------------------------------------------------------------------------------


def test_a_run_corrects_the_next_plan_of_the_same_model(folder, at, own, monkeypatch):
    assert at(*PLAN, *SMALL, "--set", "loader.keep=off").code == 0
    assert at("run", "plan.toml", "--trust").code == 0
    (record,) = kept()
    assert record.passed_over == ""
    assert record.steps == 16
    assert record.predicted["step_seconds"] > 0
    assert record.measured["run_seconds"] > record.measured["step_seconds"] > 0
    monkeypatch.setenv("AUTOTRAIN_TRIAL", "")  # memory is known, so nothing is tried
    said = at(*PLAN, *SMALL, *ONE_WAY, "--set", "loader.keep=off")
    assert said.code == 0
    assert "tried" not in said.err
    made = planfile.load(folder / "plan.toml")
    loading = 8 * record.trial.sample_seconds
    step = record.trial.step_seconds + loading
    assert made.predicted.step_seconds.expected == pytest.approx(step, rel=1e-3)
    assert made.predicted.device_peak_bytes.expected == record.trial.device_peak_bytes
    said = at("explain", "plan.toml", "predicted.step_seconds")
    assert "the last run here at micro_batch 8 took" in " ".join(said.out.split())
    alone = at(*PLAN, *SMALL, "--no-trial")
    assert alone.code == 0
    made = planfile.load(folder / "plan.toml")
    assert made.because["predicted"]["step_seconds"].kind == "rule"


def test_code_that_changed_under_way_or_other_data_is_not_mistaken_for_the_plan_s(folder, at, own):
    text = (folder / "task.py").read_text()
    (folder / "task.py").write_text(text.replace("Points(64, 1)", "Points(72, 1)"))
    said = at("run", "plan.toml", "--trust")
    assert said.code == 0
    assert "data: 64 samples to train on when planned, 72 now" in said.err
    assert not list(own.glob("runs-*.json"))


def test_a_torn_store_and_a_home_that_cannot_be_written_harm_no_run(folder, at, own, monkeypatch):
    assert at("run", "plan.toml", "--trust", "--max-steps", "12").code == 0
    (file,) = own.glob("runs-*.json")
    file.write_text("{")
    said = at("run", "plan.toml", "--fresh")
    assert said.code == 0
    assert said.err.count("not what autotrain keeps of runs: ignored") == 1
    assert len(kept()) == 1
    monkeypatch.setattr(history, "keep", lambda *_: 1 / 0)
    said = at("run", "plan.toml", "--fresh", "--max-steps", "12")
    assert said.code == 0
    assert "warning: the run's figures are not kept" in said.err


def test_a_plan_that_was_edited_is_kept_by_what_ran(folder, at, own):
    edit(folder / "plan.toml", batch={"micro_batch": 4, "accum_steps": 2})
    assert at("run", "plan.toml", "--trust").code == 0
    (record,) = kept()
    assert (record.trial.micro_batch, record.trial.micro_batches) == (4, 2.0)
