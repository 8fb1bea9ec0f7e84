"""Several machines in one table: what it says on a terminal, in a pipe, and to programs."""

import io
import json
import re

import pytest

from autotrain.plan.planner import make_plan
from autotrain.report.compare_text import Row, as_json, best, cost, ordered, show
from autotrain.units import money_text
from tests.plan.profiles import GIB, dataset, device, goal, machine, model, rates


def row(name, speed=1.0, price=None, **wish):
    hardware = machine(device("cuda", 8 * GIB, rates=rates(speed)), price_per_hour=price)
    plan = make_plan(hardware, dataset(), model(), goal(**wish), version="0.1.0")
    return Row(name, "bench", "a cuda", plan)


@pytest.fixture(scope="module")
def rows():
    return [
        row("slow", 0.1, 0.36),
        Row("tiny", "tiny", "a card", None, "one sample needs 9 GiB", "--set memory.share=0.95"),
        row("fast", 100.0, 36.0),
        row("own"),
    ]


def printed(rows, terminal=False):
    out = io.StringIO()
    out.isatty = lambda: terminal
    show(rows, out)
    return out.getvalue()


def test_the_fastest_stands_first_and_what_does_not_fit_last(rows):
    assert [each.machine for each in ordered(rows)] == ["fast", "own", "slow", "tiny"]


def test_a_run_costs_its_hours_at_the_price_of_one(rows):
    slow = rows[0]
    seconds, dollars = slow.plan.predicted.run_seconds, cost(slow)
    assert dollars.expected == pytest.approx(seconds.expected * 0.0001)
    assert dollars.low == pytest.approx(seconds.low * 0.0001)
    assert dollars.high == pytest.approx(seconds.high * 0.0001)
    assert cost(rows[1]) is None
    assert cost(rows[3]) is None


def test_a_row_of_some_of_the_gpus_says_so_and_one_of_several_machines_costs_them_all(rows):
    eight = row("eight", 1.0, 30.0)._replace(gpus=8)
    assert "eight: its row is of 1 of its 8 GPUs, at the price of all of it" in printed([eight])
    assert "its row" not in printed([eight._replace(gpus=1)])
    four = row("four", 1.0, 30.0, batch__world_size=4)
    alone, shared = four._replace(gpus=1), four._replace(gpus=4)
    assert cost(alone).expected == pytest.approx(4 * cost(shared).expected)
    assert "it takes 4 such machines" in " ".join(printed([alone]).split())
    assert "its row" not in printed([shared])
    said = as_json([eight, alone])["machines"]
    assert {
        each["machine"]: (each["world_size"], each["gpus"], each["machines"]) for each in said
    } == {"eight": (1, 8, 1), "four": (4, 1, 4)}


def test_the_fastest_and_the_cheapest_are_named(rows):
    assert best(rows).fastest.machine == "fast"
    assert best(rows).cheapest.machine == "slow"
    last = " ".join(printed(rows).rpartition("\n\n")[2].split())
    assert last.startswith("fastest: fast, ")
    assert "; cheapest: slow, $" in last
    assert best(rows[1:2]) == (None, None, False)


def test_runs_that_a_limit_cuts_to_different_lengths_are_ranked_by_epochs():
    """The machine that stops soonest is not the fastest, nor the cheapest because it does least."""
    dear = row("dear", 10.0, 9.0, train__within_seconds=60.0)
    cheap = row("cheap", 0.05, 0.1, train__within_seconds=60.0)
    done, cut = dear.plan.train.epochs, cheap.plan.train.epochs
    assert done > cut
    assert [each.machine for each in ordered([cheap, dear])] == ["dear", "cheap"]
    found = best([cheap, dear])
    assert (found.fastest.machine, found.limited) == ("dear", True)
    each = {r.machine: cost(r).expected / r.plan.train.epochs for r in (dear, cheap)}
    assert found.cheapest.machine == min(each, key=each.get)
    text = printed([cheap, dear])
    assert f"most epochs within the limit: dear, {done} in " in text
    assert f"cheapest epoch: {found.cheapest.machine}, {money_text(min(each.values()))}" in text
    assert "fastest" not in text
    assert as_json([cheap, dear])["limited"] is True
    same = [row(name, speed, train__within_seconds=1e9) for name, speed in (("a", 1), ("b", 9))]
    assert best(same).limited is False
    assert "fastest: b" in printed(same)


def test_hardware_of_ones_own_costs_nothing_and_is_the_cheapest(rows):
    own = row("own", 0.1, 0.0)
    assert cost(own).expected == 0
    assert best([*rows, own]).cheapest is own
    assert "cheapest: own, $0;" in printed([rows[0], own])


def test_a_pipe_gets_aligned_lines_and_blanks_where_nothing_is_known(rows):
    heading, *lines = printed(rows).splitlines()
    assert heading.split()[:4] == ["machine", "fits", "batch", "precision"]
    assert [line.split()[:2] for line in lines[:4]] == [
        ["fast", "yes"], ["own", "yes"], ["slow", "yes"], ["tiny", "no"],
    ]  # fmt: skip
    assert lines[3] == "tiny       no"
    assert "$" not in lines[1]
    assert "$" in lines[0]
    assert lines[5] == "tiny: one sample needs 9 GiB; --set memory.share=0.95"
    assert "\x1b" not in printed(rows)


def test_a_terminal_gets_the_same_cells_in_its_width(rows, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    shown = printed(rows, terminal=True)
    for word in ("machine", "fast", "tiny", "bf16", "fastest: fast"):
        assert word in shown
    monkeypatch.setenv("COLUMNS", "70")
    narrow = re.sub(r"\x1b\[[0-9;]*m", "", printed(rows, terminal=True))
    assert all(len(line) <= 70 for line in narrow.splitlines())


def test_columns_that_say_nothing_are_left_out(rows):
    free = printed([rows[3], rows[3]._replace(machine="twin")])
    assert "cost" not in free
    assert "epochs" not in free
    limited = printed([rows[3], row("short", train__epochs=2)])
    assert "epochs" in limited.splitlines()[0]
    assert printed([rows[1]]).splitlines()[0].split() == ["machine", "fits"]


def test_programs_get_numbers_in_base_units(rows):
    found = json.loads(json.dumps(as_json(rows)))
    assert (found["fastest"], found["cheapest"]) == ("fast", "slow")
    first, *_, last = found["machines"]
    plan = rows[2].plan
    assert first["step_seconds"] == plan.predicted.step_seconds.model_dump()
    assert first["micro_batch"] * first["accum_steps"] == first["global_batch"]
    assert first["price_per_hour"] == 36.0
    assert set(first["cost_dollars"]) == {"low", "expected", "high"}
    assert last == {
        "machine": "tiny", "name": "tiny", "device": "a card", "fits": False,
        "why": "one sample needs 9 GiB", "remedy": "--set memory.share=0.95",
    }  # fmt: skip


def test_a_machines_name_cannot_play_tricks_on_a_terminal(rows):
    assert "\x1b" not in printed([rows[0]._replace(machine="bad\x1b[31mname")])
    assert "\x1b" not in printed([rows[1]._replace(machine="bad\x1b[31m", why="\x1b[2J")])


@pytest.mark.parametrize(
    ("dollars", "text"),
    [
        (0.0, "$0"), (0.00001, "under $0.0001"), (0.01234, "$0.012"), (0.5, "$0.5"), (1.5, "$1.50"),
        (12.345, "$12.35"), (99.999, "$100.00"), (1234.5, "$1,234"),
    ],
)  # fmt: skip
def test_money_is_said_as_people_say_it(dollars, text):
    assert money_text(dollars) == text
