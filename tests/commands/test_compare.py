from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pytest_madengine import cli
from pytest_madengine.reporting.perfcsv import PerfCsv
from tests.store.made import record, result, row, run_id


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    multi = result("multi", row("multi_a", "5", {"latency_ms": "4"}))
    record(tmp_path, 0, [result("a"), result("old"), result("breaks"), multi])
    slower = result("multi", row("multi_a", "5", {"latency_ms": "5"}))
    record(tmp_path, 1, [result("a", row("a", "94")), result("new"), result("breaks", row("breaks")), slower])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def compared(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    assert cli.main(["compare", "--format=json", *arguments]) == 0
    pairs: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return pairs


def brief(pairs: list[dict[str, Any]]) -> list[tuple[str, float | None, str]]:
    return [(pair["model"], pair["change"], pair["state"]) for pair in pairs]


def test_two_runs_are_put_side_by_side(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert brief(compared(capsys, "latest~1", "latest")) == [
        ("a", -0.06, ""),
        ("old", None, "vanished"),
        ("breaks", None, "broken"),
        ("multi_a", 0.0, ""),
        ("new", None, "new"),
    ]


def test_other_metrics_are_compared_when_asked_for(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (pair,) = compared(capsys, "latest~1", "latest", "--metric=latency*")
    assert (pair["metric"], pair["change"], pair["worse"]) == ("latency_ms", 0.25, True)


def test_a_table_names_the_change_for_people(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", "latest~1", run_id(1), "--model=a"]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.split()[5:12] == ["100", "94", "tok/s", "-6.0", "%", "worse", "SUCCESS"]


def test_a_perf_csv_is_compared_with_a_run_by_its_last_rows(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for value in ("1", "200"):
        PerfCsv(project / "old.csv").write(result("a", row("a", value)))
    assert brief(compared(capsys, "old.csv", "latest", "--model=a")) == [("a", -0.53, "")]


def test_two_perf_csv_files_need_no_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in (("one.csv", "10"), ("two.csv", "11")):
        PerfCsv(tmp_path / name).write(result("a", row("a", value)))
    assert brief(compared(capsys, "one.csv", "two.csv")) == [("a", 0.1, "")]


def test_the_folder_of_a_run_and_its_record_are_sides(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = f".madengine/runs/{run_id(0)}"
    assert brief(compared(capsys, folder, f"{folder}/results.jsonl", "--model=a")) == [("a", 0.0, "")]


def test_a_side_that_nobody_knows_is_an_error(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", "latest", "lastest"]) == 1
    assert "no run 'lastest'" in capsys.readouterr().err
