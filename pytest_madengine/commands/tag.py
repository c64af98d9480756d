"""`pytest-madengine tag`: names for runs that others are compared with."""

from __future__ import annotations

import argparse
import re

from pytest_madengine import files
from pytest_madengine.baselines import TAGS
from pytest_madengine.commands import output, places
from pytest_madengine.errors import Fault, FaultsError
from pytest_madengine.store.store import LATEST

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
DESCRIPTION = """
Give a run a name, by which --madengine-baseline-of=tag:NAME and other commands find it. A name that another run has is
taken from it.
"""


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser("tag", help="give a run a name", description=DESCRIPTION)
    parser.add_argument("name", metavar="NAME", help="letters, digits, and _ . + -")
    parser.add_argument("named", metavar="RUN", nargs="?", default="latest", help="an id or its beginning; latest")
    places.add_place(parser)
    parser.set_defaults(run=_tag)


def _tag(chosen: argparse.Namespace) -> int:
    if not NAME.fullmatch(chosen.name) or LATEST.fullmatch(chosen.name):
        raise FaultsError([Fault("NAME", f"found {chosen.name!r}", "letters, digits, and _ . + - behind the first")])
    with places.opened(chosen.place) as store:
        top, run = store.place.top, store.run(chosen.named)
    if top is None:
        raise FaultsError(
            [Fault(str(chosen.place), "it is one run's, and tags are a project's", "the project's folder")]
        )
    (top / TAGS).mkdir(exist_ok=True)
    files.replace(top / TAGS / chosen.name, f"{run}\n")
    output.note(f"{run} is {chosen.name} now")
    return 0
