"""docs/doctor.md lists the checks as they are."""

import re
from pathlib import Path

from autotrain.doctor.checks import CHECKS, FOR_PLAN

DOC = Path(__file__).parents[2] / "docs/doctor.md"


def row(check):
    """Of the table: where it is shown, its name, how things should be."""
    return f"| {check.theme} | {check.name} | {check.look.__doc__.splitlines()[0]} |"


def test_the_table_of_checks_is_theirs():
    rows = re.findall(r"^\| (?:\w+) \| .* \|$", DOC.read_text(), re.MULTILINE)
    listed = [line for line in rows if not line.startswith(("| in ", "| theme "))]
    assert listed == [row(check) for check in (*CHECKS, *FOR_PLAN)]


def test_the_readme_counts_them():
    assert f"\n{len(CHECKS)} checks, " in DOC.parents[1].joinpath("README.md").read_text()


def test_each_check_has_a_name_of_its_own():
    names = [(check.theme, check.name) for check in (*CHECKS, *FOR_PLAN)]
    assert len(set(names)) == len(names)
    assert len(CHECKS) >= 60
