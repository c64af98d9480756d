from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_madengine.reporting import htmldata
from pytest_madengine.reporting.htmldata import data, differences, packed
from pytest_madengine.reporting.htmlstory import Past, Point, Samples, Story
from pytest_madengine.results import tries
from pytest_madengine.results.comparison import Judgement
from pytest_madengine.results.history import Key
from pytest_madengine.results.metric import Direction, Metric
from pytest_madengine.results.perf import FAILURE
from pytest_madengine.results.result import FailureClass, Result, Usage
from tests.reporting.told import compared, of_a_run, result, row

VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=3) | st.booleans(), lambda inner: st.lists(inner, max_size=2)
)
RECORDS = st.lists(st.dictionaries(st.sampled_from("abc"), VALUES), max_size=8)


def unpacked(columns: Mapping[str, Mapping[str, Any]], count: int) -> list[dict[str, Any]]:
    """What the page's script makes of packed records."""

    def at(column: Mapping[str, Any], place: int) -> Any:
        if "v" in column:
            return column["v"][place]
        return column["d"][column["i"][place] if "i" in column else 0]

    return [{name: at(column, place) for name, column in columns.items()} for place in range(count)]


def told(*results: Result, **more: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, Any]]:
    """The items and lines of a page, and all of its data."""
    found = data(Story(results, {"run": "20260314"}, **more))
    items, lines, metrics = found["count"]
    measured = unpacked(found["metrics"], metrics)
    with_metrics = [
        {**line, "metrics": [each for each in measured if each["line"] == place]}
        for place, line in enumerate(unpacked(found["lines"], lines))
    ]
    return unpacked(found["items"], items), with_metrics, found


@given(RECORDS)
def test_packed_records_come_out_as_they_went_in(records: list[dict[str, Any]]) -> None:
    names = dict.fromkeys(name for record in records for name in record)
    again = unpacked(json.loads(json.dumps(packed(records))), len(records))
    assert again == [{name: record.get(name) for name in names} for record in records]


def test_a_value_that_all_share_stands_once() -> None:
    records = [{"same": "x", "few": number % 2, "many": number} for number in range(10)]
    columns = packed(records)
    assert columns["same"] == {"d": ["x"]}
    assert columns["few"] == {"d": [0, 1], "i": [0, 1] * 5}
    assert columns["many"] == {"v": list(range(10))}


def test_values_that_only_compare_alike_are_kept_apart() -> None:
    assert packed([{"a": 1}, {"a": True}, {"a": 1.0}])["a"] == {"v": [1, True, 1.0]}


def test_an_item_is_told_once_and_each_of_its_rows() -> None:
    items, lines, found = told(*of_a_run())
    assert [item["nodeid"] for item in items][2:4] == ["models.json::flaky", "models.json::multi"]
    assert [line["name"] for line in lines][2:5] == ["flaky", "multi_a", "multi_b"]
    assert [line["item"] for line in lines][2:5] == [2, 3, 3]
    assert found["count"] == [7, 8, 9]


def test_tries_that_infrastructure_failed_stand_with_the_last_one() -> None:
    items, _, _ = told(*of_a_run())
    (earlier,) = items[2]["earlier"]
    assert (earlier["reason"], earlier["failure"]) == ("node died", "infrastructure")
    assert (items[2]["status"], items[2]["attempt"]) == ("SUCCESS", 2)


def test_a_line_has_the_worst_verdict_and_the_change_of_its_performance() -> None:
    comparisons = (
        compared("m", Judgement.IMPROVEMENT, 0.2),
        compared("m", Judgement.NONE, name="ttft"),
        compared("other", Judgement.REGRESSION, -0.5),
    )
    _, (line,), _ = told(replace(result("m"), comparisons=comparisons))
    assert (line["verdict"], line["change"]) == ("no verdict", 0.2)


def test_without_a_comparison_the_column_tells_the_change() -> None:
    _, (line,), _ = told(result("m", "SUCCESS", row("m", performance="1", relative_change="-0.04")))
    assert (line["verdict"], line["change"]) == ("", -0.04)


@pytest.mark.parametrize("text", ["", "nan", "inf", "-inf", "abc", "None"])
def test_a_value_that_is_no_number_is_none(text: str) -> None:
    _, (line,), found = told(result("m", "SUCCESS", row("m", performance=text)))
    assert line["value"] is None
    json.dumps(found, allow_nan=False)


def test_numbers_that_json_cannot_hold_become_null() -> None:
    metric = Metric("m", "performance", float("nan"), "x", Direction.HIGHER, (1.0, float("inf")))
    usage = {"power": Usage("W", float("nan"), 1.0, float("inf"))}
    _, (line,), found = told(replace(result("m"), metrics=(metric,), usage=usage))
    assert line["metrics"][0]["samples"] == [1.0, None]
    json.dumps(found, allow_nan=False)


def test_rows_of_one_name_keep_their_own_values() -> None:
    rows = (row("m", performance="1"), row("m", performance="2"))
    metrics = tuple(Metric("m", "performance", value) for value in (1.0, 2.0))
    _, lines, _ = told(replace(result("m", "SUCCESS", *rows), metrics=metrics))
    assert [[each["value"] for each in line["metrics"]] for line in lines] == [[1.0], [2.0]]


def history(given: Result, *points: Point) -> dict[str, Any]:
    return {"past": Past({(Key.of(given.rows[0].columns), "performance"): points})}


def trend(found: Mapping[str, Any], line: Mapping[str, Any]) -> list[tuple[str, float]]:
    flat = line["metrics"][0]["trend"]
    return [(found["runs"][flat[place]][0], flat[place + 1]) for place in range(0, len(flat), 2)]


def test_a_trend_ends_with_this_run() -> None:
    now = result("m")
    points = (Point("2026-03-12", "a", 1.0), Point("2026-03-13", "b", 2.0))
    _, (line,), found = told(now, **history(now, *points))
    assert trend(found, line) == [("a", 1.0), ("b", 2.0), ("20260314", 12.5)]


def test_what_came_later_is_no_part_of_a_runs_trend() -> None:
    now = result("m")
    points = [Point("2026-03-13", "a", 1.0), Point("2026-03-14T15:09:00", "20260314", 12.5), Point("2027", "b", 2.0)]
    for known in (points, [points[0], points[2]]):
        _, (line,), found = told(now, **history(now, *known))
        assert trend(found, line) == [("a", 1.0), ("20260314", 12.5)]


def test_a_failed_run_has_the_trend_before_it() -> None:
    now = result("m", FAILURE)
    _, (line,), found = told(now, **history(now, Point("2026-03-12", "a", 1.0), Point("2026-03-13", "b", 2.0)))
    assert trend(found, line) == [("a", 1.0), ("b", 2.0)]


def test_a_result_without_times_comes_last() -> None:
    now = result("m", started="", ended="")
    _, (line,), found = told(now, **history(now, Point("2026-03-12", "a", 1.0)))
    assert trend(found, line) == [("a", 1.0), ("20260314", 12.5)]


def test_one_point_is_no_trend() -> None:
    _, (line,), found = told(result("m"))
    assert trend(found, line) == []
    now = result("m")
    _, (line,), found = told(now, **history(now, Point("2026-03-14", "20260314", 12.5)))
    assert trend(found, line) == []


def test_a_trend_is_of_what_is_comparable() -> None:
    now, other = result("m"), result("m", "SUCCESS", row("m", performance="1", n_gpus="4"))
    _, (line,), found = told(now, **history(other, Point("2026", "a", 1.0), Point("2026", "b", 1.0)))
    assert trend(found, line) == []


def test_many_models_share_what_room_there_is_for_points_and_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(htmldata, "POINT_BUDGET", 30)
    monkeypatch.setattr(htmldata, "TAIL_BUDGET", 900)
    now = result("m", tail=tuple("x" * 50 for _ in range(20)))
    points = [Point(f"2026-01-{day:02}", f"run-{day}", day) for day in range(1, 29)]
    results = [now, *(result(f"m{number}", tail=("y",)) for number in range(2))]
    items, lines, found = told(*results, **history(now, *points))
    assert len(trend(found, lines[0])) == 10
    assert trend(found, lines[0])[-2:] == [("run-28", 28), ("20260314", 12.5)]
    assert [len(line) for line in items[0]["tail"]] == [45, 50, 50, 50, 50, 50]


def test_of_very_many_artifacts_the_first_are_linked_and_the_rest_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(htmldata, "FILE_BUDGET", 4)
    (item, _), _, _ = told(result("m", artifacts=("/a", "/b", "/c")), result("n"), link=str.upper)
    assert (item["artifacts"], item["more_artifacts"]) == (["/A", "/B"], 1)


def test_the_end_of_a_line_that_is_too_long_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(htmldata, "TAIL_BUDGET", 1)
    (item,), _, _ = told(result("m", tail=("before", "x" * 1000 + "end")))
    assert item["tail"] == ["x" * 197 + "end"]


def test_differences_name_what_changed_came_and_went() -> None:
    before = result("m", "SUCCESS", row("m", git_commit="old", args="-x"), versions={"docker": "26"}, hosts=("node1",))
    now = result("m", "SUCCESS", row("m", git_commit="new", args="-x"), machine={"driver": "6.8"}, hosts=("node2",))
    assert differences(now, before) == [
        ("hosts", "node1", "node2"),
        ("machine: driver", "", "6.8"),
        ("git_commit", "old", "new"),
        ("version: docker", "26", ""),
    ]


def test_an_item_is_told_with_its_baseline() -> None:
    before = result("m", run="20260313", digest="sha256:old")
    (item, other), _, _ = told(result("m"), result("other"), past=Past(baseline={before.nodeid: before}))
    assert item["baseline"]["run"] == "20260313"
    assert item["baseline"]["differences"] == [("image digest", "sha256:old", "sha256:abc")]
    assert other["baseline"] is None


def test_samples_stand_with_the_usage_that_names_their_file() -> None:
    usage = {"power": Usage("W", 1.0, 2.0, 3.0, "/run/power.csv"), "vram": Usage("GiB", 1.0, 2.0, 3.0)}
    samples = {"/run/power.csv": Samples((0.0, 1.0), {"GPU 0": (1.0, 3.0)})}
    (item,), _, _ = told(result("m", usage=usage), samples=samples, link=lambda path: f"to{path}")
    power, vram = item["usage"]
    assert (power["seconds"], power["series"]) == ((0.0, 1.0), {"GPU 0": (1.0, 3.0)})
    assert power["file"] == "to/run/power.csv"
    assert "seconds" not in vram
    assert vram["file"] == ""


def test_columns_that_have_no_place_of_their_own_are_told_too() -> None:
    given = row("m", git_commit="abc", temperature="60")
    _, _, found = told(result("m", "SUCCESS", given))
    assert unpacked(found["columns"], 1) == [{"git_commit": "abc", "temperature": "60"}]


def test_a_problem_is_what_failed_regressed_or_has_no_verdict_where_one_is_wanted() -> None:
    items = tries.by_item(of_a_run())
    problems = {item.result.title: htmldata.problem(item) for item in items if htmldata.is_problem(item)}
    assert problems.pop("bad") == ("failed (model)", "exit code 1")
    assert problems.pop("slow") == ("regression", "slow performance: because")
    (evil,) = problems.values()
    assert evil[0] == f"failed ({FailureClass.BUILD.value})"
