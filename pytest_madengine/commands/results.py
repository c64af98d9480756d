"""`pytest-madengine results`: what models came to."""

from __future__ import annotations

import argparse
from dataclasses import replace

from pytest_madengine.commands import output, places
from pytest_madengine.results.perf import FAILURE, SKIPPED, SUCCESS
from pytest_madengine.store.entry import Entry
from pytest_madengine.store.store import Filter, Run, Store, since

DESCRIPTION = """
What models came to. Without any filter, the results of the latest run; with one, those of all runs. Patterns know *, ?
and [...].
"""
SHOWN = {
    "run": "run",
    "model": "model",
    "status": "status",
    "name": "metric",
    "value": "value",
    "unit": "unit",
    "change": "change",
    "judgement": "verdict",
    "gpu_architecture": "GPU",
    "n_gpus": "GPUs",
    "launcher": "launcher",
    "duration": "seconds",
    "reason": "reason",
}
SHOWN_OF_RUNS = {
    "run": "run",
    "when": "first result (UTC)",
    "items": "models",
    "succeeded": "succeeded",
    "failed": "failed",
    "skipped": "skipped",
}


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser("results", help="what models came to", description=DESCRIPTION)
    places.add_place(parser)
    parser.add_argument("--runs", action="store_true", help="the runs themselves, with how many models succeeded")
    parser.add_argument(
        "--run",
        dest="names",
        action="append",
        default=[],
        metavar="RUN",
        help="an id or its beginning, a tag, latest, latest~1",
    )
    parser.add_argument("--model", default="", metavar="PATTERN", help="the card's name, or the row's")
    parser.add_argument("--metric", default="", metavar="PATTERN", help="performance, or a column of a results file")
    parser.add_argument(
        "--status", default="", type=str.upper, choices=("", SUCCESS, FAILURE, SKIPPED), metavar="STATUS"
    )
    parser.add_argument("--tag", default="", help="a tag of the model")
    parser.add_argument("--architecture", default="", metavar="PATTERN", help="the GPU's, such as gfx942")
    parser.add_argument("--since", default="", metavar="DATE", help="a date, or a time, in UTC: 2026-03-14T15:09")
    parser.add_argument("--all-tries", action="store_true", help="also the tries before a model's last one in a run")
    output.add_format(parser)
    parser.set_defaults(run=_show)


def _show(chosen: argparse.Namespace) -> int:
    with places.opened(chosen.place) as store:
        if chosen.runs:
            records = [run._asdict() for run in store.runs()]
            output.show(chosen.format, records, SHOWN_OF_RUNS, Run._fields)
        else:
            records = [entry._asdict() for entry in store.entries(_filter(chosen, store))]
            output.show(chosen.format, records, SHOWN, Entry._fields)
    return 0


def _filter(chosen: argparse.Namespace, store: Store) -> Filter:
    which = Filter(
        runs=[store.run(name) for name in chosen.names],
        model=chosen.model,
        metric=chosen.metric,
        status=chosen.status,
        tag=chosen.tag,
        architecture=chosen.architecture,
        since=since(chosen.since) if chosen.since else "",
    )
    latest = which == Filter(runs=[]) and not store.place.is_perf_csv and bool(store.runs())
    return replace(which, runs=[store.run("latest")] if latest else which.runs, all_tries=chosen.all_tries)
