from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_madengine.errors import FaultsError
from pytest_madengine.reporting import datafile
from pytest_madengine.reporting.perfcsv import PerfCsv, PerfEntry
from pytest_madengine.reporting.record import RunRecord
from pytest_madengine.results.documents import of_result
from tests.results.test_documents import result


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def models(path: Path) -> list[str]:
    datafile.check(path)
    return [document.content["model"] for document in datafile.documents(path)]


def faults(path: Path) -> list[str]:
    with pytest.raises(FaultsError) as caught:
        datafile.check(path)
    return [line.replace(str(path), path.name) for line in str(caught.value).splitlines()]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "model,performance\nm,1\n\nn,2\n"),
        ("a.csv", '\ufeffmodel,performance\r\nm,1\r\nn,"2\n3"\r\n'),
        ("a.json", '[{"model": "m"}, {"model": "n"}]'),
        ("a.jsonl", '{"model": "m"}\n\n{"model": "n"}\n'),
        ("a.txt", "model\nm\nn\n"),
        ("a.dat", ' \n[{"model": "m"}, {"model": "n"}]'),
    ],
)
def test_rows_are_read_by_the_name_of_a_file_else_by_its_first_character(tmp_path: Path, name: str, text: str) -> None:
    assert models(write(tmp_path / name, text)) == ["m", "n"]


def test_one_object_is_one_row(tmp_path: Path) -> None:
    assert models(write(tmp_path / "perf_entry.json", '{"model": "m"}')) == ["m"]


@pytest.mark.parametrize(("name", "text"), [("a.csv", "model\n"), ("a.json", "[]"), ("a.jsonl", "")])
def test_a_file_without_rows_gives_none(tmp_path: Path, name: str, text: str) -> None:
    assert models(write(tmp_path / name, text)) == []


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "", ["a.csv:1: the file is empty; valid: a line with the names of columns, then rows"]),
        (
            "a.csv",
            "m,n\n1\n1,2\n1,2,3\n",
            [f"a.csv:{each}; valid: 2, as in the first line" for each in ("2: 1 cells", "4: 3 cells")],
        ),
        ("a.csv", "m,n,m\n", ["a.csv:1: several columns are named 'm'; valid: each name once"]),
        ("a.csv", b"m\n\xff\n", ["a.csv: byte 0xff is no UTF-8; valid: a text file in UTF-8"]),
        ("a.csv", 'm\n"x"y\n', ["a.csv:2: not CSV: ',' expected after '\"'"]),
        (
            "a.json",
            "[1, {}, []]",
            [f"a.json: {each}; valid: an object" for each in ("[0]: found int", "[2]: found list")],
        ),
        ("a.json", '"x"', ["a.json: found str; valid: an object, or a list of objects"]),
        ("a.json", "[{]", ["a.json:1:3: not JSON: Expecting property name enclosed in double quotes"]),
        ("a.json", b"\xff", ["a.json: byte 0xff is no UTF-8; valid: a text file in UTF-8"]),
        ("a.json", "[" * 100_000, ["a.json: not JSON that can be read"]),
        (
            "a.jsonl",
            "{}\n{\n",
            ["a.jsonl:2: not JSON: Expecting property name enclosed in double*; valid: an object on each line"],
        ),
        ("a.jsonl", '{"id": 1, "nodeid": 1, "rows": 1}\n', ["a.jsonl:1: no Result that can be read: *"]),
    ],
)
def test_what_is_wrong_in_a_file_is_said_with_its_lines(
    tmp_path: Path, name: str, text: str | bytes, words: list[str]
) -> None:
    found = faults(write(tmp_path / name, text))
    assert len(found) == len(words)
    for line, expected in zip(found, words, strict=True):
        begin, _, end = expected.partition("*")
        assert line.startswith(begin)
        assert line.endswith(end)


def test_a_file_that_is_not_there_is_one_message(tmp_path: Path) -> None:
    assert faults(tmp_path / "none.csv") == [
        "none.csv: cannot be read: No such file or directory; valid: a file in CSV, JSON or JSON lines"
    ]
    assert faults(tmp_path)[0].endswith("cannot be read: Is a directory; valid: a file in CSV, JSON or JSON lines")


def test_the_record_of_a_run_gives_the_documents_that_the_run_sends(tmp_path: Path) -> None:
    folder = tmp_path / "run7"
    folder.mkdir()
    results = [result(), result(run="", id="models.json::m")]
    for each in results:
        RunRecord(folder / "results.jsonl").write(each)
    datafile.check(folder / "results.jsonl")
    sent = [document for each in results for document in of_result(each, "run7")]
    assert list(datafile.documents(folder / "results.jsonl")) == sent


def test_what_a_run_writes_is_read(tmp_path: Path) -> None:
    PerfCsv(tmp_path / "perf.csv").write(result())
    PerfEntry(tmp_path).write(result())
    for path in tmp_path.iterdir():
        assert models(path) == ["m"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.dictionaries(st.text(), st.none() | st.integers() | st.text() | st.lists(st.integers()))))
def test_every_list_of_objects_is_read(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    path = write(tmp_path / "a.json", json.dumps(rows))
    datafile.check(path)
    assert len(list(datafile.documents(path))) == len(rows)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(), st.sampled_from([".csv", ".json", ".jsonl", ""]))
def test_whatever_stands_in_a_file_is_read_or_told_of(tmp_path: Path, data: bytes, suffix: str) -> None:
    path = write(tmp_path / f"a{suffix}", data)
    try:
        datafile.check(path)
    except FaultsError:
        return
    list(datafile.documents(path))
