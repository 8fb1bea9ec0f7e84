"""Devices beside each other, as text and as a picture."""

import io
import re

import pytest
from PIL import Image

from autotrain.report import versus_picture, versus_text
from tests.bench.devices import around, cpu, gpu, lost


@pytest.fixture
def rows():
    measured = {"samples_per_second": around(500.0), "rounds": 27, "processes": 3}
    return [
        cpu(100.0, **measured, memory_bytes=around(1e9, 1.0), micro_batch=8, accum_steps=2),
        gpu(20.0, samples_per_second=around(2500.0, 2.0), cost=around(0.05), currency="\u20ac"),
        lost(remedy="a smaller model"),
    ]


def text(rows, others=None):
    out = io.StringIO()
    versus_text.show(rows, "mine: Net, 5 k parameters", others, out)
    return " ".join(out.getvalue().split()), out.getvalue().splitlines()


def test_every_row_says_whether_it_was_measured(rows):
    said, lines = text(rows)
    table = lines[2:6]
    assert [line.split()[0] for line in table] == ["device", "EPYC,", "t4-16gb", "rtx-3050"]
    assert ["measured" in line for line in table[1:]] == [True, False, False]
    assert ["predicted" in line for line in table[1:]] == [False, True, True]
    assert "EPYC, here (measured) t4-16gb (predicted)" in said


def test_it_says_how_the_figures_came_about_and_what_follows(rows):
    said, _ = text(rows)
    assert "the median of 27 rounds in 3 processes" in said
    assert "95 of 100 such figures" in said
    assert "those of GPUs have not been checked" in said
    cpus = [cpu(), cpu(machine="cpu-4-core", source="predicted")]
    assert "have not been checked" not in text(cpus)[0]
    assert "no GPU was found here" in said
    assert (
        "t4-16gb is faster than the CPU here from micro_batch 8 on, though nowhere surely" in said
    )
    assert "rtx-3050: too large; a smaller model" in said
    assert "\u20ac0.05" in said
    assert "other programs" not in said
    disturbed = text(rows, 0.4)[0]
    assert "other programs took 40 % of the cores" in disturbed
    assert "the brackets reach from none of them to twice as many" in disturbed


def test_without_prices_there_is_no_column_for_them(rows):
    assert "cost" not in text(rows[:1])[0]


@pytest.mark.parametrize("which", [slice(0, 3), slice(0, 1), slice(2, 3)])
def test_the_picture_is_one_whatever_there_is_to_draw(rows, which):
    picture = Image.open(io.BytesIO(versus_picture.png(rows[which], "mine: Net")))
    assert picture.size == (1400, 850)
    assert len(set(picture.convert("L").resize((70, 42)).tobytes())) > 10


def test_bars_that_are_far_apart_are_drawn_on_a_logarithmic_scale(rows, monkeypatch):
    drawn = []
    real = versus_picture._bars
    monkeypatch.setattr(
        versus_picture, "_bars", lambda ax, *given: (real(ax, *given), drawn.append(ax))
    )
    versus_picture.png([cpu(10_000.0), gpu(1.0)], "mine")
    assert [ax.get_xscale() for ax in drawn] == ["log"]
    drawn.clear()
    versus_picture.png([cpu(2.0), gpu(1.0)], "mine")
    assert [ax.get_xscale() for ax in drawn] == ["linear"]


class Terminal(io.StringIO):
    """Text for a person."""

    def isatty(self):
        return True


@pytest.mark.parametrize("columns", [80, 160])
def test_a_terminal_of_any_width_shows_every_word(rows, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    out = Terminal()
    versus_text.show(rows, "mine: Net", None, out)
    said = out.getvalue()
    assert "\u2026" not in said
    assert said.count("measured") >= 2
    assert said.count("predicted") >= 3
    lines = [re.sub(r"\x1b[^m]*m", "", line) for line in said.splitlines()]
    assert max(map(len, lines)) <= columns
    turned = any(line.startswith("samples a second ") for line in lines)
    assert turned == (columns == 80)
