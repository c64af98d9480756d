"""Reads the rows of a file: CSV, JSON, or JSON lines, such as the record of a run."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from pytest_madengine.errors import Fault, FaultsError
from pytest_madengine.reporting.csvtables import long_fields
from pytest_madengine.results.documents import MOST_FAULTS, Document, Line, of_lines, of_result
from pytest_madengine.results.result import Result

FIRST_CHARACTERS = 4096
RECORD = ("id", "nodeid", "rows")
"""Keys by which an object is told to be a Result."""
Read = Iterator[Line | Fault]


def check(path: Path) -> None:
    """Read the file to its end, to meet what is wrong in it before any of it is used.

    Raises:
        FaultsError: the first of what is wrong in it, each with its line.
    """
    found = list(islice((each for each in _read(path) if isinstance(each, Fault)), MOST_FAULTS))
    if found:
        raise FaultsError(found)


def documents(path: Path) -> Iterator[Document]:
    """The documents of a file that `check` found nothing wrong in; Results have those that the run itself sends."""
    lines = (each for each in _read(path) if isinstance(each, Line))
    first = next(lines, None)
    if first is None:
        return
    if _is_result(first.cells):
        for line in _chain(first, lines):
            yield from of_result(Result.from_json(json.dumps(line.cells)), path.resolve().parent.name)
    else:
        yield from of_lines(_chain(first, lines), str(path.resolve()))


def _chain(first: Line, others: Iterator[Line]) -> Iterator[Line]:
    yield first
    yield from others


def _is_result(cells: Any) -> bool:
    return all(name in cells for name in RECORD)


def _read(path: Path) -> Read:
    try:
        yield from _reader(path)(path)
    except UnicodeDecodeError as error:
        yield Fault(str(path), f"byte {error.object[error.start]:#04x} is no UTF-8", "a text file in UTF-8")
    except OSError as error:
        yield Fault(str(path), f"cannot be read: {error.strerror}", "a file in CSV, JSON or JSON lines")


def _reader(path: Path) -> Callable[[Path], Read]:
    by_suffix = READERS.get(path.suffix.lower())
    if by_suffix:
        return by_suffix
    with path.open(encoding="utf-8-sig") as file:
        return _json if file.read(FIRST_CHARACTERS).lstrip().startswith(("{", "[")) else _csv


def _csv(path: Path) -> Read:
    with path.open(encoding="utf-8-sig", newline="") as file, long_fields():
        reader = csv.reader(file, strict=True)
        try:
            header = next(reader, [])
            yield from _header_faults(path, header)
            for cells in filter(None, reader):
                yield _csv_line(f"{path}:{reader.line_num}", header, cells)
        except csv.Error as error:
            yield Fault(f"{path}:{reader.line_num}", f"not CSV: {error}")


def _header_faults(path: Path, header: list[str]) -> Iterator[Fault]:
    if not header:
        yield Fault(f"{path}:1", "the file is empty", "a line with the names of columns, then rows")
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice:
        yield Fault(f"{path}:1", f"several columns are named {', '.join(map(repr, twice))}", "each name once")


def _csv_line(where: str, header: list[str], cells: list[str]) -> Line | Fault:
    if len(cells) != len(header):
        return Fault(where, f"{len(cells)} cells", f"{len(header)}, as in the first line")
    return Line(where, dict(zip(header, cells, strict=True)))


def _json(path: Path) -> Read:
    try:
        stated = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        yield Fault(f"{path}:{error.lineno}:{error.colno}", f"not JSON: {error.msg}")
        return
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, lists a thousand deep
        if isinstance(error, UnicodeDecodeError):
            raise
        yield Fault(str(path), "not JSON that can be read")
        return
    if not isinstance(stated, dict | list):
        yield Fault(str(path), f"found {type(stated).__name__}", "an object, or a list of objects")
        return
    rows = [stated] if isinstance(stated, dict) else stated
    yield from (_object(f"{path}: [{number}]", row) for number, row in enumerate(rows))


def _json_lines(path: Path) -> Read:
    with path.open(encoding="utf-8-sig") as file:
        for number, text in enumerate(file, 1):
            if text.strip():
                yield _json_line(f"{path}:{number}", text)


def _json_line(where: str, text: str) -> Line | Fault:
    try:
        return _object(where, json.loads(text))
    except (ValueError, RecursionError) as error:
        return Fault(where, f"not JSON: {getattr(error, 'msg', 'it cannot be read')}", "an object on each line")


def _object(where: str, row: Any) -> Line | Fault:
    if not isinstance(row, dict):
        return Fault(where, f"found {type(row).__name__}", "an object")
    try:
        if _is_result(row):
            Result.from_json(json.dumps(row))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        return Fault(where, f"no Result that can be read: {error!r}", "a line of a run's record")
    return Line(where, row)


READERS: dict[str, Callable[[Path], Read]] = {
    ".csv": _csv,
    ".json": _json,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
}
