from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_madengine.errors import FaultsError
from pytest_madengine.reporting.csvtables import LONGEST_CELL, read
from pytest_madengine.secrets import Masker


def test_files_stand_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("perf.csv", "a.csv", "notes.txt"):
        (tmp_path / name).write_text("x\n1\n")
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "other.csv").write_text("x\n1\n")
    assert [each.name for each in read(tmp_path).tables] == ["a.csv", "perf.csv"]


def test_a_line_says_how_models_did(tmp_path: Path) -> None:
    (tmp_path / "perf.csv").write_text("model,status\na,SUCCESS\nb,FAILURE\nc,FAILURE\nb,FAILURE\nd,SKIPPED\n")
    (tmp_path / "env.csv").write_text("name\nx\n")
    assert read(tmp_path).lines == [
        "env.csv: 1 row",
        "perf.csv: 5 rows, 1 SUCCESS, 1 SKIPPED, 3 FAILURE (b, c)",
    ]


def test_of_many_failed_models_some_are_named(tmp_path: Path) -> None:
    names = "".join(f"m{at},FAILURE\n" for at in range(50))
    (tmp_path / "perf.csv").write_text(f"model,status\n{names}")
    (line,) = read(tmp_path).lines
    assert line.endswith("m19 and 30 more)")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "an empty file"),
        (b"\n\n", "an empty file"),
        (b'a,b\n"cut', "unexpected end of data"),
        (b"a\n\xff\xfe\n", "no UTF-8 text"),
    ],
)
def test_a_file_that_is_none_is_named_and_left_out(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "good.csv").write_text("a\n1\n")
    (tmp_path / "odd.csv").write_bytes(content)
    (tmp_path / "gone.csv").symlink_to("nowhere")
    found = read(tmp_path)
    assert [each.name for each in found.tables] == ["good.csv"]
    assert found.unreadable == ("gone.csv: No such file or directory", f"odd.csv: {reason}")


def test_rows_of_other_lengths_are_filled_up(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfx,y\r\n1\r\n1,2,3\r\n")
    (table,) = read(tmp_path).tables
    assert table.headings == ("x", "y", "")
    assert table.rows == (("1", "", ""), ("1", "2", "3"))


def test_cells_are_masked_cleaned_and_cut(tmp_path: Path) -> None:
    long = "z" * 200_000
    (tmp_path / "a.csv").write_text(f"a\nhunter2\n\x1b[31m\n{long}\n")
    (table,) = read(tmp_path, Masker(["hunter2"])).tables
    assert table.rows == (("***",), ("\N{REPLACEMENT CHARACTER}[31m",), ("z" * LONGEST_CELL + "…",))
    assert csv.field_size_limit() < len(long)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_whatever_a_file_holds_it_is_a_table_or_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "good.csv").write_text("a\n1\n")
    (tmp_path / "odd.csv").write_bytes(content)
    found = read(tmp_path)
    assert len(found.tables) + len(found.unreadable) == 2
    assert all(len(row) == len(table.headings) for table in found.tables for row in table.rows)


def test_a_folder_without_tables_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FaultsError, match="has no CSV file; valid: a folder with"):
        read(tmp_path)
    with pytest.raises(FaultsError, match="no such folder"):
        read(tmp_path / "missing")
    (tmp_path / "empty.csv").touch()
    with pytest.raises(FaultsError, match=r"empty\.csv: an empty file"):
        read(tmp_path)
