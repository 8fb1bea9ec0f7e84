"""The worked examples of the formula book come out as printed."""

import doctest
from pathlib import Path

BOOK = Path(__file__).parents[2] / "docs" / "formulas.md"


def test_the_formula_books_examples_come_out_as_printed():
    failed, tried = doctest.testfile(str(BOOK), module_relative=False)
    assert tried > 20
    assert failed == 0
