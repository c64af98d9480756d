from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema

from pytest_madengine.reporting.summaryfile import Summary
from pytest_madengine.results.comparison import Judgement
from pytest_madengine.results.perf import FAILURE
from pytest_madengine.results.result import Result, Usage
from pytest_madengine.secrets import Masker
from tests.golden import compare
from tests.reporting.told import compared, of_a_run, result

GOLDEN = Path(__file__).parent / "golden"
SCHEMA = Path(__file__).parents[2] / "docs" / "summary.schema.json"
RUN = {"run": "20260314-a", "target": "host"}


def written(folder: Path, results: list[Result], exit_status: int = 0, mask: str = "unlikely") -> dict[str, Any]:
    path = folder / "summary.json"
    Summary(path, RUN, Masker([mask])).conclude(results, exit_status)
    content: dict[str, Any] = json.loads(path.read_text(), parse_constant=None)
    jsonschema.validate(content, json.loads(SCHEMA.read_text()))
    return content


def test_a_run_as_json(tmp_path: Path) -> None:
    content = written(tmp_path, of_a_run(), 1)
    compare(json.dumps(content, indent=1) + "\n", GOLDEN / "summary.json")


def test_the_schema_knows_every_key(tmp_path: Path) -> None:
    used = Usage("W", 1.0, 2.0, 3.0, "power.csv")
    (entry,) = written(tmp_path, [replace(of_a_run()[1], usage={"power": used}, notes=("a",))])["results"]
    schema = json.loads(SCHEMA.read_text())
    assert entry.keys() == schema["$defs"]["result"]["properties"].keys()
    assert entry["verdicts"][0].keys() == schema["$defs"]["verdict"]["properties"].keys()
    assert entry["metrics"][0].keys() == schema["$defs"]["metric"]["properties"].keys()


def test_an_item_that_was_tried_again_is_one_result(tmp_path: Path) -> None:
    content = written(tmp_path, of_a_run())
    (flaky,) = [each for each in content["results"] if each["model"] == "flaky"]
    assert (flaky["status"], flaky["attempt"]) == ("SUCCESS", 2)
    assert [(each["id"], each["failure"]) for each in flaky["earlier"]] == [("flaky-1", "infrastructure")]


def test_a_number_that_is_none_becomes_null(tmp_path: Path) -> None:
    odd = replace(compared("m", Judgement.NONE), change=math.inf, reference=math.nan)
    (entry,) = written(tmp_path, [result("m", comparisons=(odd,))])["results"]
    assert (entry["verdicts"][0]["change"], entry["verdicts"][0]["reference"]) == (None, None)


def test_secrets_are_hidden_without_breaking_the_file(tmp_path: Path) -> None:
    odd = '", "x": "'
    (entry,) = written(tmp_path, [result("m", FAILURE, reason=f"a{odd}b")], mask=odd)["results"]
    assert entry["reason"] == "a***b"


def test_without_models_it_says_so(tmp_path: Path) -> None:
    content = written(tmp_path, [], 5)
    assert (content["results"], content["exit_status"]) == ([], 5)
    assert content["counts"]["statuses"] == {"SUCCESS": 0, "FAILURE": 0, "SKIPPED": 0}
