"""docs/loop.md quotes the code that runs, names files that exist, and computes what it says.

`python tests/test_loop_doc.py` copies the functions into it anew.
"""

import ast
import doctest
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
BOOK = ROOT / "docs" / "loop.md"
QUOTE = re.compile(r"```python (?P<file>\S+) (?P<name>\w+)\n(?P<code>.*?)```\n", re.DOTALL)


def source(file, name):
    """A function of a file as it is written there."""
    text = (ROOT / file).read_text(encoding="utf-8")
    [node] = [n for n in ast.parse(text).body if isinstance(n, ast.FunctionDef) and n.name == name]
    return f"{ast.get_source_segment(text, node)}\n"


def test_every_function_in_the_book_is_the_one_that_runs():
    """If not: `python tests/test_loop_doc.py`, then read what it says around them."""
    quotes = {q["name"]: q for q in QUOTE.finditer(BOOK.read_text(encoding="utf-8"))}
    assert {"_steps", "_accumulate", "_update"} <= set(quotes)
    for name, quote in quotes.items():
        assert quote["code"] == source(quote["file"], name)


def test_every_file_it_names_is_there():
    named = set(re.findall(r"`((?:run|autotrain)/[\w/]+\.py)`", BOOK.read_text(encoding="utf-8")))
    assert len(named) > 20
    there = {
        name for name in named if (ROOT / "autotrain" / name.removeprefix("autotrain/")).exists()
    }
    assert named == there


def test_every_flag_in_its_table_is_one_and_none_is_left_out():
    from autotrain.run.watching import flags, learning

    section = BOOK.read_text(encoding="utf-8").partition("## 8.")[2].partition("## 9.")[0]
    rows = re.findall(r"^\| ([a-z, ]+?) \|", section, re.MULTILINE)
    told = {name for row in rows for name in row.split(", ")} - {"flag"}
    assert told == {*flags.AT_LOG_POINTS, *learning.AT_LOG_POINTS, *learning.AT_EVALUATIONS}


def test_its_arithmetic_comes_out_as_printed():
    failed, tried = doctest.testfile(str(BOOK), module_relative=False)
    assert tried == 3
    assert failed == 0


def refresh():
    """Write each quoted function as it is now."""
    text = BOOK.read_text(encoding="utf-8")
    anew = QUOTE.sub(
        lambda q: f"```python {q['file']} {q['name']}\n{source(q['file'], q['name'])}```\n", text
    )
    BOOK.write_text(anew, encoding="utf-8")


if __name__ == "__main__":
    refresh()
