"""perf.csv and its companions.

Files that grow are appended to under a lock, and flushed row by row: what stands in them is never read back,
re-typed or rewritten, and one more row costs the same however long the file is.
"""

from __future__ import annotations

import csv
import io
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from pytest_madengine import files
from pytest_madengine.errors import UserError
from pytest_madengine.reporting.appended import append, behind, locked, sizes_of
from pytest_madengine.results.perf import PERF_COLUMNS, SUPER_COLUMNS
from pytest_madengine.results.result import Result, Row

PAUSE = 0.5
"""Seconds between two rewritings of perf_entry."""


class PerfCsv:
    """The file that grows by one line for each row."""

    name = "perf.csv"

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, result: Result) -> None:
        """Append the result's rows."""
        append_csv(self._path, PERF_COLUMNS, [row.columns for row in result.rows])

    def sizes(self) -> Mapping[str, int]:
        """See `Appending`."""
        return sizes_of(self._path)

    def write_missing(self, result: Result, sizes: Mapping[str, int]) -> None:
        """See `Appending`."""
        append_csv(self._path, PERF_COLUMNS, [row.columns for row in result.rows], sizes.get(str(self._path)))


class PerfSuper:
    """perf_super.csv and .json: rows with their configuration and further columns; they grow like perf.csv."""

    name = "perf_super"

    def __init__(self, folder: Path) -> None:
        self._csv = folder / "perf_super.csv"
        self._json = folder / "perf_super.json"

    def write(self, result: Result) -> None:
        """Append the result's records."""
        self.write_missing(result, {})

    def sizes(self) -> Mapping[str, int]:
        """See `Appending`."""
        return sizes_of(self._csv, self._json)

    def write_missing(self, result: Result, sizes: Mapping[str, int]) -> None:
        """See `Appending`."""
        records = [super_record(row) for row in result.rows]
        append_csv(self._csv, SUPER_COLUMNS, map(_flat, records), sizes.get(str(self._csv)))
        append_json(self._json, records, sizes.get(str(self._json)))


class PerfEntry:
    """perf_entry and perf_entry_super: the last result alone, which stands in perf.csv already.

    Of many results that come in a rush those are left out that the next one would replace at once.
    """

    name = "perf_entry"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._last: Result | None = None
        self._written = 0.0

    def write(self, result: Result) -> None:
        """Replace what the files hold, now or with `finish`."""
        self._last = result
        if time.monotonic() - self._written > PAUSE:
            self.finish()

    def finish(self) -> None:
        """See `Finishing`."""
        if self._last:
            self._replace(self._last)
        self._last, self._written = None, time.monotonic()

    def _replace(self, result: Result) -> None:
        records = [super_record(row) for row in result.rows]
        replace_csv(self._folder / "perf_entry.csv", PERF_COLUMNS, [row.columns for row in result.rows])
        replace_json(self._folder / "perf_entry.json", records if len(records) > 1 else records[0])
        replace_csv(self._folder / "perf_entry_super.csv", SUPER_COLUMNS, map(_flat, records))
        replace_json(self._folder / "perf_entry_super.json", records)


def written(path: Path) -> tuple[Path, ...]:
    """The perf.csv at `path` and its companions beside it."""
    names = ("perf_super", "perf_entry", "perf_entry_super")
    return (path, *(path.with_name(f"{name}.{kind}") for name in names for kind in ("csv", "json")))


def rebuild(path: Path, results: Iterable[Result]) -> int:
    """Make perf.csv and its companions anew, as if these results had just come; gives the number of rows."""
    known = list(results)
    for each in written(path):
        each.unlink(missing_ok=True)
    rows = [row for result in known for row in result.rows]
    if not rows:
        return 0
    records = [super_record(row) for row in rows]
    append_csv(path, PERF_COLUMNS, [row.columns for row in rows])
    append_csv(path.with_name("perf_super.csv"), SUPER_COLUMNS, map(_flat, records))
    append_json(path.with_name("perf_super.json"), records)
    entry = PerfEntry(path.parent)
    entry.write(known[-1])
    entry.finish()
    return len(rows)


def super_record(row: Row) -> dict[str, Any]:
    """A row with what only perf_super keeps."""
    return {**row.columns, "configs": row.configs, "multi_results": row.multi_results}


def check(path: Path) -> None:
    """Refuse a file at `path` that rows cannot be appended to.

    Raises:
        UserError: its header lacks columns, or it is no file.
    """
    if path.is_dir() or not path.parent.is_dir():
        raise UserError(
            f"--madengine-output: {path} cannot be written: {'a folder' if path.is_dir() else 'no such folder'}"
        )
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UserError(f"--madengine-output: {path} cannot be written: this user may not")
    if path.exists():
        with path.open("rb") as file:
            header = _header(path, file)
        if header or path.stat().st_size:
            _require_columns(path, header, PERF_COLUMNS)


def append_csv(
    path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]], unless_behind: int | None = None
) -> None:
    """Append rows; a file's own header decides the order and may have further columns.

    Args:
        path: the file.
        columns: what a new file's header holds.
        rows: what to append.
        unless_behind: rows that stand behind this position are there already; part of one at the end is taken away.

    Raises:
        UserError: the header lacks one of `columns`.
    """
    with locked(path) as file:
        header = _header(path, file)
        if header:
            _require_columns(path, header, columns)
        lines = [_encoded(_csv_line(cells)) for cells in _cells(header or columns, rows)]
        if unless_behind is not None:
            lines = _missing(file, lines, unless_behind)
        append(file, b"" if header else _encoded(_csv_line(columns)), lines)


def append_json(path: Path, records: Sequence[Mapping[str, Any]], unless_behind: int | None = None) -> None:
    """Append records to a file that holds a JSON list, by writing over its closing bracket.

    Args:
        path: the file.
        records: what to append.
        unless_behind: records that stand behind this position are there already.

    Raises:
        UserError: the file holds something else.
    """
    with locked(path) as file:
        size = file.seek(0, os.SEEK_END)
        text = json.dumps(list(records), indent=2)
        if not size:
            file.write(text.encode())
            return
        if unless_behind is not None and text[1:-1].strip().encode() in behind(file, unless_behind - len("\n]")):
            return
        file.seek(max(0, size - 4096))
        end = file.read()
        kept = end.rstrip()
        if not kept.endswith(b"]"):
            raise UserError(f"{path}: not a JSON list, so no record can be appended")
        before = kept[:-1].rstrip()
        file.seek(size - len(end) + len(before))
        separator = "\n" if before.endswith(b"[") else ",\n"
        file.write((separator + text[1:].lstrip("\n")).encode())
        file.truncate()


def replace_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a whole CSV file, atomically."""
    files.replace(path, _csv_text([columns, *_cells(columns, rows)]))


def replace_json(path: Path, value: Any) -> None:
    """Write a whole JSON file, atomically."""
    files.replace(path, json.dumps(value, indent=2))


def _missing(file: IO[bytes], lines: Sequence[bytes], position: int) -> list[bytes]:
    """The lines that do not stand behind a position of the file; an unfinished one at its end is cut off."""
    there = behind(file, position)
    missing = [line for line in lines if line not in there]
    unfinished = there.rpartition(b"\n")[2]
    if unfinished and any(line.startswith(unfinished) for line in missing):
        file.truncate(position + len(there) - len(unfinished))
    return missing


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record whose nested values are JSON text, empty where there are none."""
    nested = {key: json.dumps(record[key]) if record[key] is not None else "" for key in ("configs", "multi_results")}
    return {**record, **nested}


def _header(path: Path, file: IO[bytes]) -> list[str]:
    file.seek(0)
    try:
        first = file.readline().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path}: its first line is no UTF-8 text, so it is no CSV file to append to") from None
    return next(csv.reader([first]), []) if first.strip() else []


def _require_columns(path: Path, header: Sequence[str], columns: Sequence[str]) -> None:
    missing = [column for column in columns if column not in header]
    if missing:
        raise UserError(
            f"{path}: its header lacks {', '.join(missing)}; move the file away or name another with --madengine-output"
        )


def _cells(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> list[list[Any]]:
    return [[row.get(column, "") for column in columns] for row in rows]


def _csv_text(rows: Iterable[Sequence[Any]]) -> str:
    return "".join(map(_csv_line, rows))


def _csv_line(row: Sequence[Any]) -> str:
    """A row that ends in a line feed; the writer quotes both line ends only when its own row end holds both."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\r\n").writerow(row)
    return buffer.getvalue().removesuffix("\r\n") + "\n"


def _encoded(text: str) -> bytes:
    """UTF-8; what no UTF-8 can hold is written as an escape, for a row is worth more than one odd character."""
    return text.encode(errors="backslashreplace")
