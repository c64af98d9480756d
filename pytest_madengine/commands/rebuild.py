"""`pytest-madengine rebuild`: perf.csv and its companions again, from records."""

from __future__ import annotations

import argparse
from pathlib import Path

from pytest_madengine.commands import output, places
from pytest_madengine.errors import Fault, FaultsError
from pytest_madengine.reporting import perfcsv

DESCRIPTION = """
Writes perf.csv, perf_super.csv, perf_super.json and the four perf_entry files again, byte by byte as runs wrote them,
from the records of these runs, or of all. Rows that no record knows, such as those of another tool, are not among them.
"""


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser("rebuild", help="perf.csv again, from records", description=DESCRIPTION)
    places.add_place(parser)
    parser.add_argument(
        "--run", dest="names", action="append", default=[], metavar="RUN", help="an id or its beginning, a tag, latest"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("perf.csv"),
        metavar="PATH",
        help="the others lie beside it; default: perf.csv",
    )
    parser.add_argument("--force", action="store_true", help="replace files that are there")
    parser.set_defaults(run=_rebuild)


def _rebuild(chosen: argparse.Namespace) -> int:
    path: Path = chosen.output
    if not path.parent.is_dir():
        raise FaultsError([Fault("--output", f"{path.parent} is no folder", "a path in one that is there")])
    there = [each for each in perfcsv.written(path) if each.exists()]
    if there and not chosen.force:
        found = f"{', '.join(map(str, there))} would be replaced"
        raise FaultsError([Fault("--output", found, "another path, or --force")])
    with places.opened(chosen.place) as store:
        results = list(store.results([store.run(name) for name in chosen.names]))
        if not results:
            raise FaultsError([Fault(store.place.name, "no record of it holds a result", "a place where models ran")])
    rows = perfcsv.rebuild(path, results)
    output.note(f"{path}: {rows} rows")
    return 0
