"""The SQLite file that answers questions: made of records, so that nothing is lost with it. The only sqlite3 here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_madengine.results.perf import PERF_COLUMNS

if TYPE_CHECKING:
    import sqlite3

VERSION = 1
"""Of the tables; a file with other ones is made anew."""
PATIENCE = 10.0
"""Seconds to wait for another process that writes."""
OWN = ("run", "recorded", "started", "ended", "item", "attempt", "last", "card", "outcome", "reason", "failure")
FURTHER = ("duration", "log", "image", "digest", "hosts")
OF_METRIC = ("name", "value", "unit", "direction", "samples", "change", "judgement")
SCHEMA = f"""
CREATE TABLE files (
    id INTEGER PRIMARY KEY, path TEXT UNIQUE, size INTEGER, changed INTEGER, read INTEGER, lines INTEGER
);
CREATE TABLE problems (
    file INTEGER REFERENCES files ON DELETE CASCADE, line INTEGER, problem TEXT, PRIMARY KEY (file, line)
);
CREATE TABLE results (
    id INTEGER PRIMARY KEY, file INTEGER REFERENCES files ON DELETE CASCADE, start INTEGER,
    {", ".join((*OWN, *FURTHER))}
);
CREATE TABLE rows (
    id INTEGER PRIMARY KEY, result INTEGER REFERENCES results ON DELETE CASCADE,
    {", ".join(PERF_COLUMNS)}
);
CREATE TABLE metrics (
    id INTEGER PRIMARY KEY, row INTEGER REFERENCES rows ON DELETE CASCADE,
    {", ".join(OF_METRIC)}
);
CREATE INDEX results_of_file ON results (file);
CREATE INDEX results_of_item ON results (run, item);
CREATE INDEX results_by_time ON results (recorded);
CREATE INDEX rows_of_result ON rows (result);
CREATE INDEX rows_of_model ON rows (model);
CREATE INDEX metrics_of_row ON metrics (row);
CREATE VIEW measured AS SELECT
    results.id AS result, metrics.id AS place,
    {", ".join(f"results.{name}" for name in (*OWN, *FURTHER))},
    {", ".join(f"rows.{name}" for name in PERF_COLUMNS)},
    {", ".join(f"metrics.{name}" for name in OF_METRIC)}
FROM results JOIN rows ON rows.result = results.id JOIN metrics ON metrics.row = rows.id;
PRAGMA user_version = {VERSION};
"""  # noqa: S608  # the names are ours
"""`measured` has a line for each metric of each row of each Result."""


class UnusableError(Exception):
    """The file cannot be used: it is read-only, or its file system has no locks."""


class DamagedError(UnusableError):
    """The file is no database, or no whole one."""


def connect(path: Path | None) -> sqlite3.Connection:
    """The database, with its tables.

    Args:
        path: the file; None for a database that is in memory alone. A file of another version is made anew.

    Raises:
        UnusableError: the file cannot be used.
    """
    with translated():
        connection = _opened(str(path) if path else ":memory:")
        try:
            connection.execute("PRAGMA foreign_keys = ON")
            version = _version(connection)
            if not version:
                _make(connection)
        except BaseException:
            connection.close()
            raise
    if version in (0, VERSION):
        return connection
    connection.close()
    if path is None:
        raise AssertionError  # what is in memory alone has no other version
    discard(path)
    return connect(path)


@contextmanager
def translated() -> Iterator[None]:
    """Let what SQLite says of its file be said in our words.

    Raises:
        UnusableError: whatever it was.
    """
    import sqlite3

    try:
        yield
    except sqlite3.OperationalError as error:
        raise UnusableError(str(error)) from error
    except sqlite3.DatabaseError as error:
        raise DamagedError(str(error)) from error


def discard(path: Path) -> None:
    """Take the file away.

    Raises:
        UnusableError: it cannot be.
    """
    try:
        path.unlink(missing_ok=True)
        path.with_name(f"{path.name}-journal").unlink(missing_ok=True)
    except OSError as error:
        raise UnusableError(str(error)) from None


def _opened(name: str) -> sqlite3.Connection:
    import sqlite3

    return sqlite3.connect(name, timeout=PATIENCE, isolation_level=None)


def _make(connection: sqlite3.Connection) -> None:
    """The tables; another process may have been quicker."""
    connection.execute("BEGIN IMMEDIATE")
    if not _version(connection):
        for statement in SCHEMA.split(";"):
            connection.execute(statement)
    connection.execute("COMMIT")


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
