"""`pytest-madengine report`: what it can make of results, one subcommand each."""

from __future__ import annotations

import argparse

from pytest_madengine.commands import to_email, to_html

KINDS = (to_html, to_email)


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand with those below it."""
    parser = subparsers.add_parser("report", help="make a page or a message of results")
    kinds = parser.add_subparsers(title="kinds", metavar="KIND", required=True)
    for kind in KINDS:
        kind.add(kinds)
