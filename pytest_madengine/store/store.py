"""Answers about what runs came to."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_madengine.errors import Fault, FaultsError, nearest
from pytest_madengine.results.history import Key, Value
from pytest_madengine.results.metric import PERFORMANCE
from pytest_madengine.results.perf import SUCCESS
from pytest_madengine.results.result import Result
from pytest_madengine.store import database, intake, places, records
from pytest_madengine.store.entry import Entry
from pytest_madengine.store.places import Place

if TYPE_CHECKING:
    from sqlite3 import Connection

LATEST = re.compile(r"latest(?:~(\d+))?")
RUNS = """
SELECT run, min(recorded), count(DISTINCT item), sum(outcome = 'SUCCESS'), sum(outcome = 'FAILURE'),
    sum(outcome = 'SKIPPED')
FROM results WHERE last GROUP BY run ORDER BY min(recorded), min(id)
"""


class Run(NamedTuple):
    """A run in numbers; items are counted by their last try.

    Attributes:
        when: when its first result was recorded, ISO 8601 in UTC.
    """

    run: str
    when: str
    items: int
    succeeded: int
    failed: int
    skipped: int


@dataclass(frozen=True)
class Filter:
    """Which results are meant; what is empty does not matter.

    Attributes:
        runs: ids.
        model: a pattern with `*`, `?` and `[…]` for the card's or the row's name.
        metric: a pattern for the metric's name.
        status: of the row.
        tag: one of the model's.
        architecture: a pattern for the GPU's.
        since: recorded then or later: a date or a time, ISO 8601 in UTC.
        all_tries: also those of an item before its last.
    """

    runs: Sequence[str] = ()
    model: str = ""
    metric: str = ""
    status: str = ""
    tag: str = ""
    architecture: str = ""
    since: str = ""
    all_tries: bool = False

    def of(self, run: str) -> Filter:
        """The same of one run."""
        return replace(self, runs=[run])


class Store:
    """All results of a place.

    Attributes:
        place: what it is of.
        problems: lines of records that could not be read.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self._connection = _connected(place)
        self.problems = list(self._problems())

    @classmethod
    def open(cls, path: Path | None = None) -> Store:
        """The results of a path: a project's folder, a run's, a record, a perf.csv; the current folder where None.

        Raises:
            UserError: there is no such place, or a perf.csv that is none.
        """
        return cls(places.place(path or Path.cwd()))

    def close(self) -> None:
        """Let go of the database."""
        self._connection.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def runs(self) -> list[Run]:
        """All runs, the oldest first."""
        return [Run(*found) for found in self._ask(RUNS)]

    def run(self, name: str) -> str:
        """The id of a run: by its id, the beginning of it, a tag, `latest`, or `latest~1` for the one before.

        Raises:
            UserError: there is none, or several begin so.
        """
        known = [found.run for found in self.runs()]
        tag = places.tagged(self.place.top, name)
        if back := LATEST.fullmatch(name):
            index = int(back[1] or 0)
            matches = known[-1 - index : len(known) - index] if index < len(known) else []
        else:
            matches = [run for run in known if run in (name, tag)] or [run for run in known if run.startswith(name)]
        if len(matches) == 1:
            return matches[0]
        raise FaultsError([self._no_run(name, known, matches)])

    def entries(self, which: Filter = Filter()) -> list[Entry]:
        """Every metric of every row that is meant, the oldest first."""
        where, values = _conditions(which)
        return [Entry(*found) for found in self._ask(f"SELECT {COLUMNS} FROM measured {where} {ORDER}", values)]  # noqa: S608  # ours

    def everything(self) -> tuple[list[str], list[tuple[Any, ...]]]:
        """All that is known of each metric: the names of columns, and their values."""
        found = self._connection.execute(f"SELECT * FROM measured {ORDER}")  # noqa: S608  # ours
        return [column[0] for column in found.description], found.fetchall()

    def trend(self, model: str, metric: str = PERFORMANCE, last: int | None = None) -> list[Entry]:
        """A model's values over time, those of the oldest run first.

        Args:
            model: a pattern, see `Filter`.
            metric: a pattern.
            last: of so many runs at most, the latest.
        """
        found = self.entries(Filter(model=model, metric=metric))
        runs = list(dict.fromkeys(entry.run for entry in found))
        kept = set(runs if last is None else runs[len(runs) - min(last, len(runs)) :])
        return [entry for entry in found if entry.run in kept]

    def unknown(self, model: str) -> str:
        """What is to be said of a model that has no results, with the nearest that has."""
        known = [name for (name,) in self._ask("SELECT card FROM results UNION SELECT model FROM rows")]
        return str(Fault(self.place.name, f"no results of {model!r}", nearest=nearest(model, known)))

    def values(self, *, run: str = "", last: int | None = None, without: str = "") -> Iterator[Value]:
        """The values of rows that succeeded, the oldest first, for baselines; see `results.history`.

        Args:
            run: the id of the run that is meant; all where ''.
            last: of so many runs at most, the latest.
            without: a run that does not count, as it is to be compared with the others.
        """
        runs = [found.run for found in self.runs() if found.run != without and run in ("", found.run)]
        if not runs:
            return
        where, asked = _conditions(Filter(runs if last is None else runs[-last:], status=SUCCESS))
        keys: dict[tuple[str, ...], Key] = {}
        question = f"SELECT name, value, unit, run, {', '.join(KEY)} FROM measured {where} {ORDER}"  # noqa: S608  # ours
        for name, value, unit, of_run, *texts in self._ask(question, asked):
            same = tuple(texts)
            if value is not None:
                key = keys.setdefault(same, Key.of(dict(zip(KEY, same, strict=True))))
                yield Value(key, name, value, unit, of_run)

    def results(self, runs: Sequence[str] = ()) -> Iterator[Result]:
        """Whole Results, all tries, in the order in which they were recorded: of these runs, or of all."""
        where, values = _conditions(Filter(runs=runs, all_tries=True))
        joined = "results JOIN files ON files.id = file"
        order = "ORDER BY recorded, results.id"
        for path, start in self._ask(f"SELECT path, start FROM {joined} {where} {order}", values):  # noqa: S608  # ours
            line = next(records.lines(Path(path), start), None)
            if line and line.result:
                yield line.result

    def _problems(self) -> Iterator[str]:
        asked = "SELECT path, line, problem FROM problems JOIN files ON files.id = file ORDER BY path, line"
        for path, line, problem in self._ask(asked):
            yield f"{path}:{line}: {problem}; it is left out"

    def _no_run(self, name: str, known: Sequence[str], matches: Sequence[str]) -> Fault:
        if matches:
            return Fault(self.place.name, f"{len(matches)} runs begin with {name!r}", ", ".join(matches[-3:]))
        valid = f"{', '.join(known[-3:])}, latest, latest~1, or a tag" if known else "there are no results yet"
        return Fault(self.place.name, f"no run {name!r}", valid, nearest(name, [*known, "latest"]))

    def _ask(self, question: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self._connection.execute(question, values).fetchall()


COLUMNS = ", ".join(Entry._fields)
KEY = (*(name for name in Key._fields if name != "image"), "docker_file", "docker_image")
"""The columns that `Key.of` looks at."""
ORDER = "ORDER BY recorded, result, place"


def since(text: str) -> str:
    """A date or time that a user gives, as records have it; without a time zone it is UTC.

    Raises:
        FaultsError: it is neither.
    """
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        valid = "a date such as 2026-03-14, or 2026-03-14T15:09"
        raise FaultsError([Fault("--since", f"found {text!r}", valid)]) from None
    known = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
    return known.astimezone(timezone.utc).isoformat(timespec="microseconds")


def _connected(place: Place) -> Connection:
    """The database that knows all records: its file, or one in memory where that cannot be used."""
    if place.is_perf_csv and place.file:
        connection = database.connect(None)
        intake.add_perf_csv(connection, place.file)
        return connection
    try:
        return _kept(place, place.store)
    except database.UnusableError:
        return _refreshed(place, None)


def _kept(place: Place, file: Path | None) -> Connection:
    """The database in its file, which is made anew where it is damaged."""
    try:
        return _refreshed(place, file)
    except database.DamagedError:
        if file is None:
            raise
        database.discard(file)
        return _refreshed(place, file)


def _refreshed(place: Place, file: Path | None) -> Connection:
    connection = database.connect(file)
    try:
        intake.refresh(connection, place.records())
    except BaseException:
        connection.close()
        raise
    return connection


def _conditions(which: Filter) -> tuple[str, list[Any]]:
    """The WHERE of a question, and the values for its marks."""
    marks = ", ".join("?" * len(which.runs))
    stated: list[tuple[Any, str]] = [
        (list(which.runs), f"run IN ({marks})"),
        ([which.model] * 2 if which.model else [], "(card GLOB ? OR model GLOB ?)"),
        (_one(which.metric), "name GLOB ?"),
        (_one(which.status.upper()), "status = ?"),
        (_one(f",{which.tag}," if which.tag else ""), "instr(',' || tags || ',', ?) > 0"),
        (_one(which.architecture), "gpu_architecture GLOB ?"),
        (_one(which.since), "recorded >= ?"),
    ]
    used = [(values, text) for values, text in stated if values]
    texts = [text for _, text in used] + ([] if which.all_tries else ["last"])
    return (f"WHERE {' AND '.join(texts)}" if texts else ""), [value for values, _ in used for value in values]


def _one(value: str) -> list[str]:
    return [value] if value else []
