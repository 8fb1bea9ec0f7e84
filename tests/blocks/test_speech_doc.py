"""The examples of docs/speech.md give what they say."""

import doctest
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "speech.md"


def test_the_examples_give_what_the_page_says():
    failed, tried = doctest.testfile(str(PAGE), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert tried > 15
    assert not failed
