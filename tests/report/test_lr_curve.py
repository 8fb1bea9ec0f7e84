"""The curve of a range test: figures and picture."""

import csv
import io
import math
import warnings

import pytest

from autotrain.report import lr_curve
from autotrain.schema import RangeTest, Suggestion, Sweep

RATES = tuple(1e-5 * 10 ** (i / 12) for i in range(40))
LOSSES = tuple(2.0 - math.exp(-(((i - 30) / 6) ** 2)) for i in range(36))


def made(sweeps, **about):
    fields = {"optimizer": "adamw", "dtype": "fp32", "micro_batch": 8, "samples": 32}
    return RangeTest.model_validate(
        {**fields, "outcome": "ok", "rates": RATES, "sweeps": sweeps, **about}
    )


CURVE = tuple(loss - 2.0 for loss in LOSSES)
FOUND = Suggestion(1e-3, 2e-3, 3e-3, RATES[30], True, CURVE)
TEST = made([Sweep(0, LOSSES, (2.0,) * 40), Sweep(1, LOSSES[:30], (2.0,) * 40)])


def test_the_table_has_a_line_a_rate_and_gaps_where_a_sweep_had_ended():
    rows = list(csv.DictReader(io.StringIO(lr_curve.table(TEST, FOUND))))
    assert len(rows) == len(CURVE)
    assert float(rows[3]["rate"]) == pytest.approx(RATES[3], rel=1e-5)
    assert float(rows[30]["learned"]) == pytest.approx(-1.0)
    assert (rows[29]["loss_2"], rows[30]["loss_2"]) != ("", "")
    assert rows[30]["loss_2"] == ""
    assert float(rows[30]["before_2"]) == 2.0


@pytest.mark.parametrize(
    ("test", "found"),
    [
        (TEST, FOUND),
        (TEST, FOUND._replace(why_not="the loss never fell beyond its noise", rate=math.nan)),
        (made([Sweep(0, (), (1.0,) * 40)]), FOUND._replace(curve=(), why_not="nothing")),
        (made([Sweep(0, (1.0, 1e30), (1.0,) * 40)]), FOUND._replace(curve=(0.0, 0.0))),
    ],
    ids=["found", "refused", "empty", "exploded"],
)
def test_the_picture_is_drawn_whatever_was_measured(test, found):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert lr_curve.png(test, found).startswith(b"\x89PNG")
