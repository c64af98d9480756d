"""The argument by which commands are told where results lie."""

from __future__ import annotations

import argparse
from pathlib import Path

from pytest_madengine.commands import output
from pytest_madengine.store.store import Store


def add_place(parser: argparse.ArgumentParser) -> None:
    """The option that names a place."""
    parser.add_argument(
        "--from",
        dest="place",
        type=Path,
        metavar="PATH",
        help="a folder where pytest ran models (default: this one), one of its runs, a results.jsonl, or a perf.csv",
    )


def opened(place: Path | None) -> Store:
    """The store of that place; what could not be read is told.

    Raises:
        UserError: there is no such place.
    """
    store = Store.open(place)
    for problem in store.problems:
        output.note(problem)
    return store
