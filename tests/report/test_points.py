"""Log points are read at a glance, and come to the same as events that are looked at closely."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import a_plan, a_step, started

from autotrain.events import Step, from_json, to_json
from autotrain.report import points, result
from autotrain.report.points import FIGURES, SENSED, Points, read, row_of
from autotrain.report.result import collect


def rows(lines):
    """Every log point in these lines, as they are read."""
    found = []
    for each in read(lines):
        found += [row_of(each)] if isinstance(each, Step) else map(tuple, each.tolist())
    return found


FLOATS = st.floats(allow_nan=True, allow_infinity=True)
SENSORS = st.one_of(st.none(), st.floats(0, 1e6))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    step=st.integers(0, 10**12), loss=FLOATS, lr=FLOATS, wait=FLOATS, others=SENSORS, heat=SENSORS,
    slowed=st.sampled_from([None, "thermal slowdown"]), size=st.integers(0, 2**50),
    parts=st.dictionaries(st.text(max_size=5), FLOATS, max_size=3),
)  # fmt: skip
def test_every_step_is_read_as_from_json_reads_it(
    step, loss, lr, wait, others, heat, slowed, size, parts
):
    event = a_step(
        step, loss=loss, lr=lr, wait_seconds=wait, others_cpu=others, gpu_celsius=heat,
        gpu_slowed=slowed, device_bytes=size, parts=parts,
    )  # fmt: skip
    line = to_json(event)
    (found,) = rows([line])
    assert [*map(float, found)] == pytest.approx(
        [*map(float, row_of(from_json(line)))], nan_ok=True, rel=0, abs=0
    )


def test_most_lines_are_read_at_a_glance(monkeypatch):
    """Which is what keeps a report of 100,000 steps quick."""
    monkeypatch.setattr(points, "from_json", pytest.fail)
    (row,) = rows([to_json(a_step(7, others_cpu=0.25)) + "\n"])
    assert len(row) == len(FIGURES) + len(SENSED)
    assert row[0] == 7
    assert row[-1] == 0.25
    assert math.isnan(row[-2])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda d: d | {"loss": "much"},
        lambda d: d | {"step": "7"},
        lambda d: d | {"step": 1.5},
        lambda d: d | {"samples": True},
        lambda d: d | {"more": 1},
        lambda d: {k: v for k, v in d.items() if k != "lr"},
        lambda d: d | {"gpu_watts": [1]},
        lambda d: d | {"parts": {"a": "b"}},
        lambda d: d | {"parts": [1]},
        lambda d: d | {"epoch": 1.5},
        lambda d: d | {"gpu_slowed": 3},
    ],
)
def test_what_is_no_step_is_refused(spoil):
    line = json.dumps(spoil(json.loads(to_json(a_step(7)))))
    assert [*read([line])] == []
    with pytest.raises(ValueError, match="not an event"):
        from_json(line)


@pytest.mark.parametrize("said", ["1-2", "1.2.3", "--4", "1e", "0x10", "9" * 40, "1_000"])
def test_a_number_that_is_none_is_refused_however_it_is_written(said):
    line = to_json(a_step(7, lr=0.5)).replace('"lr": 0.5', f'"lr": {said}')
    assert [*read([line])] == []


def test_keys_in_another_order_are_read_too():
    event = a_step(7)
    data = json.loads(to_json(event))
    line = json.dumps(dict(sorted(data.items())), separators=(",", ":"))
    assert [*read([line])] == [event]


def test_what_comes_again_replaces_what_was_there_across_thousands_of_points():
    """Within what is read at once, and behind it."""
    held = Points()
    steps = [*range(1, 6001), *range(3001, 7001), *range(6990, 7011)]
    for block in read(to_json(a_step(step)) for step in steps):
        held.extend(block, 1)
    assert held.column("step").tolist() == [*range(1, 7011)]
    assert len(held) == 7010
    assert held.between("step", 10, 12).tolist() == [10, 11, 12]


def test_why_a_gpu_was_slow_is_forgotten_with_its_step():
    events = [
        started(),
        a_step(1, gpu_celsius=90.0),
        a_step(2, gpu_celsius=90.0, gpu_slowed="heat"),
    ]
    assert collect(events, a_plan()).sensed["gpu_slowed"] == {"heat": 0.5}
    again = [*events, a_step(2, gpu_celsius=80.0)]
    assert collect(again, a_plan()).sensed["gpu_slowed"] == {}


def test_a_line_of_any_length_is_told_from_its_neighbours_and_the_last_needs_no_end(tmp_path):
    """Many more bytes than are read at once, and one line that is no event's."""
    lines = [to_json(a_step(step)) for step in range(1, 4001)]
    path = tmp_path / "events.jsonl"
    path.write_text("\n".join([*lines[:1000], "x" * (3 << 20), "\r", *lines[1000:]]))
    assert path.stat().st_size > 2 * result.LINE_LENGTH
    assert len(collect(path, a_plan(run={"log_every_steps": 1})).points) == 4000
