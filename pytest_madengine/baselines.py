"""Reads what results are compared with: a references file, a perf.csv, records of earlier runs."""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, ValidationError

from pytest_madengine.context import parse
from pytest_madengine.engine.rundir import RECORD, TOP
from pytest_madengine.errors import Fault, FaultsError, UserError, nearest
from pytest_madengine.models.cardfile import line_in
from pytest_madengine.results.expectations import Stated
from pytest_madengine.results.history import History, Value, of_row
from pytest_madengine.results.references import References
from pytest_madengine.store.store import Store
from pytest_madengine.validation import dotted, faults

OPTION, OF_OPTION = "--madengine-baseline", "--madengine-baseline-of"
LAST, TAG, RUN = "last", "tag", "run"
WAYS = (LAST, TAG, RUN)
DEFAULT = "last:20"
VALID = "last:N (the last N values of each metric), tag:NAME or run:ID"
STORE = "store"
SERVED = ("http", "https")
TAGS = "tags"
"""The folder in `.madengine` with a file for each tag, which holds the id of its run."""
SECONDS = 30
"""How long a server may take to answer."""
FEWEST = 10
"""Values, below which a number of them that is asked for stands for one, their median."""


class Chosen(NamedTuple):
    """Which earlier runs count: `last:5`, `tag:good`, `run:20261123-175656-e7dad6`."""

    way: str
    what: str

    @property
    def kept(self) -> int:
        """How many values of each metric are kept."""
        return int(self.what) if self.way == LAST else 1

    @property
    def single(self) -> bool:
        """Whether what is chosen stands for one value."""
        return self.kept < FEWEST

    def words(self, place: str) -> str:
        """For people: `the last 20 runs in perf.csv`."""
        if self.way == LAST:
            return f"the last {self.what} runs in {place}" if self.kept > 1 else f"the last run in {place}"
        return f"{'run' if self.way == RUN else 'the run tagged'} {self.what} in {place}"


class _OfModel(BaseModel):
    """One model of a references file."""

    model_config = ConfigDict(frozen=True)

    references: References


def references(path: Path) -> dict[str, Stated]:
    """The references of a JSON or YAML file, by model.

    Raises:
        FaultsError: the file cannot be read, or all that is wrong in it.
    """
    data, text = parse.file(path)
    found: list[Fault] = []
    stated = {}
    for name, value in data.items():
        try:
            typed = _OfModel.model_validate({"references": value})
        except ValidationError as error:
            found += faults(error, _OfModel, lambda key, name=name: _where(path, text, (name, *key[1:])))  # type: ignore[misc]
            continue
        stated[name] = Stated(typed.references, f"{path.name}:{line_in(text, (name,)) + 1} {name}")
    if found:
        raise FaultsError(found)
    return stated


def _where(path: Path, text: str, key: tuple[str | int, ...]) -> str:
    return f"{path}:{line_in(text, key) + 1}: {dotted(key)}"


def strange_names(path: Path, stated: Iterable[str], models: Iterable[str]) -> list[str]:
    """What is to be said of models that are in a references file and that nobody has, but nearly."""
    known = set(models)
    lost = {name: nearest(name, known) for name in stated if name not in known}
    return [
        f"{path}: references of {name!r}, which is no model; did you mean {close!r}?"
        for name, close in lost.items()
        if close
    ]


def chosen(text: str) -> Chosen:
    """Which earlier runs an option's text means.

    Raises:
        FaultsError: it is none of the ways to say so.
    """
    way, _, what = text.partition(":")
    if way not in WAYS:
        raise FaultsError([Fault(OF_OPTION, f"found {text!r}", VALID, nearest(way, WAYS))])
    if not what or (way == LAST and not (what.isdecimal() and int(what))):
        raise FaultsError([Fault(OF_OPTION, f"found {text!r}", VALID)])
    return Chosen(way, what)


def require_statistics(option: str) -> None:
    """Meet a machine that has no library for what is asked.

    Raises:
        UserError: scipy is not installed.
    """
    if importlib.util.find_spec("scipy") is None:
        raise UserError(
            f"{option} tells changes from noise by scipy, which is not installed: pip install pytest-madengine[stats]"
        )


def history(name: str, which: Chosen, start: Path, this_run: str, own: Path) -> History:
    """The earlier runs that results are to be compared with.

    Args:
        name: a perf.csv, a record, the folder of a run or of a project, their URI, or `store`: the runs that were
            started here.
        which: of them.
        start: the folder where pytest was started.
        this_run: id of a run that is not to be compared with itself.
        own: the perf.csv that this session writes: it and the store hold nothing before the first run.

    Raises:
        UserError: there is no such thing, it cannot be read, or it does not say of which runs its values are.
    """
    if not which.single:
        require_statistics(OPTION)
    found = History(which.words(name), which.kept, single=which.single)
    scheme = urlsplit(name).scheme
    if scheme in SERVED:
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            found.add(_values(_fetched(name, Path(folder)), name, which, this_run))
        return found
    path = _path(name, scheme, start)
    if path.exists() or (path != own and name != STORE):
        found.add(_values(path, name, which, this_run))
    return found


def _path(name: str, scheme: str, start: Path) -> Path:
    if scheme == "file":
        import urllib.request

        return Path(urllib.request.url2pathname(urlsplit(name).path))
    if "://" in name:
        raise FaultsError(
            [Fault(OPTION, f"found {name!r}", "a file, a folder, file://, http:// or https://, or store")]
        )
    return start / TOP if name == STORE and not (start / STORE).exists() else start / name


def _fetched(name: str, folder: Path) -> Path:
    """A copy of a file that is on a server.

    Raises:
        UserError: it cannot be had.
    """
    import http.client
    import urllib.request

    copy = folder / (Path(urlsplit(name).path).name or RECORD)
    try:
        with urllib.request.urlopen(name, timeout=SECONDS) as answer:  # noqa: S310  # its scheme is known
            copy.write_bytes(answer.read())
    except (OSError, http.client.HTTPException) as error:
        raise UserError(f"{OPTION}: {name} cannot be read: {error}") from None
    return copy


def _values(path: Path, name: str, which: Chosen, this_run: str) -> Iterator[Value]:
    if not path.exists():
        raise FaultsError(
            [Fault(OPTION, f"{path} does not exist", "a perf.csv, a record or its folder, a URI, or store")]
        )
    if path.suffix == ".csv":
        _require_no_runs(name, which)
        yield from _of_csv(path)
        return
    with Store.open(path) as store:
        run = "" if which.way == LAST else store.run(_tagged(store.place.top, name, which))
        values = list(store.values(run=run, without=this_run))
        if store.problems and not values:
            raise FaultsError([Fault(OPTION, store.problems[0], "a perf.csv, or a record: results.jsonl of a run")])
        yield from values


def _of_csv(path: Path) -> Iterator[Value]:
    """The values of a perf.csv, row by row: such a file may be long.

    Raises:
        UserError: it cannot be read, or is none.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restval="")
            missing = [
                column for column in ("model", "performance", "status") if column not in (reader.fieldnames or ())
            ]
            if missing and reader.fieldnames:
                raise FaultsError([Fault(str(path), f"its header lacks {', '.join(missing)}", "a perf.csv")])
            yield from (value for row in reader for value in of_row(row))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{OPTION}: {path} cannot be read: {error}") from None


def _require_no_runs(name: str, which: Chosen) -> None:
    """Meet a choice of a run where no run is named.

    Raises:
        FaultsError: there is one.
    """
    if which.way != LAST:
        found = f"found {which.way}:{which.what}, and {name} does not say of which runs its rows are"
        raise FaultsError([Fault(OF_OPTION, found, "last:N")])


def _tagged(top: Path | None, name: str, which: Chosen) -> str:
    """The run that is chosen.

    Raises:
        FaultsError: nothing has that tag.
    """
    if which.way != TAG:
        return which.what
    tags = sorted(path.name for path in (top / TAGS).glob("[!.]*")) if top else []
    if which.what not in tags:
        valid = ", ".join(tags) or "no run has a tag yet; pytest-madengine tag NAME RUN gives one"
        fault = f"no run of {name} has the tag {which.what!r}"
        raise FaultsError([Fault(OF_OPTION, fault, valid, nearest(which.what, tags))])
    return which.what
