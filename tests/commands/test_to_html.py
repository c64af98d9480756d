from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pytest_madengine import cli
from pytest_madengine.engine.rundir import RECORD, TOP
from pytest_madengine.reporting.perfcsv import append_csv
from pytest_madengine.reporting.record import RunRecord
from pytest_madengine.results.perf import PERF_COLUMNS
from tests.reporting.told import result, row

OTHER_TOOLS = """\
model,n_gpus,training_precision,args,docker_file,gpu_architecture,performance,metric,relative_change,status,test_duration
m,8.0,nan,-x,docker/m,gfx942,10.0,tokens/s,,SUCCESS,12.5
m,8.0,nan,-x,docker/m,gfx942,11.0,tokens/s,,SUCCESS,12.5
n,,,,docker/n,gfx942,nan,,,FAILURE,
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ran(folder: Path, run: str, value: str) -> Path:
    path = folder / TOP / "runs" / run / RECORD
    path.parent.mkdir(parents=True)
    recorded = f"{run[:4]}-{run[4:6]}-{run[6:8]}T10:00:00+00:00"
    RunRecord(path, lambda: recorded).write(result("m", "SUCCESS", row("m", performance=value), run=run, id=run))
    return path


def data_of(page: Path) -> dict[str, Any]:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(encoding="utf-8"))
    found: dict[str, Any] = json.loads(text)
    return found


def to_html(*arguments: str) -> int:
    return cli.main(["report", "to-html", *arguments])


def test_the_latest_run_is_told_with_the_trend_before_it(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for run, value in (("20260312-a", "1"), ("20260313-b", "2"), ("20260314-c", "3")):
        ran(here, run, value)
    assert to_html() == 0
    assert capsys.readouterr().out == "20260314-c.html\n"
    data = data_of(here / "20260314-c.html")
    assert data["run"] == "20260314-c"
    assert [name for name, _ in data["runs"]] == ["20260312-a", "20260313-b", "20260314-c"]


def test_a_run_is_named_as_in_other_commands(here: Path) -> None:
    ran(here, "20260312-a", "1")
    ran(here, "20260313-b", "2")
    assert to_html("--run", "latest~1", "-o", "page.html") == 0
    assert data_of(here / "page.html")["run"] == "20260312-a"


def test_a_run_that_is_not_there_is_an_error(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran(here, "20260312-a", "1")
    assert to_html("--run", "20270101") == 1
    assert "20260312-a" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--csv-file", "--csv-file-path", "--from"])
def test_a_file_of_the_replaced_tool(option: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "old").mkdir()
    (here / "old" / "mine.csv").write_text(OTHER_TOOLS)
    assert to_html(option, "old/mine.csv") == 0
    assert capsys.readouterr().out == "old/mine.html\n"
    data = data_of(here / "old" / "mine.html")
    assert data["count"] == [3, 3, 3]
    assert data["lines"]["value"]["v"] == [10.0, 11.0, None]
    assert "2 passed" in (here / "old" / "mine.html").read_text(encoding="utf-8")


def test_without_a_run_perf_csv_is_meant(here: Path) -> None:
    append_csv(here / "perf.csv", PERF_COLUMNS, [row("m", performance="1").columns])
    assert to_html() == 0
    assert data_of(here / "perf.html")["count"] == [1, 1, 1]


def test_without_anything_the_error_names_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert to_html() == 1
    assert "perf.csv" in capsys.readouterr().err


def test_what_the_page_is_made_of_is_not_overwritten(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    append_csv(here / "perf.csv", PERF_COLUMNS, [row("m", performance="1").columns])
    record = ran(here, "20260312-a", "1")
    before = record.read_bytes(), (here / "perf.csv").read_bytes()
    assert to_html("--csv-file", "perf.csv", "-o", "perf.csv") == 1
    assert to_html("-o", str(record)) == 1
    assert "what the page is made of" in capsys.readouterr().err
    assert (record.read_bytes(), (here / "perf.csv").read_bytes()) == before


def test_two_sources_are_one_too_many(capsys: pytest.CaptureFixture[str]) -> None:
    assert to_html("--csv-file", "perf.csv", "--from", ".") == 1
    assert "one of them" in capsys.readouterr().err


def test_a_folder_that_is_not_there_is_an_error(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran(here, "20260312-a", "1")
    assert to_html("-o", "none/page.html") == 1
    assert "none" in capsys.readouterr().err
