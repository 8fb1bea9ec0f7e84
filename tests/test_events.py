import json
import math
import re
import time
from dataclasses import fields
from typing import get_args, get_type_hints

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from autotrain.events import Evaluated, Event, Step, Stopped, Warned, from_json, to_json

KINDS = get_args(Event)


def instances(kind):
    hints = get_type_hints(kind)
    return st.builds(kind, **{f.name: st.from_type(hints[f.name]) for f in fields(kind)})


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None)
@given(data=st.data())
def test_every_event_survives_its_line(kind, data):
    """NaN and infinity too, in nested figures too; text that reads `nan` stays text."""
    event = data.draw(instances(kind))
    line = to_json(event)
    assume(not re.search(r"\d{19}", line))  # no machine counts so far
    assert "\n" not in line
    assert repr(from_json(line)) == repr(event)  # NaN is not equal to itself; its name is


@pytest.mark.parametrize("text", ["nan", "inf", "-inf"])
def test_a_text_that_names_a_float_stays_a_text(text):
    warned = Warned(step=1, epoch=0, message=text, advice=text)
    stopped = Stopped(
        step=1, epoch=0, reason="error", detail=text, best=None, best_step=None, seconds=1.0,
        checkpoint=text,
    )  # fmt: skip
    assert from_json(to_json(warned)) == warned
    assert from_json(to_json(stopped)) == stopped


def test_a_line_is_strict_json_that_opens_with_the_event():
    step = Step(
        step=3, epoch=0, time=1.0, loss=math.nan, parts={"ctc": -math.inf}, lr=1e-3,
        grad_norm=math.inf, samples=8, weight=8.0, step_seconds=0.1, wait_seconds=0.0,
        device_bytes=0, peak_bytes=0,
    )  # fmt: skip
    line = to_json(step)
    assert line.startswith('{"event": "step"')
    assert json.loads(line, parse_constant=pytest.fail)["parts"] == {"ctc": "-inf"}
    assert from_json(line).parts == {"ctc": -math.inf}


@pytest.mark.parametrize(
    "line",
    [
        "", "nonsense", '{"event": "step", "st', "[]", "3", "{}", '{"event": "gone"}',
        '{"event": []}', '{"event": "warned"}', '{"event": "warned", "step": 1, "unknown": 2}',
        '{"event": "warned", "step": "1", "epoch": 0, "message": "x"}',
        '{"event": "warned", "step": true, "epoch": 0, "message": "x"}',
        '{"event": "warned", "step": 1, "epoch": 0, "message": ["x"]}',
        '{"event": "warned", "step": 1, "epoch": 0, "message": "x", "time": "soon"}',
        f'{{"event": "warned", "step": {10**30}, "epoch": 0, "message": "x"}}',
        '{"event": "evaluated", "step": 1, "epoch": 0, "loss": 1, "metrics": {"a": "b"}, '
        '"best": true, "bad_evaluations": 0, "seconds": 1}',
        '{"event": "stopped", "step": 1, "epoch": 0, "reason": "tired", "detail": "", "best": null,'
        ' "best_step": null, "seconds": 1, "checkpoint": null}',
        "[" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_event_is_refused(line):
    with pytest.raises(ValueError, match=r"."):
        from_json(line)


def test_an_event_is_stamped_when_it_is_made():
    before = time.time()
    assert before <= Warned(step=0, epoch=0, message="x").time <= time.time()


def test_an_event_cannot_be_changed():
    event = Evaluated(
        step=1, epoch=0, loss=1.0, metrics={}, best=True, bad_evaluations=0, seconds=0.1
    )
    with pytest.raises(AttributeError):
        event.loss = 0.0
