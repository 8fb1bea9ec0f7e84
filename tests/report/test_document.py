"""`report.json` keeps to its published schema."""

import json
from pathlib import Path

import pytest
from invented import KINDS
from plans import a_plan, a_run, started

from autotrain.report.diagnosis import Place
from autotrain.report.document import as_json, report
from autotrain.report.published import json_schema
from autotrain.report.result import collect

PUBLISHED = Path(__file__).parents[2] / "docs" / "report.schema.json"


def test_the_published_schema_is_the_one_of_the_code():
    """After a change: python -m autotrain.report.published > docs/report.schema.json"""
    assert json.loads(PUBLISHED.read_text(encoding="utf-8")) == json_schema()


@pytest.mark.parametrize("kind", ["empty", "begun", "whole", *KINDS])
def test_reports_of_every_kind_of_run_fit_the_schema(kind):
    jsonschema = pytest.importorskip("jsonschema")
    few = {"empty": [], "begun": [started()], "whole": a_run(10)}
    plan = a_plan()
    result, plan = (collect(few[kind], plan), plan) if kind in few else KINDS[kind](1).result()
    content = as_json(report(result, plan, Place("runs/x/plan.toml", "plan.toml")))
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(content, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**content, "steps": "many"}, schema)


def test_the_diagnosis_is_in_it_with_the_line_to_type():
    result, plan = KINDS["plateau"](1).result()
    found = as_json(report(result, plan, Place("a b/plan.toml", "plan.toml")))["diagnosis"]
    assert found["verdict"] == "plateau"
    (finding,) = found["findings"]
    assert finding["changes"] == {"optimizer.lr": "0.0005"}
    assert finding["command"] == (
        "autotrain plan --refresh 'a b/plan.toml' --set optimizer.lr=0.0005 -o plan.toml"
    )
