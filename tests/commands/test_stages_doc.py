"""docs/stages.md, as a reader would follow it."""

import json
import re
import shlex
import tomllib
from pathlib import Path

from autotrain.events import from_json

PAGE = (Path(__file__).parent.parent.parent / "docs/stages.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_the_page_trains_as_it_says(tmp_path, at, monkeypatch):
    folder = tmp_path / "points"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (folder / "task.py").write_text(blocks("python")[0])
    (folder / "template.toml").write_text(blocks("toml")[0])
    commands = [shlex.split(line)[1:] for line in blocks("sh")[0].splitlines()]
    assert [words[0] for words in commands] == ["plan", "explain", "run"]
    for words in commands:
        said = at(*words)
        assert said.code == 0
    expected = blocks("")[0].splitlines()
    assert expected[0] in said.err
    assert expected[1].partition("...; ")[2] in said.err
    run = folder / "runs/points"
    assert sorted(p.name for p in run.iterdir() if p.is_dir()) == ["1-encoder", "2-head", "3-both"]
    reasons = [
        s["stopped"]["reason"] for s in json.loads((run / "report.json").read_text())["stages"]
    ]
    assert set(reasons) <= {"finished", "early_stop"}
    first = from_json((run / "3-both/events.jsonl").read_text().splitlines()[0])
    assert first.weights_taken == "encoder.*: 4 tensors taken over; head.*: 2 taken over"


def test_the_part_of_a_plan_that_is_shown_is_one(tmp_path):
    held = tomllib.loads(blocks("toml")[1])
    template = tomllib.loads(blocks("toml")[0])
    assert held["stage"][0]["name"] in [stage["name"] for stage in template["stage"]]
    assert held["stage"][0]["task"]["options"] == {"goal": "classify"}
