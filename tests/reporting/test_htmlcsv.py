from __future__ import annotations

from pathlib import Path

import pytest

from pytest_madengine.errors import UserError
from pytest_madengine.reporting import htmlcsv
from pytest_madengine.reporting.htmlstory import Point
from pytest_madengine.results.perf import FAILURE, PERF_COLUMNS, SUCCESS
from pytest_madengine.results.result import Result


def read(folder: Path, *rows: dict[str, str], header: tuple[str, ...] = PERF_COLUMNS) -> list[Result]:
    file = folder / "perf.csv"
    lines = [",".join(header), *(",".join(row.get(name, "") for name in header) for row in rows)]
    file.write_text("\n".join(lines) + "\n")
    return htmlcsv.read(file)


def measured(model: str, value: str, **more: str) -> dict[str, str]:
    return {"model": model, "performance": value, "metric": "x", "status": SUCCESS, **more}


def test_each_row_is_a_result_of_its_own(tmp_path: Path) -> None:
    results = read(tmp_path, measured("m", "1"), measured("m", "2"), {"model": "n", "status": FAILURE})
    assert [each.nodeid for each in results] == ["row 1", "row 2", "row 3"]
    assert [each.status for each in results] == [SUCCESS, SUCCESS, FAILURE]


def test_a_status_that_nobody_knows_is_no_success(tmp_path: Path) -> None:
    results = read(tmp_path, measured("m", "1", status="success"), measured("m", "1", status="odd"))
    assert [each.status for each in results] == [SUCCESS, FAILURE]


def test_rows_of_the_same_thing_are_its_history(tmp_path: Path) -> None:
    results = read(
        tmp_path, measured("m", "1"), measured("m", "3", n_gpus="8"), measured("m", "2"), measured("m", "nan")
    )
    histories = sorted(htmlcsv.past(results).history.values(), key=len)
    assert histories == [[Point("", "row 2", 3.0)], [Point("", "row 1", 1.0), Point("", "row 3", 2.0)]]


def test_a_file_that_is_no_perf_csv_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="lacks model, performance"):
        read(tmp_path, header=("a", "b"))
    with pytest.raises(UserError, match=r"none\.csv"):
        htmlcsv.read(tmp_path / "none.csv")
