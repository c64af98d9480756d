"""Takes records and perf.csv files into the database; what it knows already is not read again."""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_madengine.results.comparison import Comparison, Judgement
from pytest_madengine.results.metric import Metric, metrics_of
from pytest_madengine.results.perf import PERF_COLUMNS
from pytest_madengine.results.result import Result, Row
from pytest_madengine.store import database, records
from pytest_madengine.store.records import Line

if TYPE_CHECKING:
    from sqlite3 import Connection

WORST_FIRST = (Judgement.REGRESSION, Judgement.NONE, Judgement.IMPROVEMENT, Judgement.PASS)
LAST = """
UPDATE results SET last = 0 WHERE file = :file AND id < (
    SELECT max(later.id) FROM results AS later WHERE later.run = results.run AND later.item = results.item
)
"""
"""Of an item that was tried several times the last try counts."""


class Stamp(NamedTuple):
    """By which a file is known to be as it was: bytes, and nanoseconds of its last change."""

    size: int
    changed: int


@dataclass(frozen=True)
class Known:
    """What the database has of a file.

    Attributes:
        read: the bytes that were understood; what stands behind was a line that was not whole.
        lines: how many those are.
    """

    id: int
    stamp: Stamp
    read: int
    lines: int


def refresh(connection: Connection, paths: Iterable[Path]) -> None:
    """Let the database hold what these records hold, and nothing else.

    Raises:
        UnusableError: the database cannot be written.
    """
    stamps = {str(path): stamp for path in paths if (stamp := _stamp(path))}
    with database.translated():
        if {path: known.stamp for path, known in _known(connection).items()} == stamps:
            return
        connection.execute("BEGIN IMMEDIATE")
        try:
            _update(connection, stamps)
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")


def add_perf_csv(connection: Connection, path: Path) -> None:
    """Take a perf.csv in; its rows have no time, so their order is that of the file.

    Raises:
        UserError: it is no such file.
    """
    with database.translated():
        file = _new_file(connection, str(path))
        for result in records.of_perf_csv(path):
            _insert(connection, file, Line(0, 0, 0, result=result))


def _update(connection: Connection, stamps: Mapping[str, Stamp]) -> None:
    known = _known(connection)
    for path, old in known.items():
        if path not in stamps or _is_another(Path(path), old, stamps[path]):
            connection.execute("DELETE FROM files WHERE id = ?", (old.id,))
    known = _known(connection)
    for path, stamp in stamps.items():
        if path not in known or known[path].stamp != stamp:
            _read(connection, Path(path), stamp, known.get(path))


def _is_another(path: Path, old: Known, new: Stamp) -> bool:
    """Whether a file did more than grow by lines."""
    if old.stamp == new:
        return False
    if new.size <= old.stamp.size:
        return True
    with path.open("rb") as file:
        file.seek(max(0, old.read - 1))
        return old.read > 0 and file.read(1) != b"\n"


def _read(connection: Connection, path: Path, stamp: Stamp, known: Known | None) -> None:
    file = known.id if known else _new_file(connection, str(path))
    read, count = (known.read, known.lines) if known else (0, 0)
    connection.execute("DELETE FROM problems WHERE file = ? AND line > ?", (file, count))
    for line in records.lines(path, read, count):
        if line.problem:
            connection.execute("INSERT INTO problems VALUES (?, ?, ?)", (file, line.number, line.problem))
        if line.problem != records.CUT:
            read, count = line.end, line.number
        if line.result:
            _insert(connection, file, line, path.parent.name)
    connection.execute(LAST, {"file": file})
    connection.execute(
        "UPDATE files SET size = ?, changed = ?, read = ?, lines = ? WHERE id = ?", (*stamp, read, count, file)
    )


def _new_file(connection: Connection, path: str) -> int:
    made = connection.execute("INSERT INTO files VALUES (NULL, ?, 0, 0, 0, 0)", (path,))
    return int(made.lastrowid or 0)


def _insert(connection: Connection, file: int, line: Line, folder: str = "") -> None:
    """One Result with its rows and their metrics."""
    result = line.result
    assert result  # noqa: S101  # a line with a problem does not come here
    key = _insert_into(connection, "results", (file, line.start, *_own(result, line.recorded, folder)))
    measured = _by_row(result)
    for row in result.rows:
        row_key = _insert_into(connection, "rows", (key, *(row.columns.get(name, "") for name in PERF_COLUMNS)))
        for metric in measured.of(row):
            _insert_into(connection, "metrics", (row_key, *_of_metric(metric, result.comparisons)))


def _insert_into(connection: Connection, table: str, values: tuple[Any, ...]) -> int:
    marks = ", ".join("?" * len(values))
    texts = tuple(_storable(value) for value in values)
    return int(connection.execute(f"INSERT INTO {table} VALUES (NULL, {marks})", texts).lastrowid or 0)  # noqa: S608  # both are ours


def _storable(value: Any) -> Any:
    """Text that UTF-8 can hold."""
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value


def _own(result: Result, recorded: str, folder: str) -> tuple[Any, ...]:
    """What a Result says beside its rows, in the order of the table's columns."""
    own = (result.run or folder, recorded or result.ended, result.started, result.ended, result.nodeid, result.attempt)
    judged = (1, result.model, result.status, result.reason, result.failure.value)
    further = (result.duration, result.log, result.image, result.digest, ",".join(filter(None, result.hosts)))
    return (*own, *judged, *further)


class _Measured:
    """The metrics of a Result, handed out row by row; those of rows of one name are told apart by their order."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._left: dict[tuple[str, str], deque[Metric]] = defaultdict(deque)
        for metric in metrics:
            self._left[metric.row, metric.name].append(metric)

    def of(self, row: Row) -> Iterator[Metric]:
        """The next metric of each name; of a row without any, what its columns say."""
        name = row.columns.get("model", "")
        mine = [left for (owner, _), left in self._left.items() if owner == name and left]
        yield from (left.popleft() for left in mine) if mine else metrics_of([row])


def _by_row(result: Result) -> _Measured:
    return _Measured(result.metrics)


def _of_metric(metric: Metric, comparisons: Iterable[Comparison]) -> tuple[Any, ...]:
    of_this = [each for each in comparisons if (each.metric.row, each.metric.name) == (metric.row, metric.name)]
    worst = min(of_this, key=lambda each: WORST_FIRST.index(each.judgement), default=None)
    judged = (worst.change, worst.judgement.value) if worst else (None, "")
    samples = json.dumps(metric.samples)
    return (metric.name, metric.value, metric.unit, metric.direction.value, samples, *judged)


def _known(connection: Connection) -> dict[str, Known]:
    found = connection.execute("SELECT path, id, size, changed, read, lines FROM files")
    return {path: Known(key, Stamp(size, changed), read, count) for path, key, size, changed, read, count in found}


def _stamp(path: Path) -> Stamp | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return Stamp(found.st_size, found.st_mtime_ns)
