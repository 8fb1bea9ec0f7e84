"""The examples of the page on learning aids come out as printed."""

import doctest
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "learning-aids.md"


def test_the_examples_come_out_as_printed():
    failed, tried = doctest.testfile(str(PAGE), module_relative=False)
    assert tried > 25
    assert failed == 0
