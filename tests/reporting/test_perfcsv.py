from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_madengine.errors import UserError
from pytest_madengine.reporting.perfcsv import (
    PerfCsv,
    PerfEntry,
    PerfSuper,
    append_csv,
    append_json,
    check,
    replace_csv,
    super_record,
)
from pytest_madengine.results.perf import PERF_COLUMNS, SUCCESS, SUPER_COLUMNS
from pytest_madengine.results.result import Result, Row

HEADER = ",".join(PERF_COLUMNS) + "\n"
UPSTREAM = (
    HEADER
    + 'old,8,1,8,NA,,--a 1,"x,y",d,b,s,i,0123456,h,local,docker,gfx942,1234.50,tok/s,,SUCCESS,1,2,,,,,0042,\n'
    + "older,,,,None,,,,,,,,,,,,,,,,FAILURE,,,null,,,,00,\n"
)
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
records = st.dictionaries(texts, st.none() | texts | st.lists(texts, max_size=2), max_size=2)


@pytest.fixture
def perf(tmp_path: Path) -> Path:
    return tmp_path / "perf.csv"


def row(name: str = "m", configs: Any = None, multi: dict[str, str] | None = None, **cells: str) -> Row:
    return Row({**dict.fromkeys(PERF_COLUMNS, ""), "model": name, "status": SUCCESS, **cells}, multi, configs)


def result(*rows: Row) -> Result:
    return Result("id", "models.json::m", "m", SUCCESS, rows or (row(),))


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def load(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_a_new_file_gets_the_upstream_header_and_a_row_for_each_row(perf: Path) -> None:
    append_csv(perf, PERF_COLUMNS, [row("a").columns, row("b").columns])
    assert perf.read_text(encoding="utf-8").startswith(HEADER)
    assert [each["model"] for each in read(perf)] == ["a", "b"]


def test_old_rows_stay_byte_for_byte(perf: Path) -> None:
    perf.write_text(UPSTREAM, encoding="utf-8")
    for number in range(3):
        append_csv(perf, PERF_COLUMNS, [row(f"new{number}").columns])
    assert perf.read_bytes().startswith(UPSTREAM.encode())
    assert [each["model"] for each in read(perf)] == ["old", "older", "new0", "new1", "new2"]
    assert read(perf)[0]["build_number"] == "0042"


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.binary())
def test_whatever_stands_below_the_header_is_not_even_read(perf: Path, old: bytes) -> None:
    perf.write_bytes(HEADER.encode() + old)
    append_csv(perf, PERF_COLUMNS, [row("new").columns])
    text = perf.read_bytes()
    assert text.startswith(HEADER.encode() + old)
    assert text.endswith(b"\nnew" + b"," * 20 + b"SUCCESS" + b"," * 8 + b"\n")


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_last_row_without_line_end_gets_one(perf: Path, end: str) -> None:
    perf.write_text(f"{HEADER}old{',' * 28}{end}", encoding="utf-8", newline="")
    append_csv(perf, PERF_COLUMNS, [row("new").columns])
    assert [each["model"] for each in read(perf)] == ["old", "new"]


@pytest.mark.parametrize("content", ["", HEADER, HEADER.rstrip(), HEADER.replace("\n", "\r\n"), "\ufeff" + HEADER])
def test_a_file_without_rows_gets_the_first(perf: Path, content: str) -> None:
    perf.write_text(content, encoding="utf-8", newline="")
    check(perf)
    append_csv(perf, PERF_COLUMNS, [row("new").columns])
    assert perf.read_text(encoding="utf-8-sig").count("model,") == 1
    assert [next(iter(each.values())) for each in read(perf)] == ["new"]


def test_the_files_own_order_and_further_columns_are_kept(perf: Path) -> None:
    header = [*reversed(PERF_COLUMNS), "remark"]
    perf.write_text(",".join(header) + "\n", encoding="utf-8")
    check(perf)
    append_csv(perf, PERF_COLUMNS, [row("new", performance="5").columns])
    (new,) = read(perf)
    assert list(new) == header
    assert (new["model"], new["performance"], new["remark"]) == ("new", "5", "")


def test_a_file_that_lacks_columns_is_refused_and_left_alone(perf: Path) -> None:
    content = "model,performance\nold,1\n"
    perf.write_text(content, encoding="utf-8")
    for refuse in (check, lambda path: append_csv(path, PERF_COLUMNS, [row().columns])):
        with pytest.raises(UserError, match=r"perf.csv: its header lacks n_gpus, .*move the file away"):
            refuse(perf)
    assert perf.read_text(encoding="utf-8") == content


@pytest.mark.parametrize("content", [b"\xff\xfem\0o\0", b"gr\xf6\xdfe,model\n"])
def test_a_file_that_is_no_text_is_refused(perf: Path, content: bytes) -> None:
    perf.write_bytes(content)
    for refuse in (check, lambda path: append_csv(path, PERF_COLUMNS, [])):
        with pytest.raises(UserError, match="its first line is no UTF-8 text"):
            refuse(perf)
    assert perf.read_bytes() == content


def test_a_file_that_begins_with_a_blank_line_is_refused(perf: Path) -> None:
    perf.write_text(f"\n{HEADER}", encoding="utf-8")
    with pytest.raises(UserError, match="its header lacks model"):
        check(perf)


def test_a_place_that_can_hold_no_file_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be written: a folder"):
        check(tmp_path)
    with pytest.raises(UserError, match="cannot be written: no such folder"):
        check(tmp_path / "missing" / "perf.csv")
    check(tmp_path / "new.csv")
    assert list(tmp_path.iterdir()) == []


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(st.lists(st.dictionaries(st.sampled_from(PERF_COLUMNS), texts), min_size=1, max_size=4))
def test_any_row_survives(perf: Path, rows: list[dict[str, str]]) -> None:
    perf.unlink(missing_ok=True)
    for each in rows:
        append_csv(perf, PERF_COLUMNS, [each])
    assert read(perf) == [{column: each.get(column, "") for column in PERF_COLUMNS} for each in rows]


def test_a_value_that_is_no_unicode_costs_no_row(perf: Path) -> None:
    append_csv(perf, PERF_COLUMNS, [row("m", pipeline="caf\udce9").columns])
    assert [each["pipeline"] for each in read(perf)] == ["caf\\udce9"]


def test_no_rows_change_nothing_but_the_header(perf: Path) -> None:
    append_csv(perf, PERF_COLUMNS, [])
    assert perf.read_text(encoding="utf-8") == HEADER


RECORDS: list[dict[str, Any]] = [{"model": "a", "configs": {"x": [1, "ü"]}}, {"model": "b", "configs": None}]


@pytest.mark.parametrize(
    "before",
    [
        None,
        [],
        [{"model": "old"}],
        [[]],
        [[1, 2], "text]"],
        [{"deep": [[{}]]}] * 500,
    ],
)
@pytest.mark.parametrize("indent", [None, 0, 2])
@pytest.mark.parametrize("end", ["", "\n", "\r\n \t\n"])
def test_records_are_added_to_any_list(tmp_path: Path, before: list[Any] | None, indent: int | None, end: str) -> None:
    path = tmp_path / "perf_super.json"
    if before is not None:
        path.write_text(json.dumps(before, indent=indent) + end, encoding="utf-8")
    append_json(path, RECORDS[:1])
    append_json(path, RECORDS)
    assert load(path) == [*(before or []), RECORDS[0], *RECORDS]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(st.lists(st.lists(records, min_size=1, max_size=3), min_size=1, max_size=4))
def test_a_list_that_grows_is_always_json(tmp_path: Path, appended: list[list[dict[str, Any]]]) -> None:
    path = tmp_path / "grows.json"
    path.unlink(missing_ok=True)
    for number, records in enumerate(appended, 1):
        append_json(path, records)
        assert load(path) == [record for each in appended[:number] for record in each]


def test_a_grown_list_looks_as_if_it_was_written_at_once(tmp_path: Path) -> None:
    path = tmp_path / "perf_super.json"
    for record in RECORDS:
        append_json(path, [record])
    assert path.read_text(encoding="utf-8") == json.dumps(RECORDS, indent=2)


def test_the_records_that_stand_in_a_file_are_not_read_again(tmp_path: Path) -> None:
    path = tmp_path / "perf_super.json"
    old = b"[" + b"no JSON at all \xff" * 10_000
    path.write_bytes(old + b"\n]\n")
    append_json(path, RECORDS)
    text = path.read_bytes()
    assert text.startswith(old + b",\n")
    assert json.loads(b"[" + text[len(old) + 1 :]) == RECORDS


@pytest.mark.parametrize("content", ["{}", '{"a": [1]}', "[1", "null", "x"])
def test_a_file_that_holds_no_list_is_refused_and_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "perf_super.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match="not a JSON list, so no record can be appended"):
        append_json(path, RECORDS)
    assert path.read_text(encoding="utf-8") == content


APPEND = """
import sys
from pathlib import Path
from pytest_madengine.reporting.perfcsv import append_csv, append_json
from pytest_madengine.results.perf import PERF_COLUMNS
folder, name = Path(sys.argv[1]), sys.argv[2]
for number in range(50):
    row = dict.fromkeys(PERF_COLUMNS, "x" * 50) | {"model": f"{name}-{number}"}
    append_csv(folder / "perf.csv", PERF_COLUMNS, [row])
    append_json(folder / "perf_super.json", [row])
"""


def test_processes_that_append_at_once_lose_no_row(tmp_path: Path) -> None:
    command = [sys.executable, "-c", APPEND, str(tmp_path)]
    processes = [subprocess.Popen([*command, name]) for name in "abcd"]
    assert [process.wait() for process in processes] == [0] * 4
    names = sorted(f"{name}-{number}" for name in "abcd" for number in range(50))
    for rows in (read(tmp_path / "perf.csv"), load(tmp_path / "perf_super.json")):
        assert sorted(each["model"] for each in rows) == names
        assert all(set(each.values()) == {"x" * 50, each["model"]} for each in rows)


def test_one_more_row_costs_the_same_in_a_long_file(perf: Path) -> None:
    with perf.open("wb") as file:
        file.write(HEADER.encode())
        file.truncate(4 << 30)
    append_csv(perf, PERF_COLUMNS, [row("new").columns])
    assert perf.stat().st_size == (4 << 30) + 1 + len("new,,,,,,,,,,,,,,,,,,,,SUCCESS,,,,,,,,\n")


def test_all_seven_files_tell_of_a_result(tmp_path: Path, perf: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    folder = tmp_path / "elsewhere"
    for each in (result(row("old")), result(row("m_a", {"batch": 8}, {"n": "1"}), row("m_b"))):
        for reporter in (PerfCsv(perf), PerfSuper(folder), PerfEntry(folder)):
            reporter.write(each)
    assert [each["model"] for each in read(perf)] == ["old", "m_a", "m_b"]
    assert sorted(path.name for path in folder.iterdir()) == [
        "perf_entry.csv",
        "perf_entry.json",
        "perf_entry_super.csv",
        "perf_entry_super.json",
        "perf_super.csv",
        "perf_super.json",
    ]
    grown, last = load(folder / "perf_super.json"), load(folder / "perf_entry_super.json")
    assert [each["model"] for each in grown] == ["old", "m_a", "m_b"]
    assert grown[1:] == last == load(folder / "perf_entry.json")
    assert tuple(last[0]) == SUPER_COLUMNS
    assert (last[0]["configs"], last[0]["multi_results"], last[1]["configs"]) == ({"batch": 8}, {"n": "1"}, None)


def test_the_flat_super_files_hold_nested_values_as_json(tmp_path: Path, perf: Path) -> None:
    for reporter in (PerfSuper(tmp_path), PerfEntry(tmp_path)):
        reporter.write(result(row("m_a", [{"a": 'quote " and, comma'}], {"n": "1"}), row("m_b")))
    for name in ("perf_super.csv", "perf_entry_super.csv"):
        first, second = read(tmp_path / name)
        assert tuple(first) == SUPER_COLUMNS
        assert json.loads(first["configs"]) == [{"a": 'quote " and, comma'}]
        assert json.loads(first["multi_results"]) == {"n": "1"}
        assert (second["configs"], second["multi_results"]) == ("", "")


def test_the_entry_of_a_single_row_is_one_object(tmp_path: Path, perf: Path) -> None:
    PerfEntry(tmp_path).write(result(row("m", performance="5")))
    assert load(tmp_path / "perf_entry.json") == super_record(row("m", performance="5"))
    assert [each["performance"] for each in read(tmp_path / "perf_entry.csv")] == ["5"]


def test_a_replaced_file_is_whole_at_every_moment(tmp_path: Path) -> None:
    path = tmp_path / "perf_entry.csv"
    replace_csv(path, ["a", "b"], [{"a": 1}])
    with path.open(encoding="utf-8") as opened_before:
        replace_csv(path, ["a", "b"], [{"b": "\udcff"}])
        assert opened_before.read() == "a,b\n1,\n"
    assert path.read_text(encoding="utf-8") == "a,b\n,\\udcff\n"
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_a_row_is_on_disk_when_it_is_written(perf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    append_csv(perf, PERF_COLUMNS, [row().columns])
    append_json(perf.with_suffix(".json"), RECORDS)
    assert len(synced) == 2


@pytest.mark.parametrize("kept", [0, 1, 5, -1, None])
def test_rows_that_a_crash_cut_anywhere_are_completed_and_none_stands_twice(
    tmp_path: Path, perf: Path, kept: int | None
) -> None:
    each = result(row("m_a", metric='two\nlines, "quoted"'), row("m_b"))
    reporters = (PerfCsv(perf), PerfSuper(tmp_path))
    for reporter in reporters:
        reporter.write(result(row("old")))
    sizes = {path: size for reporter in reporters for path, size in reporter.sizes().items()}
    for reporter in reporters:
        reporter.write(each)
    whole = {path: Path(path).read_bytes() for path in sizes}
    for path, size in sizes.items():
        if path.endswith(".csv"):
            Path(path).write_bytes(whole[path][:size] + whole[path][size:][:kept])
    for _ in range(2):
        for reporter in reporters:
            reporter.write_missing(each, sizes)
    assert {path: Path(path).read_bytes() for path in sizes} == whole


def test_rows_of_others_behind_the_mark_stay(perf: Path) -> None:
    reporter = PerfCsv(perf)
    reporter.write(result(row("old")))
    sizes = reporter.sizes()
    for name in ("other", "m"):
        reporter.write(result(row(name)))
    reporter.write_missing(result(row("m")), sizes)
    assert [each["model"] for each in read(perf)] == ["old", "other", "m"]


def test_of_results_in_a_rush_the_last_entry_stands_in_the_end(tmp_path: Path) -> None:
    reporter = PerfEntry(tmp_path)
    for name in "abc":
        reporter.write(result(row(name)))
    reporter.finish()
    assert [each["model"] for each in read(tmp_path / "perf_entry.csv")] == ["c"]
