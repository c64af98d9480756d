from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_madengine import cli
from tests.store.made import record, result, row, run_id


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for day, value in enumerate(("100", "", "90")):
        record(tmp_path, day, [result("m", row("m", value)), result("other")])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_values_are_told_from_the_oldest_run_with_its_gaps(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["trend", "m", "--format=json"]) == 0
    points = [(entry["run"], entry["value"]) for entry in json.loads(capsys.readouterr().out)]
    assert points == [(run_id(0), 100.0), (run_id(1), None), (run_id(2), 90.0)]


def test_the_last_runs_are_enough_when_asked_for(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["trend", "m", "--last=2"]) == 0
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [line.split()[:3] for line in lines] == [
        ["2026-01-02", "00:00", run_id(1)],
        ["2026-01-03", "00:00", run_id(2)],
    ]
    assert "-" in lines[0].split()


def test_a_model_that_never_ran_is_an_error_that_names_the_nearest(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["trend", "othre"]) == 1
    assert "no results of 'othre'; did you mean 'other'?" in capsys.readouterr().err
