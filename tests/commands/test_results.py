from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from pytest_madengine import cli
from pytest_madengine.reporting.perfcsv import PerfCsv
from tests.store.made import record, result, row, run_id


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    record(tmp_path, 0, [result("a"), result("[red]b[/red]", row("[red]b[/red]"), reason="exit code 3\nand more")])
    record(tmp_path, 1, [result("a", row("a", "110"))])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.main(["results", *arguments]) == 0
    return capsys.readouterr().out


def read(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[tuple[str, str, float | None]]:
    entries = json.loads(said(capsys, "--format=json", *arguments))
    return [(entry["run"], entry["model"], entry["value"]) for entry in entries]


def test_without_filters_the_latest_run_is_shown(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert read(capsys) == [(run_id(1), "a", 110.0)]


def test_with_a_filter_all_runs_are_asked(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert read(capsys, "--model=a") == [(run_id(0), "a", 100.0), (run_id(1), "a", 110.0)]
    assert read(capsys, "--status=failure") == [(run_id(0), "[red]b[/red]", None)]
    assert read(capsys, "--run=latest~1", "--model=a") == [(run_id(0), "a", 100.0)]


def test_a_table_shows_each_cell_whole_and_as_it_is(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    heading, _, first, second = said(capsys, "--run=latest~1").splitlines()
    assert heading.split() == [
        "run",
        "model",
        "status",
        "metric",
        "value",
        "unit",
        "GPU",
        "GPUs",
        "launcher",
        "seconds",
        "reason",
    ]
    assert first.split()[:6] == [run_id(0), "a", "SUCCESS", "performance", "100", "tok/s"]
    assert "[red]b[/red]" in second
    assert second.rstrip().endswith("exit code 3 and more")


def test_csv_has_a_header_also_without_results(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = list(csv.DictReader(io.StringIO(said(capsys, "--format=csv", "--model=a"))))
    assert [each["value"] for each in rows] == ["100.0", "110.0"]
    assert said(capsys, "--format=csv", "--model=none").splitlines() == [",".join(rows[0])]


def test_runs_are_listed_with_their_counts(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = json.loads(said(capsys, "--runs", "--format=json"))
    assert [(run["run"], run["succeeded"], run["failed"]) for run in runs] == [(run_id(0), 1, 1), (run_id(1), 1, 0)]
    assert "first result (UTC)" in said(capsys, "--runs")


def test_a_perf_csv_is_shown_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for value in "12":
        PerfCsv(tmp_path / "perf.csv").write(result("a", row("a", value)))
    path = str(tmp_path / "perf.csv")
    assert read(capsys, f"--from={path}") == [(path, "a", 1.0), (path, "a", 2.0)]


def test_lines_that_are_left_out_are_told_beside_the_output(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = record(project, 2, [result("a")])
    path.write_bytes(b"{\n" + path.read_bytes())
    assert cli.main(["results", "--format=json"]) == 0
    captured = capsys.readouterr()
    assert len(json.loads(captured.out)) == 1
    assert captured.err.startswith(f"pytest-madengine: {path}:1: is no Result")
