import math
import os
import struct

import numpy as np
import pytest
from plans import GIB, a_plan, a_run, a_step, evaluated, started

from autotrain.errors import AutotrainError
from autotrain.report.curves import STRETCHES, Curve, curve, extremes, smooth, ticks
from autotrain.report.figures import DPI, INCHES, _draw, png, write_png
from autotrain.report.panels import Line, Note, Panel
from autotrain.report.result import collect


def size(image):
    assert image[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", image[16:24])


def colours(image):
    from io import BytesIO

    from PIL import Image

    return {colour for _, colour in Image.open(BytesIO(image)).convert("RGB").getcolors(1 << 24)}


def rgb(text):
    return tuple(int(text[n : n + 2], 16) for n in (1, 3, 5))


def near(colour, drawn):
    """A thin line has no pixel of its very colour."""
    return any(sum(abs(a - b) for a, b in zip(colour, c, strict=True)) < 40 for c in drawn)


def test_the_picture_is_1600_by_1000_and_written_whole(tmp_path):
    path = tmp_path / "report.png"
    write_png(collect(a_run(10), a_plan()), a_plan(), path)
    assert size(path.read_bytes()) == (1600, 1000)
    assert os.listdir(tmp_path) == ["report.png"]


def test_training_validation_and_best_are_drawn():
    drawn = colours(png(collect(a_run(10), a_plan()), a_plan()))
    for colour in ("#2f6fdb", "#e07b39", "#2c9c69"):
        assert near(rgb(colour), drawn)


@pytest.mark.parametrize(
    "events",
    [
        [],
        [started()],
        [started(), a_step(1)],
        [started(), a_step(1, loss=math.nan, grad_norm=math.inf, lr=0.0, step_seconds=0.0)],
        [started(), a_step(1, loss=0.0, grad_norm=0.0), evaluated(1, math.nan, best=False)],
        [started(), a_step(1, loss=-3.0), a_step(2, loss=40.0), evaluated(2, -1.0, best=True)],
        [started(monitor="শব্দ"), evaluated(1, 1.0, best=True, metrics={"শব্দ": 0.5})],
    ],
    ids=["empty", "started", "one point", "nan", "zero", "negative loss", "name without glyphs"],
)
def test_a_run_with_little_or_odd_content_has_a_picture(events):
    assert size(png(collect(events, a_plan()), a_plan())) == (1600, 1000)


def test_the_budget_is_drawn_where_it_is_near():
    red = rgb("#c94f4f")
    result = collect(a_run(5), a_plan())
    assert near(red, colours(png(result, a_plan(memory={"budget_bytes": int(1.6 * GIB)}))))
    assert not near(red, colours(png(result, a_plan(memory={"budget_bytes": 64 * GIB}))))


def test_a_folder_that_is_missing_is_one_clear_error(tmp_path):
    with pytest.raises(AutotrainError, match="No such file"):
        write_png(collect([], a_plan()), a_plan(), tmp_path / "missing" / "report.png")


def test_of_a_long_curve_every_extreme_is_kept_and_so_are_its_ends():
    """One point in 100,000 that stands out, up or down, is still seen."""
    x = np.arange(100_000.0)
    y = np.sin(x / 5000)
    y[[12_345, 77_777]] = 9.0, -9.0
    few_x, few_y = extremes(x, y)
    assert len(few_x) <= 2 * STRETCHES + 2
    assert {(12_345.0, 9.0), (77_777.0, -9.0)} <= {*zip(few_x, few_y, strict=True)}
    assert (few_x[0], few_x[-1]) == (0, 99_999)
    assert (np.diff(few_x) > 0).all()
    drawn = curve(x, y)
    assert len(drawn.x) <= STRETCHES
    assert (drawn.shown.max(), drawn.shown.min()) == (9.0, -9.0)


def test_what_is_not_finite_is_left_out_of_a_curve():
    drawn = curve(np.arange(4.0), np.array([1.0, np.nan, np.inf, 4.0]))
    assert drawn.x.tolist() == [0, 3]
    assert drawn.y.tolist() == [1, 4]


@pytest.mark.parametrize(
    ("low", "high", "log", "marks"),
    [
        (0, 100, False, [0, 20, 40, 60, 80, 100]),
        (0.93, 1.31, False, [1.0, 1.1, 1.2, 1.3]),
        (0.02, 3.0, True, [0.03, 0.1, 0.3, 1, 3]),
        (1e-6, 1e3, True, [1e-6, 1e-4, 1e-2, 1, 100]),
        (5.0, 5.0, False, [5.0]),
    ],
)
def test_marks_on_an_axis_are_round_numbers(low, high, log, marks):
    assert ticks(low, high, log=log) == pytest.approx(marks)


def test_smoothing_keeps_a_constant_and_short_curves():
    assert smooth(np.full(500, 3.0)) == pytest.approx(np.full(500, 3.0))
    short = np.array([1.0, 5.0, 2.0])
    assert smooth(short) is short


def test_drawing_leaves_the_settings_of_matplotlib_as_they_were():
    import matplotlib

    before = dict(matplotlib.rcParams)
    png(collect(a_run(2), a_plan()), a_plan())
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("steps", [(480, 1000), (450, 520), (30, 30)])
def test_what_is_said_of_two_steps_lies_on_two_rows_within_the_panel(steps):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=INCHES, dpi=DPI)
    canvas = FigureCanvasAgg(figure)
    ax = figure.subplots(2, 3)[0, 1]
    figure.subplots_adjust(0.05, 0.07, 0.955, 0.84, wspace=0.24, hspace=0.36)
    notes = [
        Note(step, text, "green", line=True)
        for step, text in zip(steps, ("best 0.3503", "90 % of the gain: epoch 1,048"), strict=True)
    ]
    flat = Curve(*(np.array([0.0, 1000.0]), np.array([1.0, 1.0])) * 2)
    panel = Panel("metric", "", [Line("each", "blue", flat)], notes=notes, high=2.0)
    _draw(ax, panel, 1000)
    canvas.draw()
    one, other = (text.get_window_extent() for text in ax.texts)
    assert not one.overlaps(other)
    for box in (one, other):
        assert ax.bbox.x0 < box.x0 < box.x1 < ax.bbox.x1
