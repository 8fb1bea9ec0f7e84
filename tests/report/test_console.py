import io
import os
import re
import sys
from dataclasses import replace

import pytest
from plans import GIB, a_plan, a_run, a_step, evaluated, saved, started, stopped
from rich.console import Console

from autotrain.events import Healed, Step, Warned
from autotrain.report.console import Due, viewer
from autotrain.report.live import live
from autotrain.report.progress import Progress
from autotrain.report.stream import Tolerant


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Broken(io.StringIO):
    def write(self, text):
        raise BrokenPipeError


def lines_of(events, **more):
    out = io.StringIO()
    with viewer(a_plan(), out, **more) as show:
        for event in events:
            show(event)
    return out.getvalue().splitlines()


def on_terminal(events, width, **more):
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=width, height=30, **more)
    with live(Progress(a_plan()), console) as show:
        for event in events:
            show(event)
    return out.getvalue()


def last_picture(text):
    """The lines of the last drawing, without control sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.rsplit("\x1b[2K", 1)[-1]).strip()


def test_a_pipe_gets_about_one_line_for_every_5_percent_of_the_steps():
    """500 steps in 100 s: the first step and 20 marks, 5 s apart."""
    steps = [line for line in lines_of(a_run()) if "samples/s" in line]
    assert len(steps) == 21
    assert "epoch 1/50  step 1/500 (0.2 %)" in steps[0]
    assert "epoch 50/50  step 500/500 (100 %)" in steps[-1]


def test_a_line_shows_pace_memory_and_time_beside_the_prediction():
    """Half of 100 s predicted is left; the run took 0.4 s a step so far, so 100 s are left."""
    events = [started(), *(a_step(s, time=started().time + 0.4 * s) for s in (125, 250))]
    line = lines_of(events)[-1]
    assert "1 min 40 s left (predicted 50 s)" in line
    assert "GiB (predicted 983 MiB to 1.44 GiB)" in line
    assert "data wait 4.8 %" in line


def test_a_short_run_is_not_flooded_and_a_long_one_not_silent():
    """5 % marks less than a second apart are skipped; 10 minutes never pass without a line."""
    due = Due()
    assert [n for n in range(1, 21) if due(0.1 * n, n / 20)] == [1, 11, 20]
    due = Due()
    shown = [n for n in range(1, 361) if due(10.0 * n, n / 100_000)]
    assert shown == [1, 61, 121, 181, 241, 301]


def test_in_a_run_of_an_hour_a_line_comes_every_percent():
    due = Due()
    assert [due(float(n), n / 3600) for n in range(1, 3601)].count(True) == pytest.approx(
        100, abs=3
    )


def test_a_pipe_gets_every_evaluation_warning_cure_and_stop_but_no_routine_save():
    at = {"step": 10, "epoch": 0, "time": started().time}
    events = [
        started(),
        evaluated(10, 0.5, best=True, metrics={"wer": 0.25}),
        evaluated(20, 0.6, best=False),
        saved(10, "step"),
        saved(10, "epoch"),
        saved(10, "best"),
        saved(10, "interrupted"),
        Warned(**at, message="slow", advice="loader.workers = 2"),
        Healed(**at, fault="out of memory", cure="micro_batch 4 -> 2", cost_seconds=1.5),
        stopped(10, "early_stop", best=0.5, best_step=10),
    ]
    text = "\n".join(lines_of(events))
    assert "validation loss 0.5, wer 0.25: best so far" in text
    assert "validation loss 0.6: no better for 1" in text
    assert "(best)" not in text
    assert "(interrupted)" in text
    assert "(step)" not in text
    assert "(epoch)" not in text
    assert "warning: slow (loader.workers = 2)" in text
    assert "mended at step 10: out of memory: micro_batch 4 -> 2 (cost 1.5 s)" in text
    assert text.endswith(
        "stopped early, no further improvement, step 10 after 2 s; best 0.5 at step 10"
    )


def test_plain_lines_are_ascii_without_control_characters():
    """A message from user code cannot colour, clear or retitle the terminal of a reader."""
    nasty = Warned(step=1, epoch=0, message="\x1b]0;title\x07\x1b[2Jred\nnext line")
    lines = lines_of([*a_run(2), nasty])
    assert all(c.isprintable() for line in lines for c in line)
    assert lines[-1].startswith("warning:")


def test_a_resumed_run_says_where_it_goes_on_and_estimates_by_its_own_pace():
    events = [started(step=250, resumed_from="/runs/x/step-00000250"), a_step(251)]
    events[1] = replace(events[1], time=started().time + 0.2)
    first, second = lines_of(events)
    assert first == "resuming from step-00000250: step 250 of 500 on cpu"
    assert "49.8 s left" in second


def test_a_run_with_fewer_steps_than_planned_counts_to_its_own_end():
    """Of 100 s predicted for 500 steps, the last 50 of the 100 asked for take 10 s."""
    line = lines_of([started(), a_step(50)], max_steps=100)[-1]
    assert "step 50/100 (50 %)" in line
    assert "10 s left (predicted 10 s)" in line


def test_a_rate_counts_all_steps_since_the_last_log_point():
    """Neither an evaluation between two log points nor a resume shortens the window."""
    progress = Progress(a_plan(run={"log_every_steps": 10}))
    for event in (started(15), evaluated(15, 1.0, best=True)):
        progress.see(event)
    progress.see(a_step(20, samples=80, step_seconds=0.2))
    assert progress.rate == pytest.approx(80 / 2.0)


@pytest.mark.parametrize("stream", [Broken(), None], ids=["closed pipe", "no stderr"])
def test_a_stream_that_is_gone_does_not_stop_the_run(stream, monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    with viewer(a_plan(), stream) as show:
        for event in a_run(2):
            show(event)


def test_a_closed_file_does_not_stop_the_run():
    out = io.StringIO()
    out.close()
    with viewer(a_plan(), out) as show:
        show(started())


def test_a_terminal_that_breaks_does_not_stop_the_run():
    class Gone(Broken):
        def isatty(self):
            return True

    with viewer(a_plan(), Gone()) as show:
        for event in a_run(2):
            show(event)


def test_characters_that_the_stream_lacks_become_question_marks():
    raw = io.BytesIO()
    out = Tolerant(io.TextIOWrapper(raw, encoding="ascii"))
    out.line("naïve")
    assert raw.getvalue() == b"na?ve" + os.linesep.encode()


@pytest.mark.parametrize("width", [80, 120])
def test_the_live_view_fits_the_terminal(width):
    """Every figure is whole at 80 columns; at 120 memory and time share a line."""
    picture = on_terminal([started(), *map(a_step, range(1, 251))], width)
    drawn = last_picture(picture)
    assert all(len(line) <= width for line in drawn.splitlines())
    assert "…" not in drawn
    for said in ("epoch 25/50  step 250/500", "50 %", "samples/s", "data wait", "left (predicted"):
        assert said in drawn
    assert len(drawn.splitlines()) == (4 if width == 80 else 3)


def test_events_are_printed_above_the_live_view_with_markup_escaped():
    warning = Warned(step=1, epoch=0, message="file [bold]x[/bold] [/nonsense]")
    text = on_terminal([started(), a_step(1), warning], 120)
    assert "file [bold]x[/bold] [/nonsense]" in text


def test_a_terminal_gets_the_live_view_and_a_dumb_one_plain_lines(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    with viewer(a_plan(), out) as show:
        show(started())
    assert "\x1b[?25l" in out.getvalue()
    assert out.getvalue().count("\x1b[?25h") == 1
    monkeypatch.setenv("TERM", "dumb")
    out = Terminal()
    with viewer(a_plan(), out) as show:
        show(started())
    assert "\x1b" not in out.getvalue()


def test_an_exception_gives_the_cursor_back(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    with pytest.raises(KeyboardInterrupt), viewer(a_plan(), out):
        raise KeyboardInterrupt
    assert out.getvalue().count("\x1b[?25h") == 1


def test_no_color_is_honoured(monkeypatch):
    """A peak above the prediction is red, but not under NO_COLOR."""
    events = [started(), a_step(1, peak_bytes=2 * GIB)]
    assert "\x1b[31m" in on_terminal(events, 80, color_system="standard")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[31m" not in on_terminal(events, 80, color_system="standard")


def test_many_steps_a_second_are_drawn_at_most_ten_times_a_second():
    text = on_terminal([started(), *(a_step(n) for n in range(1, 401))], 80)
    assert text.count("samples/s") < 20


def test_a_loss_that_is_not_finite_is_shown_as_it_is():
    events = [started(), a_step(1, loss=float("nan"), step_seconds=0.0)]
    assert any("loss nan" in line for line in lines_of(events))
    assert isinstance(events[1], Step)


@pytest.mark.parametrize(
    ("sensed", "said"),
    [
        ({"gpu_utilisation": 0.97, "gpu_celsius": 71.4, "others_cpu": 0.6}, "gpu 97 % 71 C"),
        ({"gpu_utilisation": 0.02}, "gpu 2.0 %"),
        ({"gpu_celsius": 80.0}, "gpu 80 C"),
        ({"others_cpu": 0.6}, "others 60 % cpu"),
        ({"others_cpu": 0.09}, ""),
        ({}, ""),
    ],
)
def test_what_the_sensors_say_ends_the_figures_where_it_matters(sensed, said):
    """A GPU's own figures first; what other programs take only where it is much."""
    line = lines_of([started(), a_step(1, **sensed)])[1]
    shown = line.partition("data wait")[2].partition("memory")[0]
    assert shown.partition("%")[2].strip() == said


@pytest.mark.parametrize("width", [80, 120])
def test_the_widest_figures_fit_the_terminal(width):
    """Long numbers, a full GPU, hours left."""
    wide = a_step(
        499, loss=-1234.5678, lr=1.23456e-05, samples=10**7, step_seconds=1.0, wait_seconds=1.0,
        gpu_utilisation=1.0, gpu_celsius=101.0,
    )  # fmt: skip
    drawn = last_picture(on_terminal([started(), wide], width))
    assert all(len(line) <= width for line in drawn.splitlines())
    assert "\u2026" not in drawn
    assert "gpu 100 % 101 C" in drawn


@pytest.mark.parametrize("width", [60, 80, 120])
def test_what_is_longer_than_a_line_is_wrapped_at_words_and_indented(width):
    """Whole, in the terminal's width, and where each event begins can be seen."""
    message = " ".join(f"word{n}" for n in range(40))
    events = [started(), Warned(step=1, epoch=0, message=message), saved(1, "interrupted")]
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", on_terminal(events, width))
    lines = [line.strip("\r") for line in text.splitlines()]
    begin = next(n for n, line in enumerate(lines) if line.startswith("warning: word0"))
    end = next(n for n, line in enumerate(lines) if line.rstrip().endswith("word39"))
    assert all(line.startswith("    word") for line in lines[begin + 1 : end + 1])
    assert " ".join(line.strip() for line in lines[begin : end + 1]) == f"warning: {message}"
    assert max(map(len, lines[begin : end + 1])) <= width


def test_a_run_that_ended_shows_what_it_took():
    drawn = last_picture(on_terminal([started(), a_step(500), stopped(500)], 120))
    assert drawn.endswith("took 1 min 40 s")
