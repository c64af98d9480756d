"""`pytest-madengine trend`: a model's values over time."""

from __future__ import annotations

import argparse

from pytest_madengine.commands import output, places
from pytest_madengine.results.metric import PERFORMANCE
from pytest_madengine.store.entry import Entry

SHOWN = {
    "recorded": "when (UTC)",
    "run": "run",
    "model": "model",
    "name": "metric",
    "gpu_architecture": "GPU",
    "n_gpus": "GPUs",
    "launcher": "launcher",
    "value": "value",
    "unit": "unit",
    "change": "change",
    "judgement": "verdict",
    "status": "status",
}


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    told = "A model's values over runs, the oldest first; change and verdict are those that the runs themselves told."
    parser = subparsers.add_parser("trend", help="a model's values over time", description=told)
    parser.add_argument("model", metavar="MODEL", help="the card's name or the row's; *, ? and [...] are known")
    places.add_place(parser)
    parser.add_argument("--metric", default=PERFORMANCE, metavar="PATTERN", help="default: performance; * for all")
    parser.add_argument("--last", type=_count, metavar="N", help="the last N runs that have the model")
    output.add_format(parser)
    parser.set_defaults(run=_show)


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"found {text!r}; valid: a number from 1")
    return int(text)


def _show(chosen: argparse.Namespace) -> int:
    with places.opened(chosen.place) as store:
        entries = store.trend(chosen.model, chosen.metric, chosen.last)
        if not entries:
            output.note(store.unknown(chosen.model))
            return 1
    output.show(chosen.format, [entry._asdict() for entry in entries], SHOWN, Entry._fields)
    return 0
