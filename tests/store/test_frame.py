from __future__ import annotations

from pathlib import Path

import pytest

import pytest_madengine
from pytest_madengine.errors import UserError
from pytest_madengine.reporting.perfcsv import PerfCsv
from tests.store.made import moment, record, result, row, run_id


def test_each_metric_of_each_row_is_a_row_of_the_frame(tmp_path: Path) -> None:
    rows = (row("m_a", "5.5", {"latency_ms": "3"}, build_number="0042", n_gpus="16"), row("m_b", n_gpus=""))
    record(tmp_path, 0, [result("m", *rows, started=moment(0), ended="")])
    frame = pytest_madengine.load_results(tmp_path)
    assert frame[["run", "model", "row", "metric", "unit"]].to_numpy().tolist() == [
        [run_id(0), "m", "m_a", "performance", "tok/s"],
        [run_id(0), "m", "m_a", "latency_ms", ""],
        [run_id(0), "m", "m_b", "performance", ""],
    ]
    assert frame["value"].fillna(-1).to_list() == [5.5, 3.0, -1.0]
    assert frame["direction"].tolist() == ["higher", "lower", "higher"]
    assert frame["samples"].tolist() == [(5.5,), (3.0,), ()]
    assert frame["n_gpus"].fillna(-1).tolist() == [16, 16, -1]
    assert set(frame["build_number"]) == {"0042", ""}


def test_moments_are_datetimes_and_numbers_are_numbers(tmp_path: Path) -> None:
    record(tmp_path, 0, [result("m", started=moment(0, 5), ended="not yet")])
    frame = pytest_madengine.load_results(tmp_path)
    assert frame["started"].dt.tz is not None
    assert (frame["recorded"] - frame["started"]).dt.total_seconds().tolist() == [-5.0]
    assert frame["ended"].isna().all()
    assert {name: str(frame[name].dtype) for name in ("value", "n_gpus", "is_last_attempt")} == {
        "value": "float64",
        "n_gpus": "Int64",
        "is_last_attempt": "bool",
    }


@pytest.mark.parametrize("count", ["8.5", "many", "inf", "1e400"])
def test_a_number_of_gpus_that_is_none_is_missing(tmp_path: Path, count: str) -> None:
    record(tmp_path, 0, [result("m", row("m", "1", n_gpus=count))])
    assert pytest_madengine.load_results(tmp_path)["n_gpus"].isna().all()


def test_a_perf_csv_is_loaded_with_its_texts_as_they_are(tmp_path: Path) -> None:
    PerfCsv(tmp_path / "perf.csv").write(result("m", row("m", "1234.50", git_commit="0123456")))
    frame = pytest_madengine.load_results(str(tmp_path / "perf.csv"))
    assert frame[["value", "git_commit"]].to_numpy().tolist() == [[1234.5, "0123456"]]


def test_without_results_the_frame_has_its_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(tmp_path, 0, [])
    monkeypatch.chdir(tmp_path)
    assert pytest_madengine.load_results().empty
    assert "value" in pytest_madengine.load_results().columns


def test_a_place_without_runs_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no"):
        pytest_madengine.load_results(tmp_path)
