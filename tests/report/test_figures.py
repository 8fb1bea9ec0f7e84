import math
import os
import struct

import numpy as np
import pytest
from plans import GIB, a_plan, a_run, a_step, evaluated, started

from autotrain.errors import AutotrainError
from autotrain.report.figures import png, write_png
from autotrain.report.panels import MOST_POINTS, smooth, thin
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


def test_long_curves_are_thinned_by_means_and_keep_their_ends():
    x = np.arange(100_000.0)
    few_x, few_y = thin(x, 2 * x)
    assert len(few_x) <= MOST_POINTS
    assert few_y == pytest.approx(2 * few_x)
    assert few_x[0] < 100
    assert few_x[-1] > 99_900


def test_what_is_not_finite_is_left_out_of_a_curve():
    x, y = thin(np.arange(4.0), np.array([1.0, np.nan, np.inf, 4.0]))
    assert x.tolist() == [0, 3]
    assert y.tolist() == [1, 4]


def test_smoothing_keeps_a_constant_and_short_curves():
    assert smooth(np.full(500, 3.0)) == pytest.approx(np.full(500, 3.0))
    short = np.array([1.0, 5.0, 2.0])
    assert smooth(short) is short


def test_drawing_leaves_the_settings_of_matplotlib_as_they_were():
    import matplotlib

    before = dict(matplotlib.rcParams)
    png(collect(a_run(2), a_plan()), a_plan())
    assert dict(matplotlib.rcParams) == before
