from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_madengine.errors import UserError
from pytest_madengine.reporting.perfcsv import PerfCsv
from pytest_madengine.reporting.record import line
from pytest_madengine.results.perf import PERF_COLUMNS
from pytest_madengine.store import records
from tests.store.made import result, row

GOOD = line(result("a"), "2026-03-14T12:00:00+00:00")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.jsonl"


def test_lines_know_where_they_stand(path: Path) -> None:
    path.write_bytes(GOOD * 3)
    found = list(records.lines(path))
    assert [(each.number, each.start, each.end) for each in found] == [
        (number + 1, number * len(GOOD), (number + 1) * len(GOOD)) for number in range(3)
    ]
    assert list(records.lines(path, len(GOOD), 1)) == found[1:]
    assert found[0].recorded == "2026-03-14T12:00:00+00:00"


@pytest.mark.parametrize(
    "bad", [b"\n", b"{}\n", b"[1]\n", b"null\n", b"\xff\xfe\n", b'{"rows": 3}\n', GOOD[:90] + b"\n"]
)
def test_a_broken_line_is_told_of_and_the_others_are_read(path: Path, bad: bytes) -> None:
    path.write_bytes(GOOD + bad + GOOD)
    assert [bool(each.problem) for each in records.lines(path)] == [False, True, False]
    assert len(records.results(path)) == 2


def test_a_last_line_without_end_is_one_that_is_being_written(path: Path) -> None:
    path.write_bytes(GOOD + GOOD[:-1])
    assert [each.problem for each in records.lines(path)] == ["", records.CUT]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.binary(max_size=200))
def test_no_bytes_are_too_odd_to_be_passed_over(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert b"".join(content[each.start : each.end] for each in records.lines(path)) == content
    assert records.results(path) == []


def test_a_line_of_a_later_version_is_read_as_far_as_it_is_known(path: Path) -> None:
    path.write_bytes(
        GOOD.replace(b'"format": 1', b'"format": 1, "of_tomorrow": {"x": 1}').replace(
            b'"direction"', b'"confidence": 0.99, "direction"'
        )
    )
    assert records.results(path) == [result("a")]


def test_a_perf_csv_of_ours_gives_its_rows_with_their_metrics(tmp_path: Path) -> None:
    path = tmp_path / "perf.csv"
    PerfCsv(path).write(result("a", row("a_one", "5", tags="x,y"), row("a_two")))
    first, second = records.of_perf_csv(path)
    assert (first.model, first.performance, first.succeeded) == ("a_one", 5.0, True)
    assert (second.model, second.performance, second.failed) == ("a_two", None, True)
    assert first.rows[0].columns["tags"] == "x,y"
    assert first.run == str(path)


def test_a_perf_csv_of_another_tool_may_have_a_mark_other_columns_and_short_rows(tmp_path: Path) -> None:
    path = tmp_path / "perf.csv"
    path.write_text(
        f"\ufeff{','.join(PERF_COLUMNS)},latency\nold{',' * 16},1234.50,tok/s,,SUCCESS{',' * 8},3.5\nshort\n"
    )
    old, short = records.of_perf_csv(path)
    assert old.rows[0].columns["performance"] == "1234.50"
    assert old.rows[0].multi_results == {"latency": "3.5"}
    assert (short.model, short.status) == ("short", "FAILURE")


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", "\0", "model\nx\n"])
def test_a_file_that_is_no_perf_csv_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text(content)
    with pytest.raises(UserError, match=r"x\.csv"):
        list(records.of_perf_csv(path))


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(b"model,performance\n\xff\xfe\n")
    with pytest.raises(UserError, match="cannot be read"):
        list(records.of_perf_csv(path))
