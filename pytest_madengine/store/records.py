"""Reads what runs left: records of Results, and perf.csv files, of ours or of the replaced tool."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from pytest_madengine.errors import Fault, FaultsError, UserError
from pytest_madengine.results.perf import FAILURE, PERF_COLUMNS, SUCCESS
from pytest_madengine.results.result import Result, Row

CUT = "is cut off"


class Line(NamedTuple):
    """One line of a record.

    Attributes:
        number: from 1.
        start: its first byte.
        end: the byte behind it.
        recorded: when it was written, ISO 8601 in UTC; '' where it does not say.
        result: None of a line that cannot be read.
        problem: why.
    """

    number: int
    start: int
    end: int
    recorded: str = ""
    result: Result | None = None
    problem: str = ""


def lines(path: Path, start: int = 0, number: int = 0) -> Iterator[Line]:
    """The lines of a record.

    Args:
        path: the file.
        start: the byte to begin at, where a line begins.
        number: how many lines stand before that.

    Raises:
        OSError: it cannot be opened.
    """
    with path.open("rb") as file:
        file.seek(start)
        end = start
        for count, text in enumerate(file, number + 1):
            begin, end = end, end + len(text)
            yield _line(text, Line(count, begin, end))


def results(path: Path) -> list[Result]:
    """The Results of a record; lines that cannot be read are left out, see `lines` for them."""
    return [each.result for each in lines(path) if each.result]


def of_perf_csv(path: Path) -> Iterator[Result]:
    """A Result for each row of a perf.csv, in their order; columns of other files' are further metrics.

    Raises:
        UserError: it is no such file.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restkey="", restval="")
            _require_columns(path, reader.fieldnames or ())
            yield from (_of_row(path, number, row) for number, row in enumerate(reader, 1))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read: {error}") from None


def _line(text: bytes, bare: Line) -> Line:
    if not text.endswith(b"\n"):
        return bare._replace(problem=CUT)
    try:
        data = json.loads(text)
        made = Result.of(data)
        return bare._replace(recorded=str(data.get("recorded", "")), result=made)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return bare._replace(problem=f"is no Result: {type(error).__name__}: {error}")


def _require_columns(path: Path, header: Iterable[str]) -> None:
    missing = [name for name in ("model", "performance") if name not in header]
    if missing:
        found = f"its header lacks {', '.join(missing)}"
        raise FaultsError([Fault(str(path), found, "a perf.csv, or a record of a run (results.jsonl)")])


def _of_row(path: Path, number: int, row: Mapping[str, str]) -> Result:
    columns = {name: row.get(name) or "" for name in PERF_COLUMNS}
    status = columns["status"] or (SUCCESS if columns["performance"] else FAILURE)
    further = {name: text for name, text in row.items() if name and name not in PERF_COLUMNS and text}
    return Result(
        id=f"{path}:{number}",
        nodeid=columns["model"],
        model=columns["model"],
        status=status,
        rows=(Row({**columns, "status": status}, further or None),),
        run=str(path),
        image=columns["docker_image"],
        digest=columns["docker_sha"],
    )
