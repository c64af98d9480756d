from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pytest_madengine.results.comparison import Comparison, Judgement
from pytest_madengine.results.documents import (
    LARGEST,
    MOST_FAULTS,
    Document,
    Line,
    keyed,
    of_lines,
    of_result,
    plain,
    typed,
    unkeyed,
)
from pytest_madengine.results.judge import single
from pytest_madengine.results.metric import Metric
from pytest_madengine.results.perf import SUCCESS
from pytest_madengine.results.result import Result, Row
from pytest_madengine.secrets import Masker

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


def result(run: str = "run1", **more: Any) -> Result:
    rows = single({"model": "m", "n_gpus": "8", "performance": "12.5", "git_commit": "0123456"}, SUCCESS)
    return replace(Result(f"madengine-{run}-m", "models.json::m", "m", SUCCESS, rows, run=run), **more)


def lines(*cells: dict[str, Any]) -> list[Line]:
    return [Line(f"perf.csv:{number}", each) for number, each in enumerate(cells, 2)]


def test_a_result_gives_a_document_for_each_row_with_its_columns_and_all_else() -> None:
    (document,) = of_result(result(hosts=("node1",), digest="sha256:1"), "")
    assert document.key == {"_id": "run1/madengine-run1-m/0"}
    assert document.title == "models.json::m, row m"
    shown = {name: document.content[name] for name in ("model", "n_gpus", "performance", "git_commit", "pipeline")}
    assert shown == {"model": "m", "n_gpus": 8, "performance": 12.5, "git_commit": "0123456", "pipeline": None}
    assert (document.content["hosts"], document.content["digest"]) == (["node1"], "sha256:1")


def test_each_run_attempt_and_row_has_a_document_of_its_own() -> None:
    several = tuple(Row({**result().rows[0].columns, "model": f"m_{number}"}) for number in range(2))
    results = [result(), result(run="run2"), result(id="madengine-run1-m-2"), result(id="x", rows=several)]
    keys = [document.key["_id"] for each in results for document in of_result(each, "")]
    assert len(set(keys)) == 5


def test_the_run_is_told_where_the_result_does_not_say_it() -> None:
    (document,) = of_result(result(run="", id="models.json::m"), "run7")
    assert document.key == {"_id": "run7/models.json::m/0"}
    assert document.content["run"] == "run7"


def test_metrics_and_comparisons_stand_with_their_row() -> None:
    metrics = tuple(Metric(f"m_{number}", "performance", 1.0) for number in range(2))
    rows = tuple(Row({"model": f"m_{number}"}) for number in range(2))
    compared = (Comparison(metrics[1], Judgement.REGRESSION, gates=True),)
    one, other = of_result(result(rows=rows, metrics=metrics, comparisons=compared), "")
    assert [each["row"] for each in one.content["metrics"]] == ["m_0"]
    assert one.content["comparisons"] == []
    assert [each["judgement"] for each in other.content["comparisons"]] == ["regression"]


def test_secrets_of_a_result_are_hidden() -> None:
    (document,) = of_result(result(reason="no login with hunter22"), "", Masker(["hunter22"]))
    assert document.content["reason"] == "no login with ***"


def test_equal_rows_of_a_file_are_told_apart_and_keep_their_keys_as_the_file_grows() -> None:
    row = {"model": "m", "status": "FAILURE"}
    keys = [document.key["_id"] for document in of_lines(lines(row, {**row, "model": "n"}, row), "/a/perf.csv")]
    again = [document.key["_id"] for document in of_lines(lines(row, {**row, "model": "n"}, row, row), "/a/perf.csv")]
    assert len(set(keys)) == 3
    assert again[:3] == keys


def test_equal_rows_of_two_files_are_two() -> None:
    (one,), (other,) = (of_lines(lines({"model": "m"}), file) for file in ("/a/perf.csv", "/b/perf.csv"))
    assert one.key != other.key


def test_a_row_that_says_its_run_is_found_by_it_in_whatever_file_it_stands() -> None:
    rows = [{"run": "run1", "model": "m", "performance": value} for value in ("1", "2")]
    keys = [document.key["_id"] for document in of_lines(lines(*rows), "/a")]
    assert keys == ["run1/m/0", "run1/m/1"]
    assert [document.key["_id"] for document in of_lines(lines(*rows), "/b")] == keys


def test_rows_of_a_run_are_told_apart_whatever_else_is_in_the_file() -> None:
    rows = [{"run": "run1", "model": "m", "row": f"m_{number}", "attempt": "1", "metric": "x"} for number in range(3)]
    keys = [document.key["_id"] for document in of_lines(lines(*rows), "/a")]
    assert keys == [f"run1/m/m_{number}/1/x/0" for number in range(3)]
    assert [document.key["_id"] for document in of_lines(lines(rows[2]), "/b")] == keys[2:]


def test_an_id_of_its_own_is_kept() -> None:
    (document,) = of_lines(lines({"_id": "mine", "model": "m"}), "/a")
    assert (document.key, document.content) == ({"_id": "mine"}, {"model": "m"})


def test_documents_are_found_by_other_fields_if_wanted() -> None:
    (document,) = keyed(of_lines(lines({"model": "m", "build_number": "7"}), "/a"), ("model", "build_number"))
    assert document.key == {"model": "m", "build_number": 7}


def test_fields_that_are_missing_or_empty_are_no_key() -> None:
    found = unkeyed(of_lines(lines({"model": "m", "date": ""}, {"model": "n", "date": "1"}), "/a"), ("date", "modle"))
    assert [str(each) for each in found] == [
        "--unique-key: perf.csv:2: nothing stands in 'date'; valid: fields that every row fills",
        "--unique-key: perf.csv:2: no field 'modle'; valid: model; did you mean 'model'?",
        "--unique-key: perf.csv:3: no field 'modle'; valid: date, model; did you mean 'model'?",
    ]


def test_a_long_file_does_not_give_a_long_message() -> None:
    many = [Document({}, {}, str(number)) for number in range(1000)]
    assert len(unkeyed(many, ("model",))) == MOST_FAULTS


def test_cells_are_numbers_lists_and_objects_where_they_are_written_so() -> None:
    cells = {
        "performance": "1234.50",
        "n_gpus": "8",
        "git_commit": "1234567",
        "tags": "1",
        "build_number": "0042",
        "extra": "-1.5e-3",
        "configs": '{"a": [1]}',
        "list": "[1, 2",
        "empty": "",
        "missing": "NaN",
        "precision": "None",
    }
    assert typed(cells) == {
        "performance": 1234.5,
        "n_gpus": 8,
        "git_commit": "1234567",
        "tags": "1",
        "build_number": "0042",
        "extra": -0.0015,
        "configs": {"a": [1]},
        "list": "[1, 2",
        "empty": None,
        "missing": None,
        "precision": "None",
    }


def test_names_that_no_query_could_use_are_mended_and_none_is_lost() -> None:
    assert plain({"p99.ms": 1, "p99_ms": 2, "$x": 3, "a\0b": {"c.d": 4}}) == {
        "p99_ms": 1,
        "p99_ms_": 2,
        "_x": 3,
        "a_b": {"c_d": 4},
    }


def _allowed(value: Any) -> bool:
    if isinstance(value, dict):
        return all("." not in key and not key.startswith("$") and "\0" not in key for key in value) and all(
            map(_allowed, value.values())
        )
    if isinstance(value, list):
        return all(map(_allowed, value))
    if isinstance(value, int):
        return -LARGEST <= value < LARGEST
    return not (isinstance(value, float) and math.isnan(value))


@given(JSON)
def test_whatever_json_holds_becomes_something_that_a_database_can_hold(value: Any) -> None:
    made = plain(value)
    assert _allowed(made)
    json.dumps(made, ensure_ascii=False).encode()


@given(st.dictionaries(st.text(min_size=1), st.text()))
def test_whatever_a_cell_holds_has_a_type(cells: dict[str, str]) -> None:
    assert typed(cells).keys() == cells.keys()
