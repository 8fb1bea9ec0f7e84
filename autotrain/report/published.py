"""The JSON Schema of `report.json`; as a module it prints docs/report.schema.json."""

from __future__ import annotations

import json
from typing import Any

from autotrain.report.document import RunReport, StagesReport


def json_schema() -> dict[str, Any]:
    """JSON Schema of both kinds of `report.json`."""
    from pydantic import TypeAdapter

    adapter: TypeAdapter[RunReport | StagesReport] = TypeAdapter(RunReport | StagesReport)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "autotrain report.json",
        **adapter.json_schema(),
    }


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=1))
