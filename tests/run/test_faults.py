"""Faults put into whole runs at random places: each is healed, or its cause is named."""

import importlib.util
import random
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "benchmarks" / "faults.py"
SPEC = importlib.util.spec_from_file_location("benchmark_faults", PATH)
faults = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(faults)

RUNS = 3
LOADER = ("killed", "hang", "sample")


@pytest.fixture(scope="module")
def sound():
    """A run that met no fault at all: nothing is told of it."""
    made = faults.carry_out(faults.plan_of(7, 0), faults.Case(faults.task_of()))
    assert not [event for event in made.events if event.name in ("healed", "warned")]
    return made


@pytest.mark.parametrize("name", faults.CASES)
def test_a_run_that_met_no_fault_is_not_healed(name, sound):
    assert faults.judged(sound, faults.CASES[name](random.Random(7))) == "finished, fault not told"


def test_the_word_of_another_fault_heals_none():
    """Steps that were NaN, judged as if memory had run out, or other steps had been spoilt."""
    case = faults.CASES["nan"](random.Random(7))
    made = faults.carry_out(faults.plan_of(7, 0), case)
    assert faults.judged(made, case) == "healed"
    for name in set(faults.CASES) - {"nan"}:
        assert faults.judged(made, faults.CASES[name](random.Random(7))) != "healed"
    other = faults.steps_of({1, 2}, "the loss became nan", all_told=True)
    assert faults.judged(made, case._replace(told_by=other)) != "healed"


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in LOADER else ()) for n in faults.CASES]
)
def test_every_fault_is_healed_or_named(name):
    """What lasts is named, all else healed; where memory ran out, but for rounding."""
    found, furthest = faults.measured(name, RUNS, 7)
    assert found == {("named" if name == "lasting" else "healed"): RUNS}
    assert furthest < 1e-6
