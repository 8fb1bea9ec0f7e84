"""A run watched from another process: begun later, growing, ended, dead, resumed."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from autotrain import planfile, presence
from autotrain.commands import watch as command
from autotrain.events import Evaluated, Started, Step, Stopped, to_json
from autotrain.report.stream import Tolerant

NOW = time.time
MARK = "from autotrain import presence; print(presence.mark())"


def started(**more):
    fields = {
        "step": 0, "epoch": 0, "total_steps": 40, "epochs": 4, "steps_per_epoch": 10,
        "device": "cpu", "monitor": "loss", "better": "lower", "train_count": 80, "valid_count": 20,
    }  # fmt: skip
    return Started(**{**fields, **more})


def a_step(step, **more):
    fields = {
        "step": step, "epoch": 1, "loss": 1 / step, "parts": {}, "lr": 1e-3, "grad_norm": 1.0,
        "samples": 8, "weight": 8.0, "step_seconds": 0.1, "wait_seconds": 0.0,
        "device_bytes": 1 << 20, "peak_bytes": 1 << 21,
    }  # fmt: skip
    return Step(**{**fields, **more})


def evaluated(step):
    return Evaluated(
        step=step, epoch=1, loss=0.5, metrics={}, best=True, bad_evaluations=0, seconds=0.1
    )


def stopped(step, reason="finished", **more):
    return Stopped(
        step=step, epoch=4, reason=reason, detail="", best=0.5, best_step=10, seconds=4.0,
        checkpoint=None, **more,
    )  # fmt: skip


class Watched:
    """The real command on a folder, its output a pipe."""

    def __init__(self, folder, *more, **env):
        words = [sys.executable, "-m", "autotrain", "watch", str(folder), *more]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen(words, text=True, env=os.environ | env, **pipes)

    def end(self, seconds=60):
        out, err = self.process.communicate(timeout=seconds)
        return self.process.returncode, out, err


def write(folder, *events):
    folder.mkdir(exist_ok=True)
    with open(folder / "events.jsonl", "a") as file:
        for event in events:
            file.write(event if isinstance(event, str) else to_json(event) + "\n")


def test_a_run_that_begins_later_is_waited_for_and_followed_to_its_end(tmp_path):
    """A line is written in two parts; there is no plan beside the events."""
    watched = Watched(tmp_path / "run")
    assert (
        watched.process.stderr.readline() == f"waiting for a run in {tmp_path / 'run'}; ^C leaves\n"
    )
    line = to_json(a_step(20, time=NOW()))
    write(tmp_path / "run", started(time=NOW()), a_step(10, time=NOW()), line[:25])
    time.sleep(1.2)
    write(tmp_path / "run", line[25:] + "\n", evaluated(20), a_step(40), stopped(40))
    code, out, err = watched.end()
    assert code == 0
    assert "training on cpu: 4 epochs of 10 steps" in out
    assert "step 20/40  validation loss 0.5: best so far" in out
    assert "finished, step 40" in out
    assert "predicted" not in out
    assert err.endswith(f"next        autotrain report {tmp_path / 'run'}\n")
    assert "\x1b" not in out


def test_json_is_each_event_as_it_stands_there(tmp_path):
    events = [started(), a_step(10), evaluated(10), stopped(10, "error")]
    write(tmp_path, events[0], "torn{\n", *events[1:])
    code, out, err = Watched(tmp_path, "--json").end()
    assert code == 1
    assert [json.loads(line)["event"] for line in out.splitlines()] == [e.name for e in events]
    assert "--resume" in err


def test_a_run_whose_process_is_gone_has_died(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "GONE_SECONDS", 0.1)
    mark = subprocess.check_output([sys.executable, "-c", MARK], text=True).strip()
    write(tmp_path, started(process=mark, time=NOW()), a_step(10, time=NOW()))
    code, out, err = in_process(tmp_path)
    assert code == 1
    assert "the run has died: its process is gone, and no end is recorded" in out
    assert "--resume" in err


def in_process(folder):
    """(code, out, err), where a test changes how long things take."""
    import io
    from contextlib import redirect_stderr, redirect_stdout

    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = command.watch(str(folder), (), as_json=False)
    return code, out.getvalue(), err.getvalue()


def test_silence_of_a_run_elsewhere_is_told_and_after_long_it_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "GONE_SECONDS", 0.1)
    write(
        tmp_path, started(process="1@elsewhere", time=NOW() - 5000), a_step(10, time=NOW() - 4990)
    )
    code, out, _ = in_process(tmp_path)
    assert code == 1
    assert "warning: no word from the run for 1 h 23 min (it may have died)" in out
    assert out.count("no word") == 1


def test_one_that_was_resumed_goes_on_in_the_same_view(tmp_path, monkeypatch):
    """Its process is this one: it lives. The first session was killed."""
    write(tmp_path, started(time=NOW() - 100, process="1@elsewhere"), a_step(10, time=NOW() - 99))
    mine = {"process": presence.mark(), "resumed_from": "step-00000010", "step": 10}
    write(tmp_path, started(time=NOW(), **mine), a_step(20), stopped(20, "interrupted"))
    code, out, _ = in_process(tmp_path)
    assert code == 0
    assert "resuming from step-00000010: step 10 of 40" in out
    assert "died" not in out


def test_stages_are_watched_in_turn(folder):
    plan = planfile.load(folder / "plan.toml")
    run = folder / "runs" / "two"
    run.mkdir(parents=True)
    text = planfile.text(plan, "plan.toml")
    (run / "plan.toml").write_text(text + '\n[[stage]]\nname = "a"\n\n[[stage]]\nname = "b"\n')
    write(run / "1-a", started(stage="a"), a_step(10), stopped(10))
    watched = Watched(run)
    time.sleep(3)
    write(run / "2-b", started(stage="b", time=NOW()), a_step(20), stopped(20))
    code, out, err = watched.end()
    assert code == 0, err
    assert out.count("finished, step") == 2


@pytest.fixture
def three_stages(folder):
    """A finished run of stages by a process that is gone, and its mark."""
    plan = planfile.load(folder / "plan.toml")
    run = folder / "runs" / "three"
    run.mkdir(parents=True)
    stages = "".join(f'\n[[stage]]\nname = "{name}"\n' for name in "abc")
    (run / "plan.toml").write_text(planfile.text(plan, "plan.toml") + stages)
    mark = subprocess.check_output([sys.executable, "-c", MARK], text=True).strip()
    for number, name in enumerate("abc", start=1):
        then = NOW() - 100 + number
        write(run / f"{number}-{name}", started(stage=name, process=mark, time=then),
              a_step(10, time=then), stopped(10, time=then))  # fmt: skip
    return run, mark


def test_of_stages_the_one_that_began_last_is_watched(three_stages):
    """The first is trained anew by itself; its process is gone after it, and no other comes."""
    run, mark = three_stages
    (run / "1-a" / "events.jsonl").unlink()
    begun = started(stage="a", process=presence.mark(), time=NOW())
    write(run / "1-a", begun, a_step(17, time=NOW()))
    watched = Watched(run)
    assert any("step 17" in line for line in watched.process.stdout)
    write(run / "1-a", started(stage="a", process=mark, time=NOW()), stopped(17, time=NOW()))
    code, _, err = watched.end()
    assert code == 0
    assert "waiting" not in err
    assert err.strip().endswith("--resume")


def test_a_folder_that_only_looks_like_a_stage_is_none(three_stages):
    run, _ = three_stages
    write(run / "1x-foo", a_step(99, time=NOW() + 100))
    (run / "4-d").mkdir()
    (run / "4-d" / "events.jsonl").write_text("torn")
    watched = Watched(run)
    code, out, _ = watched.end()
    assert code == 0
    assert "99" not in out
    assert out.count("finished, step 10") == 1


def test_a_reader_that_went_away_ends_it_quietly(tmp_path):
    write(tmp_path, started(process=presence.mark(), time=NOW()), a_step(10))
    watched = Watched(tmp_path)
    watched.process.stdout.readline()
    watched.process.stdout.close()
    write(tmp_path, evaluated(10), evaluated(20), evaluated(30))
    assert watched.process.wait(30) == 0
    assert "Traceback" not in watched.process.stderr.read()
    watched.process.stderr.close()


def test_leaving_it_says_that_the_run_goes_on(tmp_path, monkeypatch, capsys):
    def leave(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "_follow", leave)
    assert command.watch(str(tmp_path), (), as_json=False) == 130
    assert "the run goes on" in capsys.readouterr().err


def test_a_file_is_no_run(folder, at):
    said = at("watch", "plan.toml")
    assert said.code == 1
    assert said.error == "error: plan.toml: not a run's folder"


LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the system's ticks since its start")


@LINUX
def test_a_process_number_that_another_program_has_now_is_not_the_run():
    mine = presence.mark()
    number, _, place = mine.partition("@")
    process, _, ticks = number.partition(".")
    assert presence.alive(mine, time.time()) is True
    assert presence.alive(f"{process}.{int(ticks) - 1}@{place}", time.time()) is False
    assert presence.alive(f"999999999.{ticks}@{place}", time.time()) is False
    assert presence.alive(mine.replace("@", "@x"), time.time()) is None
    assert presence.alive(None, time.time()) is None
    assert presence.alive("strange", time.time()) is None


@LINUX
@pytest.mark.parametrize("step", [-1e6, 1e6])
def test_a_step_of_the_clock_kills_no_run(step, tmp_path, monkeypatch):
    """Its process is this one, and it began by a clock that was wrong."""
    assert presence.alive(presence.mark(), time.time() + step) is True
    monkeypatch.setattr(command, "GONE_SECONDS", 0.1)
    write(tmp_path, started(process=presence.mark(), time=NOW() + step), a_step(10, time=NOW()))
    end = threading.Timer(1.5, write, (tmp_path, stopped(40)))
    end.start()
    code, out, _ = in_process(tmp_path)
    end.join()
    assert code == 0
    assert "died" not in out


def test_a_mark_without_ticks_is_told_from_another_process_by_the_clock():
    """As other systems make it, and earlier runs."""
    number, _, place = presence.mark().partition("@")
    mine = f"{number.partition('.')[0]}@{place}"
    assert presence.alive(mine, time.time()) is True
    assert presence.alive(mine, time.time() - 1e6) is False


@pytest.mark.parametrize("broken", [True, False])
def test_a_stream_knows_when_nobody_reads(broken):
    class Stream:
        encoding = "utf-8"

        def write(self, _):
            if broken:
                raise BrokenPipeError

        def flush(self):
            pass

    out = Tolerant(Stream())
    out.line("x")
    assert out.gone is broken
