"""`pytest-madengine report to-html`: a run, or a perf.csv, as one HTML page."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pytest_madengine.commands import places
from pytest_madengine.engine.rundir import RECORD, TOP
from pytest_madengine.errors import Fault, FaultsError
from pytest_madengine.reporting import html, htmlcsv, htmlpast
from pytest_madengine.reporting.htmlstory import Past
from pytest_madengine.results.result import Result
from pytest_madengine.store.store import Store

LATEST = "latest"
PERF_CSV = Path("perf.csv")
DESCRIPTION = """
Make one HTML page that needs no network: of a run by its record, with trends over the runs before it, or of a
perf.csv, also one of the replaced tool. Without options: of the latest run here, or else of perf.csv.
"""


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser("to-html", help="make one page that opens offline", description=DESCRIPTION)
    places.add_place(parser)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--run", dest="name", metavar="RUN", help="an id or its beginning, a tag, latest, latest~1")
    what.add_argument("--csv-file", "--csv-file-path", dest="csv_file", type=Path, metavar="FILE", help="a perf.csv")
    told = "the page (default: the run's id, or the CSV file's name, with .html)"
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help=told)
    parser.set_defaults(run=_make)


def _make(chosen: argparse.Namespace) -> int:
    """Write the page and say where it is."""
    if chosen.csv_file and chosen.place:
        raise FaultsError([Fault("--csv-file, --from", "both name what the page is to be of", "one of them")])
    csv_file = chosen.csv_file or _csv_meant(chosen)
    output = _of_csv(csv_file, chosen.output) if csv_file else _of_run(chosen)
    sys.stdout.write(f"{output}\n")
    return 0


def _csv_meant(chosen: argparse.Namespace) -> Path | None:
    """The perf.csv that is meant where none is named as such."""
    if chosen.place and not chosen.name and chosen.place.suffix == ".csv":
        return Path(chosen.place)
    has_runs = chosen.place or chosen.name or any(Path(TOP).glob(f"runs/2*/{RECORD}"))
    return None if has_runs else PERF_CSV


def _of_csv(path: Path, output: Path | None) -> Path:
    results = htmlcsv.read(path)
    return _written(output or path.with_suffix(".html"), path, results, {"file": str(path)}, htmlcsv.past(results))


def _of_run(chosen: argparse.Namespace) -> Path:
    with places.opened(chosen.place) as store:
        name = store.run(chosen.name or LATEST)
        results = list(store.results([name]))
        past = htmlpast.past(store, name, results)
        target = ", ".join(_deployments(results))
        output = chosen.output or Path(f"{name}.html")
        return _written(output, _source(store, name), results, {"run": name, "target": target}, past)


def _source(store: Store, run: str) -> Path:
    """The record that the page is made of."""
    return store.place.file or Path(store.place.top or TOP, "runs", run, RECORD)


def _written(output: Path, source: Path, results: Sequence[Result], known: dict[str, str], past: Past) -> Path:
    """The page's path.

    Raises:
        FaultsError: the page would take the place of what it is made of.
    """
    if output.resolve() == source.resolve():
        raise FaultsError([Fault("--output", f"{output} is what the page is made of", "another file")])
    html.write(output, results, known, past)
    return output


def _deployments(results: Sequence[Result]) -> list[str]:
    found = (row.columns.get("deployment_type", "") for result in results for row in result.rows)
    return list(dict.fromkeys(filter(None, found)))
