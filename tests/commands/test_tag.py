from __future__ import annotations

from pathlib import Path

import pytest

from pytest_madengine.cli import main
from pytest_madengine.reporting.record import RunRecord
from pytest_madengine.results.perf import PERF_COLUMNS, SUCCESS
from pytest_madengine.results.result import Result, Row

RUNS = ("20260101-000000-aaaaaa", "20260102-000000-bbbbbb")


@pytest.fixture
def top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The `.madengine` folder of a project with two runs."""
    monkeypatch.chdir(tmp_path)
    row = Row({**dict.fromkeys(PERF_COLUMNS, ""), "model": "m", "performance": "1", "status": SUCCESS})
    for run in RUNS:
        folder = tmp_path / ".madengine/runs" / run
        folder.mkdir(parents=True)
        RunRecord(folder / "results.jsonl").write(Result(f"{run}-m", "n", "m", SUCCESS, (row,), run=run))
    return tmp_path / ".madengine"


def test_the_latest_run_gets_the_name(top: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tag", "good"]) == 0
    assert (top / "tags/good").read_text() == f"{RUNS[1]}\n"
    assert f"{RUNS[1]} is good now" in capsys.readouterr().err


def test_a_run_by_its_beginning_takes_the_name_from_another(top: Path) -> None:
    main(["tag", "good"])
    assert main(["tag", "good", "20260101"]) == 0
    assert (top / "tags/good").read_text() == f"{RUNS[0]}\n"
    assert main(["tag", "better", "good"]) == 0
    assert (top / "tags/better").read_text() == f"{RUNS[0]}\n"


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden", "", "latest", "latest~1", "a b"])
def test_what_is_no_name(top: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tag", name]) == 1
    assert "NAME: found" in capsys.readouterr().err
    assert not (top / "tags").exists()


def test_a_run_that_is_not_there(top: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tag", "good", "2027"]) == 1
    assert "no run '2027'" in capsys.readouterr().err


def test_a_single_run_has_no_tags(top: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tag", "good", "latest", "--from", str(top / "runs" / RUNS[0])]) == 1
    assert "tags are a project's" in capsys.readouterr().err
