from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_madengine.results.perf import FAILURE, PERF_COLUMNS, SKIPPED, SUCCESS
from pytest_madengine.results.result import FailureClass, Result, Row

texts = st.text(max_size=5)
json_values = st.recursive(st.none() | st.integers() | texts, st.lists, max_leaves=3)
rows = st.builds(
    Row,
    columns=st.dictionaries(st.sampled_from(PERF_COLUMNS), texts),
    multi_results=st.none() | st.dictionaries(texts, texts),
    configs=json_values | st.dictionaries(texts, json_values),
)
results = st.builds(
    Result,
    id=texts,
    nodeid=texts,
    model=texts,
    status=st.sampled_from([SUCCESS, FAILURE, SKIPPED]),
    rows=st.lists(rows, min_size=1, max_size=3).map(tuple),
    reason=texts,
    failure=st.sampled_from(FailureClass),
    duration=st.floats(0, 1e9),
    log=texts,
    tail=st.lists(texts, max_size=2).map(tuple),
    notes=st.lists(texts, max_size=2).map(tuple),
    hosts=st.lists(texts, max_size=2).map(tuple),
    machine=st.dictionaries(texts, texts, max_size=2),
)


def row(model: str, performance: str = "", metric: str = "") -> Row:
    return Row({**dict.fromkeys(PERF_COLUMNS, ""), "model": model, "performance": performance, "metric": metric})


def result(*of: Row, **more: Any) -> Result:
    return Result("id", "models.json::m", "m", **{"status": SUCCESS, "rows": of or (row("m"),), **more})


@settings(deadline=None, max_examples=30)
@given(results)
def test_any_result_travels_as_text(made: Result) -> None:
    text = made.to_json()
    assert text.isascii()
    assert Result.from_json(text) == made


def test_a_result_of_an_earlier_version_can_be_read() -> None:
    data = json.loads(result().to_json())
    assert Result.from_json(json.dumps({key: data[key] for key in data.keys() - {"notes", "hosts", "machine"}})) == (
        result()
    )


def test_a_variable_that_is_no_text_travels_too() -> None:
    made = result(row("m", metric="\udcff"))
    assert Result.from_json(made.to_json()) == made


def test_the_first_rows_value_is_the_results_own() -> None:
    made = result(row("m_a", "12.50", "tok/s"), row("m_b", "", "x"), row("m_c", "3", "x"))
    assert (made.performance, made.metric) == (12.5, "tok/s")
    assert made.performances == {"m_a": 12.5, "m_c": 3.0}


def test_a_result_without_value_has_no_performance() -> None:
    made = result()
    assert (made.performance, made.metric, made.performances) == (None, "", {})


def test_a_result_is_exactly_one_of_succeeded_failed_and_skipped() -> None:
    for status in (SUCCESS, FAILURE, SKIPPED):
        made = result(status=status)
        assert [made.succeeded, made.failed, made.skipped] == [status == each for each in (SUCCESS, FAILURE, SKIPPED)]


def test_the_explanation_holds_reason_last_lines_and_the_logs_path() -> None:
    made = result(status=FAILURE, reason="exit code 3", log="/runs/run.log", tail=("one", "two"))
    assert made.explanation() == "m: exit code 3\n\n    one\n    two\n\nlog: /runs/run.log"
    assert result(reason="skipped").explanation() == "m: skipped"


def test_an_explanation_says_which_variant_failed() -> None:
    assert replace(result(reason="x"), nodeid="models.json::m[main]").explanation() == "m[main]: x"


def test_the_failure_class_is_a_plain_word_in_json() -> None:
    assert json.loads(result(failure=FailureClass.BUILD).to_json())["failure"] == "build"
