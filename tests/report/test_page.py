"""The page of a run: one file, small, that carries nothing of anybody's but as text."""

import json
import math
import re
from html.parser import HTMLParser

import pytest
from invented import KINDS, overfitting
from plans import a_plan, a_run, a_step, evaluated, started, stopped

from autotrain.events import Healed, Warned
from autotrain.report import page
from autotrain.report.diagnosis import Place
from autotrain.report.document import report
from autotrain.report.page import several
from autotrain.report.result import collect
from autotrain.report.versus import One

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\u202e\u2028&amp;'\""


class Tags(HTMLParser):
    """Every tag of a page with its attributes, and all text that is no script or style."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.scripts, self._in = [], "", [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._in = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._in = ""

    def handle_data(self, data):
        if self._in == "script":
            self.scripts[-1] += data
        elif self._in != "style":
            self.text += data


def of(events, plan=None):
    plan = plan or a_plan()
    result = collect(events, plan)
    return page.html(report(result, plan, Place("runs/x/plan.toml", "plan.toml")), result, plan)


def strange_run():
    metric = f"m{EVIL}"
    at = {"step": 3, "epoch": 1}
    return [
        started(monitor=metric, device=f"cpu{EVIL}"), *map(a_step, range(1, 60)),
        evaluated(20, 0.5, best=True, metrics={metric: 0.5, EVIL: 1.0}),
        Warned(**at, message=EVIL, advice=EVIL),
        Healed(**at, fault=f"the loss became nan {EVIL}", cure=EVIL, cost_seconds=0),
        stopped(60, "error", detail=EVIL),
    ]  # fmt: skip


def test_what_strangers_wrote_is_text_and_nothing_else():
    because = {"train": {"epochs": {**a_plan().because["train"]["epochs"].model_dump(),
                                    "formula": EVIL}}}  # fmt: skip
    plan = a_plan(made_by=EVIL, because=because)
    found, plain = Tags(of(strange_run(), plan)), Tags(of(a_run(3)))
    assert [tag for tag, _ in found.tags].count("script") == 2
    assert not {"img", "iframe", "object", "link", "base"} & {tag for tag, _ in found.tags}
    assert not [name for _, attrs in found.tags for name in attrs if name.startswith("on")]
    assert found.scripts[1] == plain.scripts[1]
    assert "alert(1)" in found.text
    names = [
        line["name"] for each in json.loads(found.scripts[0])["panels"] for line in each["lines"]
    ]
    assert "training" in names


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_asks_nothing_of_a_network_and_runs_no_script_but_its_own(kind):
    result, plan = KINDS[kind](1).result()
    text = page.html(report(result, plan, Place()), result, plan)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)[1]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    for tag, attrs in Tags(text).tags:
        assert not {"src", "href", "style", "srcset", "action"} & {*attrs}, tag
    assert not re.search(
        r"(https?:)?//(?!www\.w3\.org/2000/svg)\w", Tags(text).scripts[1].replace("// ", "")
    )


def test_the_page_says_what_the_report_says():
    result, plan = overfitting(3, epochs=30, per_epoch=40).result()
    said = report(result, plan, Place("runs/x/plan.toml", "plan.toml"))
    text = " ".join(Tags(page.html(said, result, plan)).text.split())
    (finding,) = said.diagnosis.findings
    assert f"overfitting, since epoch {finding.since_epoch}" in text
    assert finding.evidence in text
    assert finding.command in text
    for name in ("tensor peak", "reserved", "memory peak", "one step", "whole run", "checkpoint"):
        assert name in text


def test_what_a_plan_says_of_somebodys_disk_is_left_out():
    plan = a_plan(
        task={"data": "/home/ann/secret"}, run={"directory": "/home/ann/runs"},
        checkpoint={"mirror": "s3://anns-bucket/x"},
    )  # fmt: skip
    text = of(a_run(3), plan)
    assert "ann" not in text.replace("channel", "").replace("planned", "")


@pytest.mark.parametrize(
    "events",
    [[], [started()], [started(), a_step(1)], [started(), a_step(1, loss=float("nan"))],
     [started(), a_step(1, loss=-3.0), a_step(2, loss=4e38), evaluated(2, math.inf, best=True)]],
)  # fmt: skip
def test_a_run_with_little_or_odd_content_has_a_page(events):
    found = Tags(of(events))
    assert [tag for tag, _ in found.tags].count("figure") == 6


def test_a_run_of_100_000_steps_has_a_page_of_well_under_3_mb():
    """With a spike in it that is still seen, and a log point each step."""
    steps = [
        a_step(n, per_epoch=1000, loss=50.0 if n == 77_777 else 1.0) for n in range(1, 100_001)
    ]
    text = of([started(epochs=100, per_epoch=1000), *steps])
    assert len(text) < 1_000_000
    loss = json.loads(Tags(text).scripts[0])["panels"][0]
    assert loss["y"][1] > 50


def compared(*names):
    """The page of as many runs."""
    runs = []
    for name in names:
        result, plan = overfitting(len(name)).result()
        runs.append(One(name, plan, result, report(result, plan, Place())))
    return several.html(runs)


def test_more_runs_than_colours_are_told_of_and_those_without_a_curve_named():
    text = Tags(compared(*"abcdefg")).text
    assert "7 runs" in text
    assert "of the first 5 runs; not drawn: f, g" in text
    assert "not drawn" not in compared(*"abcde")


def test_runs_that_are_compared_share_a_page():
    found = Tags(compared("a", EVIL))
    assert [tag for tag, _ in found.tags].count("script") == 2
    assert "alert(1)" in found.text
    panels = json.loads(found.scripts[0])["panels"]
    assert panels[0]["lines"][0]["name"] == "a"
