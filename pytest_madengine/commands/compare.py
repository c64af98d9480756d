"""`pytest-madengine compare`: two runs side by side."""

from __future__ import annotations

import argparse
from pathlib import Path

from pytest_madengine.commands import output, places
from pytest_madengine.results.metric import PERFORMANCE
from pytest_madengine.store.entry import Entry
from pytest_madengine.store.sidebyside import Pair, pairs
from pytest_madengine.store.store import Filter

DESCRIPTION = """
Two runs side by side: what both measured with the relative change, and what is new in the second or vanished from it.
Each is a run (an id or its beginning, a tag, latest, latest~1) or a path: a perf.csv, of which the last row of each
model counts, a results.jsonl, or a run's folder.
"""
SHOWN = {
    "model": "model",
    "metric": "metric",
    "gpu_architecture": "GPU",
    "n_gpus": "GPUs",
    "launcher": "launcher",
    "first": "first",
    "second": "second",
    "unit": "unit",
    "change": "change",
    "worse": "",
    "first_status": "first status",
    "second_status": "second status",
    "state": "",
}


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser("compare", help="two runs side by side", description=DESCRIPTION)
    parser.add_argument("first", metavar="A", help="the run that is compared with")
    parser.add_argument("second", metavar="B", help="the run that is compared")
    places.add_place(parser)
    parser.add_argument("--model", default="", metavar="PATTERN", help="the card's name, or the row's")
    parser.add_argument("--metric", default=PERFORMANCE, metavar="PATTERN", help="default: performance; * for all")
    output.add_format(parser)
    parser.set_defaults(run=_show)


def _show(chosen: argparse.Namespace) -> int:
    which = Filter(model=chosen.model, metric=chosen.metric)
    (first, one), (second, other) = (_side(name, chosen.place, which) for name in (chosen.first, chosen.second))
    records = [pair._asdict() for pair in pairs(first, second, newest=(one, other))]
    output.show(chosen.format, records, SHOWN, Pair._fields)
    return 0


def _side(name: str, place: Path | None, which: Filter) -> tuple[list[Entry], bool]:
    """The entries of a side, and whether they are a history."""
    if not Path(name).exists():
        with places.opened(place) as store:
            return store.entries(which.of(store.run(name))), False
    with places.opened(Path(name)) as store:
        if store.place.is_perf_csv:
            return store.entries(which), True
        return store.entries(which.of(store.run("latest"))), False
