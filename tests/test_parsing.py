"""What is asked of TOML and JSON before it is parsed, and that what passes is parsed as it is."""

import contextlib
import json
import sys
import time
import tomllib

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from autotrain import parsing

KEY = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=8)
VALUE = st.recursive(
    st.booleans() | st.integers(-(1 << 63), (1 << 63) - 1) | KEY
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEY, inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(st.dictionaries(KEY, VALUE, max_size=6))
def test_what_a_person_writes_is_parsed_as_it_is(tree):
    """Strings full of brackets, quotes and dots do not count as nesting."""
    raw = tomli_w.dumps(tree).encode()
    assert parsing.toml(raw) == tomllib.loads(raw.decode())
    raw = json.dumps(tree).encode()
    assert parsing.from_json(raw) == tree


@pytest.mark.parametrize("text", [
    "'[[[[[['", '"[[[[\\"[["', "'''\n[[[[''[\n'''", '"""\n[[[""[\\"""["""', '""""[["""""',
    "1 # [[[",
    '"a.a.a.a.a.a.a.a.a"',
])  # fmt: skip
def test_strings_and_comments_say_nothing_of_nesting(text, monkeypatch):
    monkeypatch.setattr(parsing, "DEPTH", 3)
    assert parsing.toml(f"a = {text}".encode()) == tomllib.loads(f"a = {text}")


@pytest.mark.parametrize(("text", "why"), [
    ("a = " + "[" * 33 + "]" * 33, "nested deeper"), ("a." * 33 + "b = 1", "nested deeper"),
    ("[" + "a." * 33 + "b]", "nested deeper"), ("a = " + "{b = " * 33, "nested deeper"),
    ('x = {a = """a"""", ' + "a." * 40 + "b = 1}", "nested deeper"),
    ("a . 'b' . " * 20 + "c = 1", "nested deeper"),
    ("a = 1\n" * 20_001, "more than 20,000 values"), ("[[stage]]\n" * 10_001, "more than 20,000"),
    ("a = 9223372036854775808", "a: a number of more than 64 bits"),
    ("[a]\nb = [1, 0x" + "f" * 5000 + "]", r"a\.b\.1: a number of more than 64 bits"),
    ("a = inf", "a: inf should be a finite number"), ("a = nan", "a: nan should be"),
    ("a = '" + "x" * 65_537 + "'", "a: a text of more than 65,536"),
    ("x" * 65_537 + " = 1", "a key of more than 65,536"), ("#" * (1 << 20) + "\n",
    "larger than 1 MiB"),
])  # fmt: skip
def test_toml_beyond_what_anybody_writes_is_refused(text, why):
    with pytest.raises(parsing.TooMuchError, match=why):
        parsing.toml(text.encode())


@pytest.mark.parametrize(("text", "why"), [
    ("[" * 100_000, "nested too deeply"), ("-9223372036854775809", "64 bits"), ("9" * 5000,
    "64 bits"),
    ("[" + "{}," * 500_000 + "0]", "more than 1,000,000"), (" " * (16 << 20) + "1",
    "larger than 16"),
])  # fmt: skip
def test_json_beyond_what_a_run_writes_is_refused(text, why):
    with pytest.raises(parsing.TooMuchError, match=why):
        parsing.from_json(text.encode())


@pytest.mark.parametrize("text", [
    "a." * 500_000 + "b = 1", "[" * 1_000_000, '"""\\' * 250_000, "'''" * 340_000, '"\n' * 500_000,
    "a" * 1_000_000, "a " * 500_000, '"' + "\\" * 1_000_000, "#\n" * 500_000, "a=1\r\n" * 19_000,
    "a = [" + "1," * 19_000 + "]", "".join(f"[a{n}]\n" for n in range(19_000)),
])  # fmt: skip
def test_what_is_meant_to_take_long_is_told_soon(text):
    """The time grows with the length, not with its square."""
    begun = time.process_time()
    with contextlib.suppress(ValueError):
        parsing.toml(text.encode())
    assert time.process_time() - begun < 1.0


def test_nothing_is_interpolated_and_nothing_imported(monkeypatch):
    """A text is what stands there."""
    monkeypatch.setenv("HOME", "/home/someone")
    texts = [
        "${HOME}",
        "~",
        "%(HOME)s",
        "{run.name}",
        "{{7*7}}",
        "$(id)",
        "this:that",
        "antigravity",
    ]
    before = {*sys.modules}
    assert parsing.toml(tomli_w.dumps({"a": texts}).encode()) == {"a": texts}
    assert {*sys.modules} == before


def test_a_text_that_no_path_can_be_is_refused_by_its_key():
    with pytest.raises(ValueError, match=r"run\.directory: a text with a NUL"):
        parsing.toml(b'[run]\ndirectory = "runs/\\u0000x"\n')
