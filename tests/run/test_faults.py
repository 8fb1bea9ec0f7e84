"""Faults put into whole runs at random places: each is healed, or its cause is named."""

import importlib.util
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "benchmarks" / "faults.py"
SPEC = importlib.util.spec_from_file_location("benchmark_faults", PATH)
faults = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(faults)

RUNS = 3
LOADER = ("killed", "hang", "sample")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in LOADER else ()) for n in faults.CASES]
)
def test_every_fault_is_healed_or_named(name):
    """What lasts is named, all else healed; where memory ran out, but for rounding."""
    found, furthest = faults.measured(name, RUNS, 7)
    assert found == {("named" if name == "lasting" else "healed"): RUNS}
    assert furthest < 1e-6
