from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_madengine.reporting.record import RunRecord, line
from pytest_madengine.results.result import Result
from pytest_madengine.store import records
from tests.results.test_result import results
from tests.store.made import result, row

NOON = "2026-03-14T12:00:00.000000+00:00"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.jsonl"


def opened(path: Path) -> RunRecord:
    return RunRecord(path, lambda: NOON)


def test_each_result_is_one_line_that_says_when_it_was_recorded(path: Path) -> None:
    for name in "ab":
        opened(path).write(result(name))
    first, second = path.read_text(encoding="utf-8").splitlines()
    assert json.loads(first) == {"format": 1, "recorded": NOON, **json.loads(result("a").to_json())}
    assert json.loads(second)["model"] == "b"


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.lists(results, max_size=3))
def test_any_results_are_read_as_they_were_written(path: Path, given_results: list[Result]) -> None:
    path.unlink(missing_ok=True)
    for each in given_results:
        opened(path).write(each)
    assert (records.results(path) if path.exists() else []) == given_results


@pytest.mark.parametrize("cut", range(0, 400, 37))
def test_a_line_that_a_crash_cut_is_written_whole_when_the_run_goes_on(path: Path, cut: int) -> None:
    record = opened(path)
    record.write(result("a"))
    sizes = record.sizes()
    with path.open("ab") as file:
        file.write(line(result("b"), NOON)[:cut])
    opened(path).write_missing(result("b"), sizes)
    assert [each.model for each in records.results(path)] == ["a", "b"]
    assert all(not each.problem for each in records.lines(path))


def test_a_line_that_is_there_is_not_written_twice_whenever_it_was(path: Path) -> None:
    record = opened(path)
    sizes = record.sizes()
    record.write(result("a"))
    RunRecord(path).write_missing(result("a"), sizes)
    assert [each.model for each in records.results(path)] == ["a"]


def test_a_line_of_another_result_with_the_same_rows_does_not_stand_for_it(path: Path) -> None:
    record = opened(path)
    sizes = record.sizes()
    record.write(result("a"))
    record.write_missing(result("a", row("a", "100"), attempt=2), sizes)
    assert [each.attempt for each in records.results(path)] == [1, 2]
