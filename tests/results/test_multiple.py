from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_madengine.results.multiple import Table, read

HEADER = "model,performance,metric\n"
printable = st.characters(codec="utf-8", exclude_categories=["C", "Z"], include_characters=" ")
cells = st.text(printable, max_size=6).map(str.strip)
rows_of_cells = st.tuples(cells, cells, cells).map(lambda row: row if any(row) else ("a", *row[1:]))


def table(text: str) -> Table:
    return read(io.StringIO(text, newline=""), "results.csv")


def test_every_row_is_read_with_all_its_columns() -> None:
    read_table = table("model,performance,metric,batch\na,1.50,tok/s,8\nb,2,tok/s,16\n")
    assert read_table == Table(
        (
            {"model": "a", "performance": "1.50", "metric": "tok/s", "batch": "8"},
            {"model": "b", "performance": "2", "metric": "tok/s", "batch": "16"},
        )
    )
    assert read_table.bad_rows() == []


def test_headers_and_values_are_stripped_and_empty_rows_dropped() -> None:
    text = ' model , performance ,metric \n\n "a, b" , 1 , x \n , ,\n\r\n'
    assert table(text).rows == ({"model": "a, b", "performance": "1", "metric": "x"},)


def test_cells_that_a_row_lacks_are_empty() -> None:
    read_table = table(f"{HEADER}a\nb,1\n")
    assert read_table.rows[0] == {"model": "a", "performance": "", "metric": ""}
    assert read_table.bad_rows() == ["a"]


def test_commas_at_a_rows_end_are_no_cells() -> None:
    assert table(f"{HEADER}a,1,x,,\n").rows == ({"model": "a", "performance": "1", "metric": "x"},)
    assert table("model,performance,metric,,\na,1,x,,\n").rows[0]["metric"] == "x"


@pytest.mark.parametrize("value", ["", "nan", "NaN", "N/A", "inf", "1,5", "1_000", "fast"])
def test_a_row_without_a_number_is_named(value: str) -> None:
    assert table(f'{HEADER}good,1,x\nbad,"{value}",x\n').bad_rows() == ["bad"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "results.csv is empty"),
        ("\n , ,\n", "results.csv is empty"),
        (HEADER, "results.csv has a header and no rows"),
        (f"{HEADER}\n,,\n", "results.csv has a header and no rows"),
        ("model,metric\na,x\n", "results.csv lacks the column performance; it has model, metric"),
        ("a,1,x\n", "results.csv lacks the column model, performance, metric; it has a, 1, x"),
        ("Model,Performance,Metric\na,1,x\n", "results.csv lacks the column model, performance, metric; "),
        ("model,performance,metric,performance\na,1,x,2\n", "results.csv has the column performance twice"),
        (f"{HEADER}a,1,x\nb,1,x,y\n", "results.csv: row 3 has more cells than the header"),
        (f"{HEADER}{'x' * 200_000},1,x\n", "results.csv is not a CSV file: field larger than field limit"),
    ],
)
def test_a_table_that_cannot_be_used_says_why(text: str, problem: str) -> None:
    read_table = table(text)
    assert read_table.problem.startswith(problem)
    assert read_table.rows == ()


@settings(deadline=None, max_examples=40)
@given(st.lists(rows_of_cells, min_size=1))
def test_every_row_survives(rows: list[tuple[str, str, str]]) -> None:
    buffer = io.StringIO(newline="")
    csv.writer(buffer, quoting=csv.QUOTE_ALL).writerows([("model", "performance", "metric"), *rows])
    assert [tuple(row.values()) for row in table(buffer.getvalue()).rows] == rows


@settings(deadline=None, max_examples=40)
@given(st.text('model,performance,metric\n"\r 1\0') | st.text())
def test_any_text_is_a_table_or_a_problem(text: str) -> None:
    read_table = table(text)
    assert bool(read_table.rows) != bool(read_table.problem)


def test_control_characters_do_not_reach_a_row() -> None:
    table = read(io.StringIO('model,performance,metric\n"a\0b",1,"x\ny"\n', newline=""), "r.csv")
    assert [(row["model"], row["metric"]) for row in table.rows] in ([("a b", "x y")], [])
